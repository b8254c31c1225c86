//! What somebody who mistyped a name probably meant.

/// Names longer than this are not typing mistakes; comparing them would only cost time.
const LONGEST: usize = 200;

/// Returns up to `most` of `names` that are about equally similar to `text`, the most similar first. Names are compared as wholes and by what
/// follows their last `separator`, so that `interval` leads to `flush.interval` and `Berlin` to `Europe/Berlin`.
pub(super) fn nearest<T: AsRef<str>>(
    text: &str,
    names: impl IntoIterator<Item = T>,
    separator: char,
    most: usize,
) -> Vec<T> {
    let text = text.chars().take(LONGEST).collect::<String>().to_lowercase();
    let mut scored: Vec<_> =
        names.into_iter().map(|name| (distance(&text, name.as_ref(), separator), name)).collect();
    scored.sort_by_key(|&(distance, _)| distance);
    let best = scored.first().map_or(0, |&(distance, _)| distance);
    scored
        .into_iter()
        .take(most)
        .take_while(|&(distance, _)| distance <= best + 1)
        .map(|(_, name)| name)
        .collect()
}

fn distance(text: &str, name: &str, separator: char) -> usize {
    let name = name.to_lowercase();
    let last = |whole: &str| whole.rsplit(separator).next().unwrap_or_default().to_owned();
    let whole = strsim::osa_distance(text, &name);
    // The right name in the wrong place is as likely as one wrong letter.
    whole.min(strsim::osa_distance(&last(text), &last(&name)) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["store.uri", "flush.interval", "flush.jitter", "collectors.min"];

    #[test]
    fn a_wrong_letter_a_swap_and_a_missing_section_lead_to_the_name() {
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
    fn there_is_always_an_answer() {
        assert_eq!(nearest("", KEYS, '.', 1).len(), 1);
        assert_eq!(nearest(&"🦀".repeat(100_000), KEYS, '.', 1).len(), 1);
    }
}
