//! The instants of buckets.

use std::ops::Range;

use jiff::{Timestamp, tz::TimeZone};

use crate::{BucketRange, Period};

/// Seconds since 1970 from the first to before the second.
pub(super) type Span = Range<i64>;

/// More than the largest distance of a zone from UTC.
const MAX_OFFSET: i64 = 26 * 3600;

/// Returns the instants of a range of buckets, in order. They are several spans where clocks are set back over midnight: an
/// evening then continues after the first minutes of the next day.
pub(super) fn spans(range: BucketRange, zone: &TimeZone) -> Vec<Span> {
    if range.period() == Period::All {
        return std::iter::once(i64::MIN..i64::MAX).collect();
    }
    let start = range.first().civil_second();
    let end = range.last().next().map_or(i64::MAX / 2, |next| next.civil_second());
    if !range.period().is_civil() {
        return std::iter::once(start..end).collect();
    }
    let mut spans: Vec<Span> = Vec::new();
    let mut at = instant(start - MAX_OFFSET);
    let stop = instant(end.saturating_add(MAX_OFFSET));
    while at < stop {
        let change = zone.following(at).next().map_or(Timestamp::MAX, |change| change.timestamp());
        let offset = i64::from(zone.to_offset(at).seconds());
        let span = at.as_second().max(start - offset)..change.as_second().min(end - offset);
        if !span.is_empty() {
            match spans.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => spans.push(span),
            }
        }
        at = change;
    }
    spans
}

/// Returns the instant, the first or last one where there is none.
pub(super) fn instant(second: i64) -> Timestamp {
    let clamped = second.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(clamped).unwrap_or(Timestamp::MAX)
}
