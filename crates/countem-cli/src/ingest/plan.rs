//! The parsed flags of an `ingest` run.

use std::sync::Arc;

use countem_core::{Schedules, jiff::tz::TimeZone};
use countem_lines::{Filter, Format, Template, TimeFormat, Times, Wanted};
use jiff::Timestamp;

/// The parsed flags of an `ingest` run: how lines are read and what they count.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) format: Format,
    pub(crate) templates: Vec<Template>,
    /// Each template with all flags that decide about what it counts: the counters of marks.
    pub(crate) counters: Vec<String>,
    /// A line that one of them does not admit is left out.
    pub(crate) filters: Vec<Filter>,
    pub(crate) wanted: Wanted,
    pub(crate) moment: Moment,
    /// Zone of times without an offset; that of the store when `None`.
    pub(crate) input_zone: Option<TimeZone>,
    /// Year of times without one; the nearest when `None`.
    pub(crate) year: Option<i16>,
    /// Index of the field that holds the amount to add; 1 is added when `None`.
    pub(crate) amount: Option<usize>,
    pub(crate) schedules: Arc<Schedules>,
}

/// Moment at which a line is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The time in the fields of these indexes, one after the other with a space between them.
    Fields(Vec<usize>, TimeFormat),
    /// The time at which the line is read.
    Now,
}

impl Plan {
    /// Returns the indexes of the time fields and their reader, `None` when lines are counted at the time they are read.
    pub(crate) fn times(&self) -> Option<(Vec<usize>, Times)> {
        match &self.moment {
            Moment::Now => None,
            Moment::Fields(fields, format) => {
                // Days of every collection are in the same zone.
                let zone =
                    self.input_zone.as_ref().unwrap_or_else(|| self.schedules.zone(Timestamp::now())).clone();
                let times = Times::new(format.clone(), zone, Timestamp::now()).in_year(self.year);
                Some((fields.clone(), times))
            }
        }
    }
}
