//! The eight granularities.

use std::{fmt, str::FromStr};

/// Granularity of a [`Bucket`](crate::Bucket), ordered from fine to coarse.
///
/// `Second`, `Minute` and `Hour` are spans of UTC; `Day` and everything coarser are spans of civil time in the
/// configured IANA zone. Weeks are ISO 8601 weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants are the words of the type's description")]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    All,
}

/// An error: the text is not the name of a period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a period; one of second, minute, hour, day, week, month, year, all")]
pub struct PeriodError {
    text: String,
}

impl Period {
    /// All periods from fine to coarse.
    pub const ALL: [Self; 8] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::All];

    /// Returns the lower-case name used in configuration, HTTP and the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::All => "all",
        }
    }

    /// Returns true for civil periods (day and coarser), false for spans of UTC.
    pub fn is_civil(self) -> bool {
        self >= Self::Day
    }

    pub(crate) fn code(self) -> i64 {
        self as i64
    }

    pub(crate) fn from_code(code: i64) -> Self {
        Self::ALL[(code & 7) as usize]
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        Self::ALL
            .into_iter()
            .find(|period| period.name() == text)
            .ok_or_else(|| PeriodError { text: text.to_owned() })
    }
}
