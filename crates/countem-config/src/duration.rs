//! Durations in words: `250ms`, `10s`, `1h 30m`, `7d`.

use std::time::Duration;

use countem_core::jiff::{Span, SpanRelativeTo, fmt::friendly};

/// Reads a duration in jiff's friendly format (or ISO 8601). A day has 24 hours; months and years have no length.
pub fn parse(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    duration.try_into().ok()
}

/// Writes a duration so that [`parse`] reads the same one.
pub(crate) fn text(duration: Duration) -> String {
    let days = duration.as_secs() / DAY.as_secs();
    let rest = Duration::new(duration.as_secs() % DAY.as_secs(), duration.subsec_nanos());
    let rest_text = || friendly::SpanPrinter::new().unsigned_duration_to_string(&rest);
    match (days, rest) {
        (0, _) => rest_text(),
        (_, Duration::ZERO) => format!("{days}d"),
        _ => format!("{days}d {}", rest_text()),
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_written_in_words() {
        for (written, millis, canonical) in [
            ("10s", 10_000, "10s"),
            ("250ms", 250, "250ms"),
            ("1h30m", 5_400_000, "1h 30m"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("1.5s", 1_500, "1s 500ms"),
            ("90 minutes", 5_400_000, "1h 30m"),
            ("36h", 129_600_000, "1d 12h"),
            ("2w", 1_209_600_000, "14d"),
            ("PT5M", 300_000, "5m"),
            (" 0s ", 0, "0s"),
        ] {
            let duration = parse(written).unwrap_or_else(|| panic!("`{written}` was refused"));
            assert_eq!(duration, Duration::from_millis(millis), "{written}");
            assert_eq!(text(duration), canonical);
        }
    }

    #[test]
    fn text_without_a_length_is_refused() {
        for bad in ["", "10", "-10s", "10s ago", "1 month", "1y", "soon", "10s10", "99999999999999999999s"] {
            assert_eq!(parse(bad), None, "`{bad}` was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_written_duration_is_read_back(secs in 0..100_000_000_000_u64, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(secs, nanos);
            prop_assert_eq!(parse(&text(duration)), Some(duration));
        }
    }
}
