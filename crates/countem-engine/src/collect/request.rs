//! Validating a request of several increments as a whole, before anything of it is counted.

use std::sync::Arc;

use countem_core::{Delta, Deltas, Schedules, Table};
use jiff::Timestamp;

use super::{Intake, Refusal, collector::IntakeState};

/// One increment of a request with an idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct KeyedIncrement<'a> {
    /// The collection.
    pub collection: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// The amount.
    pub n: i64,
    /// The time of the event, in the window of event times; `None` for now.
    pub at: Option<Timestamp>,
}

/// A valid request: its deltas in stored buckets, which stay as they are however late they are counted (I3).
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) deltas: Deltas,
    /// The schedules by which the buckets were chosen.
    pub(crate) counted_by: Arc<Schedules>,
}

impl Intake {
    /// Applies the rules of single increments to each of `increments`, and counts none.
    ///
    /// # Errors
    /// The index of the first one that is refused, and the reason.
    pub(crate) fn prepare(&self, increments: &[KeyedIncrement<'_>]) -> Result<Prepared, (usize, Refusal)> {
        if self.is_forked() {
            return Err((0, Refusal::Forked));
        }
        let state = self.state();
        if state != IntakeState::Open {
            return Err((0, state.refusal()));
        }
        let counted_by = self.calendar().schedules();
        let mut table = Table::new();
        for (index, increment) in increments.iter().enumerate() {
            let added = self.add_prepared(&mut table, &counted_by, increment);
            added.map_err(|refusal| (index, refusal))?;
        }
        Ok(Prepared { deltas: table.drain(), counted_by })
    }

    fn add_prepared(
        &self,
        table: &mut Table,
        schedules: &Schedules,
        increment: &KeyedIncrement<'_>,
    ) -> Result<(), Refusal> {
        let KeyedIncrement { collection, metric, n, at } = *increment;
        let now = self.clock().now();
        let timestamp = at.unwrap_or(now);
        if at.is_some() {
            self.check_window(timestamp)?;
        }
        let schedule = schedules.of(collection);
        let bucket = schedule.bucket_at(timestamp)?;
        let delta = Delta { collection, metric, bucket, n, increments: 1 };
        let mut kept = delta.fan_out_kept(schedule, now).peekable();
        if kept.peek().is_none() {
            return Err(Refusal::Expired { timestamp });
        }
        let has_room = self.has_room();
        for delta in kept {
            table.merge(delta)?;
            if !has_room && !self.lanes.of(collection).lock().has_pending(&delta) {
                return Err(Refusal::Full);
            }
        }
        Ok(())
    }
}
