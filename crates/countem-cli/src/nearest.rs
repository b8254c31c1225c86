//! The name that was probably meant.

/// Returns the candidate closest to `wanted`, `None` when none is close.
pub(crate) fn among<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let scored = candidates.into_iter().map(|name| {
        let lower = name.to_lowercase();
        // Half of a name, typed correctly, is close however long the other half is; so are swapped letters.
        let is_part =
            wanted.len() >= 3 && lower.contains(&wanted) || lower.len() >= 3 && wanted.contains(&lower);
        let is_slip = wanted.len() >= 3 && strsim::osa_distance(&wanted, &lower) <= 1.max(wanted.len() / 5);
        let score = strsim::jaro_winkler(&wanted, &lower);
        (if is_part || is_slip { score.max(0.9) } else { score }, name)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))?;
    (best.0 >= 0.8).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let names = ["app-events", "web", "orders"];
        assert_eq!(among("app-event", names), Some("app-events"));
        assert_eq!(among("events", names), Some("app-events"));
        assert_eq!(among("Web", names), Some("web"));
        assert_eq!(among("oders", names), Some("orders"));
        assert_eq!(among("wbe", names), Some("web"));
        assert_eq!(among("zzz", names), None);
        assert_eq!(among("web", []), None);
    }
}
