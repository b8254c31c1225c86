//! What is to be counted, and how.

use std::sync::Arc;

use countem::Calendar;

use crate::ingest::{
    format::{Format, Wanted},
    template::Template,
    time::{TimeFormat, Times},
};

/// What is to be counted, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) format: Format,
    pub(crate) templates: Vec<Template>,
    pub(crate) wanted: Wanted,
    pub(crate) moment: Moment,
    /// The slot of the field that says how much a line adds; one when `None`.
    pub(crate) amount: Option<usize>,
    pub(crate) calendar: Arc<Calendar>,
}

/// When a line is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// At the time that the line says in the field of this slot.
    Field(usize, TimeFormat),
    /// When it is read.
    Now,
}

impl Plan {
    /// Returns the slot of the time and how to read it, `None` when lines are counted at the time they are read.
    pub(crate) fn times(&self) -> Option<(usize, Times)> {
        match &self.moment {
            Moment::Now => None,
            Moment::Field(slot, format) => {
                // Days of every collection are in the same zone.
                Some((*slot, Times::new(format.clone(), self.calendar.zone().clone())))
            }
        }
    }
}
