//! Why a line is not counted.

use std::borrow::Cow;

use countem_core::NameError;

use crate::ingest::format::Wanted;

/// Why a line is not counted. Cheap to make: the words are found when a line is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reject {
    /// The line does not have the shape of its format.
    Shape(&'static str),
    /// The field in this slot is missing.
    Missing(usize),
    /// The field in this slot is not a time.
    Time(usize),
    /// The field in this slot is not a whole number.
    Amount(usize),
    /// The metric's name would break a rule.
    Metric(&'static str),
    /// The line is longer than any line may be.
    TooLong,
}

impl Reject {
    /// Says which rule of metric names was broken, without the name.
    pub(crate) fn of_name(error: &NameError) -> Self {
        Self::Metric(match error {
            NameError::Empty { .. } => "metric name would be empty",
            NameError::TooLong { .. } => "metric name would be longer than 512 bytes",
            _ => "metric name would have a control character",
        })
    }

    /// Says the reason for people.
    pub(crate) fn reason(self, wanted: &Wanted) -> Cow<'static, str> {
        let name = |slot: usize| wanted.names().get(slot).map_or("", String::as_str);
        match self {
            Self::Shape(text) | Self::Metric(text) => text.into(),
            Self::Missing(slot) => format!("field `{{{}}}` is missing", name(slot)).into(),
            Self::Time(slot) => format!("field `{{{}}}` is not a time", name(slot)).into(),
            Self::Amount(slot) => format!("field `{{{}}}` is not a whole number", name(slot)).into(),
            Self::TooLong => "line is longer than 1 MiB".into(),
        }
    }
}
