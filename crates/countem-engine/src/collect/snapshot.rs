//! Observing counts where they are, without moving any.

use std::collections::BTreeSet;

use countem_core::{Bucket, Delta, Schedules};

use super::{Intake, drain::FanOut};
use crate::sync::Ordering;

/// Numbers of increments in tables and handles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Increments accepted so far.
    pub(crate) accepted: u64,
    /// Those of them that have not reached a lane.
    pub(crate) unmerged: u64,
}

/// Counts while none moves from a table or a handle to a lane.
pub(crate) struct Still<'a>(&'a Intake);

impl Intake {
    /// Calls `observe` while no count moves to a lane: every increment that has returned is then in a table, in a handle or in a
    /// lane, and in one of them only.
    pub(crate) fn hold_still<T>(&self, observe: impl FnOnce(&Still<'_>) -> T) -> T {
        let _still = self.moves.write();
        observe(&Still(self))
    }
}

impl Still<'_> {
    pub(crate) fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for collector in self.0.router().tables() {
            let draining = collector.draining.lock();
            let rest = draining.table.iter().skip(draining.merged).map(|delta| delta.increments);
            counted.unmerged += rest.sum::<u64>();
            let open = collector.lock();
            counted.accepted += open.accepted;
            counted.unmerged += open.table.deltas().totals().increments;
        }
        let mut in_cells = 0;
        self.0.registry.observe(|_| true, |delta| in_cells += delta.increments);
        counted.accepted += self.0.accepted_by_cells.load(Ordering::Relaxed) + in_cells;
        counted.unmerged += in_cells;
        counted
    }

    /// Copies the deltas of collections that `is_wanted`, by counting bucket.
    pub(crate) fn copy(&self, is_wanted: impl Fn(&str) -> bool) -> Copied {
        let mut copied = Copied::default();
        self.observe(&is_wanted, |delta| copied.push(delta));
        copied
    }

    /// Adds the names of all collections that have a delta.
    pub(crate) fn collections(&self, names: &mut BTreeSet<String>) {
        self.observe(&|_| true, |delta| {
            if !names.contains(delta.collection) {
                names.insert(delta.collection.to_owned());
            }
        });
    }

    fn observe(&self, is_wanted: &impl Fn(&str) -> bool, mut observe: impl FnMut(Delta<'_>)) {
        for collector in self.0.router().tables() {
            // Empty, unless a drain was interrupted.
            let draining = collector.draining.lock();
            let rest = draining.table.iter().skip(draining.merged);
            rest.filter(|delta| is_wanted(delta.collection)).for_each(&mut observe);
            collector.observe(|delta| {
                if is_wanted(delta.collection) {
                    observe(delta);
                }
            });
        }
        self.0.registry.observe(is_wanted, observe);
    }
}

/// Copies of deltas, made quickly and used later. The same counter may be there several times.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    entries: Vec<CopiedDelta>,
    /// Collection and metric of every entry, one after the other.
    names: String,
}

#[derive(Debug)]
struct CopiedDelta {
    metric_at: usize,
    end: usize,
    bucket: Bucket,
    n: i64,
}

impl Copied {
    pub(crate) fn push(&mut self, delta: Delta<'_>) {
        self.names.push_str(delta.collection);
        let metric_at = self.names.len();
        self.names.push_str(delta.metric);
        self.entries.push(CopiedDelta { metric_at, end: self.names.len(), bucket: delta.bucket, n: delta.n });
    }

    /// Lists the copies. They carry no increments: they are accounted for where they were copied from.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Delta<'_>> {
        let mut at = 0;
        self.entries.iter().map(move |entry| {
            let begin = std::mem::replace(&mut at, entry.end);
            Delta {
                collection: &self.names[begin..entry.metric_at],
                metric: &self.names[entry.metric_at..entry.end],
                bucket: entry.bucket,
                n: entry.n,
                increments: 0,
            }
        })
    }

    /// Calls `add` with the deltas of the stored buckets.
    pub(crate) fn fan_out(&self, schedules: &Schedules, mut add: impl FnMut(Delta<'_>)) {
        let mut fan_out = FanOut::default();
        for delta in self.iter() {
            for bucket in fan_out.of(schedules.of(delta.collection), delta.bucket) {
                add(delta.in_bucket(*bucket, false));
            }
        }
    }
}
