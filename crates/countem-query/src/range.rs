//! Spans of time as people name them.

pub(crate) mod point;

use std::{fmt, ops::Range, str::FromStr};

use countem_core::{Bucket, BucketError, BucketRange, Period};
use jiff::{SignedDuration, Span, Timestamp, civil::DateTime, tz::TimeZone};

use self::point::{Point, Unit};

/// A span of time, as people name it: the parser of every surface.
///
/// | expression | span |
/// |---|---|
/// | `2026-11-20` `2026-11-20T14` `2026-11-20T14:05` `2026-W47` `2026-11` `2026` `all` | a bucket, by its id |
/// | `2026-Q4` | October to December |
/// | `today` `yesterday` `this-month` `last-week` | `this-` or `last-` second, minute, hour, day, week, month, quarter, year |
/// | `-7d` `-24h` `-3mo` | the day seven days ago, the hour 24 hours ago; `s m h d w mo q y` |
/// | `30d` `12w` | the last 30 days, the present one included |
/// | `now` | the present moment: in a series its whole bucket |
/// | `A..B` | from the beginning of A to the end of B, both included |
/// | `A..` | from the beginning of A until now |
///
/// Days and coarser spans are those of the zone, hours and finer ones those of UTC, as in the ids of buckets.
///
/// ```
/// use countem_core::{Period, jiff::tz::TimeZone};
/// use countem_query::TimeRange;
///
/// let quarter: TimeRange = "2026-Q4".parse()?;
/// let months = quarter.buckets(Period::Month, "2026-11-20T14:05:09Z".parse()?, &TimeZone::UTC)?;
/// assert_eq!((months.first().to_string(), months.last().to_string()), ("2026-10".into(), "2026-12".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    first: Point,
    last: Point,
}

/// An error: the text names no span, or the span is none of whole buckets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeRangeError {
    /// The text is none of the expressions.
    #[error("`{text}` is not a time; accepted: {}", TimeRange::FORMS)]
    Malformed {
        /// The refused text.
        text: String,
    },
    /// The text has the form of a time that is not in the calendar.
    #[error("there is no `{text}` in the calendar; accepted: {}", TimeRange::FORMS)]
    NoSuchTime {
        /// The refused text.
        text: String,
    },
    /// The year has fewer weeks.
    #[error(transparent)]
    Bucket(BucketError),
    /// The range has no beginning or no end of its own.
    #[error("`{text}` has no beginning; accepted: 2026-11-01..2026-11-20, 2026-11-01.. (until now), all")]
    Open {
        /// The refused text.
        text: String,
    },
    /// `all` is an end of a range.
    #[error("`all` cannot be an end of a range such as `{text}`; name the first or last year, month or day")]
    AllInRange {
        /// The refused text.
        text: String,
    },
    /// A number of spans is zero.
    #[error("`{text}` is no span; the shortest one is 1{suffix}", suffix = text.trim_start_matches('0'))]
    Zero {
        /// The refused text.
        text: String,
    },
    /// The span leaves the supported years.
    #[error("`{text}` reaches outside the years 0001 to 9999")]
    Year {
        /// The refused text.
        text: String,
    },
    /// No instant of the span exists.
    #[error("`{text}` lies behind the last day of the calendar, 9999-12-30")]
    Behind {
        /// The refused text.
        text: String,
    },
    /// The end is before the beginning.
    #[error("`{range}` ends before it begins")]
    Inverted {
        /// The refused range.
        range: TimeRange,
    },
    /// A change of the date line left the day out.
    #[error("there was no `{range}` in {zone}: clocks were set forward over the whole day")]
    Skipped {
        /// The refused range.
        range: TimeRange,
        /// The zone.
        zone: String,
    },
    /// The span consists of several, because clocks were set back over midnight.
    #[error(
        "`{range}` is not one span of time in {zone}: clocks were set back over midnight; ask for whole days"
    )]
    Split {
        /// The refused range.
        range: TimeRange,
        /// The zone.
        zone: String,
    },
    /// The span is not made up of whole buckets of the step.
    #[error("`{range}` is not made up of whole {}: {}", steps(*step, zone), advice(wider.as_deref(), periods))]
    NotWhole {
        /// The refused range.
        range: TimeRange,
        /// The step.
        step: Period,
        /// The zone.
        zone: String,
        /// The whole buckets that contain the span, as an expression.
        wider: Option<String>,
        /// Steps that make up the span: the nearest finer and the nearest coarser one.
        periods: Vec<Period>,
    },
}

/// The last hour of the calendar of instants. Buckets go on until the end of the year.
const END: DateTime = DateTime::constant(9999, 12, 30, 22, 0, 0, 0);

impl TimeRange {
    /// The present day.
    pub const TODAY: Self = {
        let today = Point::Ago(0, Unit::Day);
        Self { first: today, last: today }
    };

    /// Returns the last so many days, hours or other units, the present one included; `span` has one unit.
    ///
    /// # Errors
    /// [`TimeRangeError`]: the span has no unit or several, or is negative.
    pub fn last(span: Span) -> Result<Self, TimeRangeError> {
        let units = [
            (i64::from(span.get_years()), "y"),
            (span.get_months().into(), "mo"),
            (span.get_weeks().into(), "w"),
            (span.get_days().into(), "d"),
            (span.get_hours().into(), "h"),
            (span.get_minutes(), "m"),
            (span.get_seconds(), "s"),
        ];
        let mut units = units.into_iter().filter(|(number, _)| *number != 0);
        match (units.next(), units.next()) {
            (Some((number, suffix)), None) => format!("{number}{suffix}").parse::<Self>().and_then(|range| {
                // Behind a sign it is one span in the past.
                if number > 0 { Ok(range) } else { Err(TimeRangeError::Malformed { text: span.to_string() }) }
            }),
            _ => Err(TimeRangeError::Malformed { text: span.to_string() }),
        }
    }

    /// The accepted expressions, for errors and help texts.
    pub const FORMS: &'static str = "2026-11-20, 2026-11-20T14, 2026-11-20T14:05, 2026-W47, 2026-11, 2026-Q4, 2026, all, \
        now, today, yesterday, last-week, this-month, -7d (the day 7 days ago), 30d (the last 30 days, today included), \
        A..B (from the beginning of A to the end of B, both included), A.. (until now); units s m h d w mo q y; hours and finer in UTC";

    /// Returns the finest period that the expression speaks of, its natural step: days for `30d`, months for `2026-Q4`.
    pub fn period(&self) -> Period {
        let periods = [self.first.period(), self.last.period()];
        let finest = periods.into_iter().flatten().min().unwrap_or(Period::Second);
        // Weeks and months do not nest.
        let is_mixed = finest == Period::Week && periods.iter().any(|period| *period > Some(Period::Week));
        if is_mixed { Period::Day } else { finest }
    }

    /// Returns true if an end of the span is the present moment.
    pub(crate) fn mentions_now(&self) -> bool {
        [self.first, self.last].contains(&Point::Now)
    }

    /// Returns the instants of the span, from the first to before the second; `now` is the present second.
    ///
    /// # Errors
    /// [`TimeRangeError`]: the span is inverted, never was, is not one span, or leaves the supported years.
    pub fn resolve(&self, now: Timestamp, zone: &TimeZone) -> Result<Range<Timestamp>, TimeRangeError> {
        if self.first == Point::Bucket(Bucket::ALL) {
            return Ok(Timestamp::MIN..Timestamp::MAX);
        }
        let (first, last) = self.ends(Period::Second, now, zone)?;
        match &self.spans(first, last, zone)?[..] {
            [span] => Ok(instant(span.start)..instant(span.end)),
            _ => Err(TimeRangeError::Split { range: *self, zone: name(zone) }),
        }
    }

    /// Returns the buckets of the period `step` that make up exactly the span; `now` is the present bucket.
    ///
    /// The end of a span may lie after now: its buckets are then empty as yet.
    ///
    /// # Errors
    /// [`TimeRangeError`]: the span is not whole buckets of the step, is inverted, never was, or leaves the supported years.
    pub fn buckets(
        &self,
        step: Period,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<BucketRange, TimeRangeError> {
        if self.first == Point::Bucket(Bucket::ALL) {
            return Ok(BucketRange::every(step));
        }
        let (wider, is_exact) = self.covering(step, now, zone)?;
        if let (Some(range), true) = (wider, is_exact) {
            return Ok(range);
        }
        let is_whole = |period: &Period| {
            self.covering(*period, now, zone).is_ok_and(|(range, is_exact)| is_exact && range.is_some())
        };
        let finer = Period::ALL.into_iter().rev().filter(|period| *period < step).find(is_whole);
        let coarser = Period::ALL.into_iter().filter(|period| *period > step).find(is_whole);
        Err(TimeRangeError::NotWhole {
            range: *self,
            step,
            zone: name(zone),
            wider: wider.map(|range| expression(&range)),
            periods: finer.into_iter().chain(coarser).collect(),
        })
    }

    /// Returns the buckets of `step` that contain the span, and true if they hold nothing else. No bucket but `all` itself is one
    /// of the period `all`.
    fn covering(
        &self,
        step: Period,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<(Option<BucketRange>, bool), TimeRangeError> {
        let moment = if step == Period::All { Period::Second } else { step };
        let (first, last) = self.ends(moment, now, zone)?;
        let spans = self.spans(first, last, zone)?;
        if step == Period::All {
            return Ok((None, false));
        }
        let bucket = |second| {
            let bucket = Bucket::containing(step, instant(second), zone);
            bucket.map_err(|_| TimeRangeError::Year { text: self.to_string() })
        };
        let (Some(start), Some(end)) = (spans.first(), spans.last()) else { return Ok((None, false)) };
        let last = match last.next() {
            None => BucketRange::every(step).last(),
            Some(_) if last.start() > END => return Err(TimeRangeError::Behind { text: self.to_string() }),
            Some(_) => bucket(end.end - 1)?,
        };
        let range = BucketRange::new(bucket(start.start)?, last);
        Ok((range, range.is_some_and(|range| range.spans(zone) == spans)))
    }

    /// Returns the first and the last bucket, which may be of two periods.
    fn ends(
        &self,
        step: Period,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<(Bucket, Bucket), TimeRangeError> {
        let first = self.first.buckets(step, now, zone)?.first();
        Ok((first, self.last.buckets(step, now, zone)?.last()))
    }

    /// Returns the instants from the beginning of `first` to the end of `last`; at least one span.
    fn spans(&self, first: Bucket, last: Bucket, zone: &TimeZone) -> Result<Vec<Range<i64>>, TimeRangeError> {
        let days = days(first, last);
        let mut spans = days.map(|days| days.spans(zone)).unwrap_or_default();
        if !first.period().is_civil() {
            let start = first.start_instant(zone).as_second();
            spans.iter_mut().for_each(|span| span.start = span.start.max(start));
        }
        if let (false, Some(end)) = (last.period().is_civil(), BucketRange::one(last).spans(zone).last()) {
            spans.iter_mut().for_each(|span| span.end = span.end.min(end.end));
        }
        spans.retain(|span| !span.is_empty());
        if !spans.is_empty() {
            return Ok(spans);
        }
        Err(if first.start() > END {
            TimeRangeError::Behind { text: self.to_string() }
        } else if days.is_some() && first.period().is_civil() && last.period().is_civil() {
            TimeRangeError::Skipped { range: *self, zone: name(zone) }
        } else {
            TimeRangeError::Inverted { range: *self }
        })
    }
}

/// Returns the days from `first` to `last`, `None` where they are inverted. An end in UTC comes with enough more for any zone.
fn days(first: Bucket, last: Bucket) -> Option<BucketRange> {
    let every = BucketRange::every(Period::Day);
    let day = |civil: DateTime, otherwise| Bucket::day(civil.date()).unwrap_or(otherwise);
    let more = |bucket: Bucket| SignedDuration::from_hours(if bucket.period().is_civil() { 0 } else { 48 });
    let from = day(first.start().saturating_sub(more(first)), every.first());
    let until = last.next().map_or(every.last(), |next| {
        let end = next.start().saturating_sub(SignedDuration::from_secs(1));
        day(end.saturating_add(more(last)), every.last())
    });
    BucketRange::new(from, until)
}

/// Returns the buckets as an expression.
fn expression(range: &BucketRange) -> String {
    if range.first() == range.last() {
        range.first().to_string()
    } else {
        format!("{}..{}", range.first(), range.last())
    }
}

fn steps(step: Period, zone: &str) -> String {
    match step {
        Period::All => "spans of all time".to_owned(),
        Period::Day => format!("days in {zone}"),
        step if step.is_civil() => format!("{step}s"),
        step => format!("UTC {step}s in {zone}"),
    }
}

fn advice(wider: Option<&str>, periods: &[Period]) -> String {
    let wider = wider.map(|wider| format!("`{wider}`"));
    let periods = periods.iter().map(|period| format!("the step {period}"));
    let alternatives: Vec<_> = wider.into_iter().chain(periods).collect();
    format!("take {}", alternatives.join(", or "))
}

fn name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("this zone").to_owned()
}

/// Returns the instant, the last one of the calendar where there is none.
fn instant(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

impl From<Bucket> for TimeRange {
    fn from(bucket: Bucket) -> Self {
        Self { first: Point::Bucket(bucket), last: Point::Bucket(bucket) }
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => first.fmt(f),
            (first, Point::Now) => write!(f, "{first}.."),
            (Point::Ago(before, unit), Point::Ago(0, last)) if unit == last && before < u32::MAX => {
                write!(f, "{}{}", u64::from(before) + 1, unit.suffix())
            }
            (first, last) => write!(f, "{first}..{last}"),
        }
    }
}

impl FromStr for TimeRange {
    type Err = TimeRangeError;

    fn from_str(text: &str) -> Result<Self, TimeRangeError> {
        if let Some((first, last)) = text.split_once("..") {
            if first.is_empty() {
                return Err(TimeRangeError::Open { text: text.to_owned() });
            }
            let last = if last.is_empty() { Point::Now } else { last.parse()? };
            let ends = Self { first: first.parse()?, last };
            if [ends.first, ends.last].contains(&Point::Bucket(Bucket::ALL)) {
                return Err(TimeRangeError::AllInRange { text: text.to_owned() });
            }
            return Ok(ends);
        }
        match Unit::counted(text).transpose()? {
            Some((0, _)) => Err(TimeRangeError::Zero { text: text.to_owned() }),
            Some((number, unit)) => {
                Ok(Self { first: Point::Ago(number - 1, unit), last: Point::Ago(0, unit) })
            }
            None => text.parse().map(|point| Self { first: point, last: point }),
        }
    }
}

#[cfg(test)]
mod tests;
