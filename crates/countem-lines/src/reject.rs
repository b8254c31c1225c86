//! Reasons for which a line is not counted.

use std::borrow::Cow;

use crate::Wanted;

/// Reason for which a line is not counted. Cheap to make: the text is formatted when a line is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reject {
    /// The line does not have the shape of its format.
    Shape(&'static str),
    /// The line is a directive or a comment of its format: it is no record.
    Directive,
    /// The line ends inside of its record.
    Cut,
    /// A second record follows on the line, at this byte.
    Joined(usize),
    /// A wanted value cannot be read.
    Value(&'static str),
    /// The field of this index is missing.
    Missing(usize),
    /// The field of this index is not a time.
    Time(usize),
    /// The clocks skipped the time in the field of this index.
    Skipped(usize),
    /// The clocks showed the time in the field of this index twice, in different buckets.
    Repeated(usize),
    /// The time has expired: no stored period is kept so long.
    Expired,
    /// The field of this index is not a whole number.
    Amount(usize),
    /// The number in the field of this index is larger than a count can be.
    TooLarge(usize),
    /// The line is longer than the door takes.
    TooLong,
}

impl Reject {
    /// Returns the reason as text.
    pub fn reason(self, wanted: &Wanted) -> Cow<'static, str> {
        let name = |index: usize| wanted.names().get(index).map_or("", String::as_str);
        match self {
            Self::Shape(text) | Self::Value(text) => text.into(),
            Self::Directive => "line is a directive".into(),
            Self::Cut => "line ends inside of its record".into(),
            Self::Joined(_) => "another record follows on the line".into(),
            Self::Missing(index) => format!("field `{{{}}}` is missing", name(index)).into(),
            Self::Time(index) => format!("field `{{{}}}` is not a time", name(index)).into(),
            Self::Skipped(index) => {
                format!("the clocks skipped the time in `{{{}}}`, when they were set forward", name(index))
                    .into()
            }
            Self::Repeated(index) => {
                format!("the clocks showed the time in `{{{}}}` twice, and it has no offset", name(index))
                    .into()
            }
            Self::Expired => "time has expired: no stored period is kept so long".into(),
            Self::Amount(index) => format!("field `{{{}}}` is not a whole number", name(index)).into(),
            Self::TooLarge(index) => {
                format!("the number in `{{{}}}` is too large: a count has 64 bits", name(index)).into()
            }
            Self::TooLong => "line is longer than 1 MiB".into(),
        }
    }
}
