//! Reasons for which a line is not counted.

use std::borrow::Cow;

use countem_core::NameError;

use crate::Wanted;

/// Reason for which a line is not counted. Cheap to make: the text is formatted when a line is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reject {
    /// The line does not have the shape of its format.
    Shape(&'static str),
    /// The field of this index is missing.
    Missing(usize),
    /// The field of this index is not a time.
    Time(usize),
    /// The field of this index is not a whole number.
    Amount(usize),
    /// The metric's name would be invalid.
    Metric(&'static str),
    /// The line is longer than [`MAX_LINE`](super::lines::MAX_LINE).
    TooLong,
}

impl Reject {
    /// Returns the rule of metric names that was broken, without the name.
    pub fn of_name(error: &NameError) -> Self {
        Self::Metric(match error {
            NameError::Empty { .. } => "metric name would be empty",
            NameError::TooLong { .. } => "metric name would be longer than 512 bytes",
            _ => "metric name would have a control character",
        })
    }

    /// Returns the reason as text.
    pub fn reason(self, wanted: &Wanted) -> Cow<'static, str> {
        let name = |index: usize| wanted.names().get(index).map_or("", String::as_str);
        match self {
            Self::Shape(text) | Self::Metric(text) => text.into(),
            Self::Missing(index) => format!("field `{{{}}}` is missing", name(index)).into(),
            Self::Time(index) => format!("field `{{{}}}` is not a time", name(index)).into(),
            Self::Amount(index) => format!("field `{{{}}}` is not a whole number", name(index)).into(),
            Self::TooLong => "line is longer than 1 MiB".into(),
        }
    }
}
