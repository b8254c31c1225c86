//! Names that a mistyped one may have meant.

/// Maximum length of a name that is compared, in characters: longer ones are no typing mistakes.
const MAX_COMPARED: usize = 200;

/// Returns up to `max` of `names` that are about equally similar to `text`, the most similar first. None that differ by more than a
/// letter in four and one more.
///
/// Names are compared as wholes and by what follows their last `separator`, so that `interval` leads to
/// `flush.interval` and `Berlin` to `Europe/Berlin`.
pub fn nearest<T: AsRef<str>>(
    text: &str,
    names: impl IntoIterator<Item = T>,
    separator: char,
    max: usize,
) -> Vec<T> {
    let text = comparable(text);
    let scored = names.into_iter().map(|name| (distance(&text, name.as_ref(), separator), name));
    let furthest = 1 + text.chars().count() / 4;
    let mut scored: Vec<_> = scored.filter(|&(distance, _)| distance <= furthest).collect();
    scored.sort_by_key(|&(distance, _)| distance);
    let best = scored.first().map_or(0, |&(distance, _)| distance);
    let near = scored.into_iter().take(max).take_while(|&(distance, _)| distance <= best + 1);
    near.map(|(_, name)| name).collect()
}

/// Returns the one of `names` that `text` probably meant: it differs by a letter in five, or one contains the other.
pub fn similar<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = comparable(text);
    let scored = names.into_iter().filter_map(|name| {
        let lower = name.to_lowercase();
        let is_part = text.len() >= 3 && lower.contains(&text) || lower.len() >= 3 && text.contains(&lower);
        let distance = strsim::osa_distance(&text, &lower);
        (is_part || distance <= 1.max(text.chars().count() / 5)).then_some((distance, name))
    });
    scored.min().map(|(_, name)| name)
}

fn comparable(text: &str) -> String {
    text.chars().take(MAX_COMPARED).collect::<String>().to_lowercase()
}

fn distance(text: &str, name: &str, separator: char) -> usize {
    let name = name.to_lowercase();
    let last = |whole: &str| whole.rsplit(separator).next().unwrap_or_default().to_owned();
    let whole = strsim::osa_distance(text, &name);
    // The right name in the wrong section is as likely as one wrong letter.
    whole.min(strsim::osa_distance(&last(text), &last(&name)) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["store.uri", "flush.interval", "flush.jitter", "collectors.min"];

    #[test]
    fn slip_swap_and_missing_section_lead_to_name() {
        for (text, meant) in [
            ("flush.intervall", "flush.interval"),
            ("flush.jittre", "flush.jitter"),
            ("interval", "flush.interval"),
            ("store.interval", "flush.interval"),
            ("STORE.URL", "store.uri"),
        ] {
            assert_eq!(nearest(text, KEYS, '.', 1), [meant], "{text}");
        }
    }

    #[test]
    fn nonsense_is_near_nothing() {
        for text in ["", "nosuch", "a.b", &"🦀".repeat(100_000)] {
            assert_eq!(nearest(text, KEYS, '.', 1), [""; 0], "{text}");
        }
    }

    #[test]
    fn similar_finds_slips_and_no_nonsense() {
        let names = ["app-events", "web", "orders"];
        assert_eq!(similar("app-event", names), Some("app-events"));
        assert_eq!(similar("events", names), Some("app-events"));
        assert_eq!(similar("Web", names), Some("web"));
        assert_eq!(similar("oders", names), Some("orders"));
        assert_eq!(similar("wbe", names), Some("web"));
        assert_eq!(similar("zzz", names), None);
        assert_eq!(similar("web", []), None);
    }
}
