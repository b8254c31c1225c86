//! The parsed flags of an `ingest` run.

use std::sync::Arc;

use countem_core::Schedules;
use countem_lines::{Format, Template, TimeFormat, Times, Wanted};
use jiff::Timestamp;

/// The parsed flags of an `ingest` run: how lines are read and what they count.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) format: Format,
    pub(crate) templates: Vec<Template>,
    /// Each template with all flags that decide about what it counts: the counters of marks.
    pub(crate) counters: Vec<String>,
    pub(crate) wanted: Wanted,
    pub(crate) moment: Moment,
    /// Index of the field that holds the amount to add; 1 is added when `None`.
    pub(crate) amount: Option<usize>,
    pub(crate) schedules: Arc<Schedules>,
}

/// Moment at which a line is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The time in the field of this index.
    Field(usize, TimeFormat),
    /// The time at which the line is read.
    Now,
}

impl Plan {
    /// Returns the index of the time field and its reader, `None` when lines are counted at the time they are read.
    pub(crate) fn times(&self) -> Option<(usize, Times)> {
        match &self.moment {
            Moment::Now => None,
            Moment::Field(field, format) => {
                // Days of every collection are in the same zone.
                Some((*field, Times::new(format.clone(), self.schedules.zone(Timestamp::now()).clone())))
            }
        }
    }
}
