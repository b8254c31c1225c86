//! Moving counts from tables and handles to the lanes.

use std::ptr;

use countem_core::{Bucket, Delta, Schedule, Schedules};

use jiff::Timestamp;

use super::{Intake, collector::Draining};
use crate::sync::Ordering;

impl Intake {
    /// Moves everything that collector `index` holds to the lanes.
    pub(crate) fn drain(&self, index: usize) {
        // Held until the deltas are in the lanes, so that a concurrent read never misses them.
        let _moving = self.moves.read();
        self.drain_held(index, &self.calendar().schedules());
    }

    /// Does what [`drain`](Self::drain) does with what was counted by `schedules`. The caller holds `moves`.
    pub(super) fn drain_held(&self, index: usize, schedules: &Schedules) {
        let collector = self.router().table(index);
        // Held until the deltas are in the lanes, so that a concurrent drain never misses them.
        let mut draining = collector.draining.lock();
        self.merge_drained(&mut draining, schedules);
        {
            let mut open = collector.lock();
            open.table.swap(&mut draining.table);
            open.counters_max = self.table_counters_max();
        }
        let merge = |delta: &Delta<'_>| self.merge_from_cell(delta, schedules);
        let moved = self.registry.drain(index, &mut draining.table, merge);
        self.accepted_by_cells.fetch_add(moved, Ordering::Relaxed);
        self.merge_drained(&mut draining, schedules);
    }

    /// Merges a drained table into the lanes, going on where an interrupted attempt ended.
    fn merge_drained(&self, draining: &mut Draining, schedules: &Schedules) {
        let Draining { table, merged } = draining;
        let mut fan_out = FanOut { now: Some(self.clock().now()), ..FanOut::default() };
        let mut lane = None;
        for delta in table.iter().skip(*merged) {
            let index = self.lanes.index_of(delta.collection);
            let state = match &mut lane {
                Some((at, state)) if *at == index => state,
                other => {
                    // The lock of the lane before is given back first: two are never held at once.
                    *other = None;
                    &mut other.insert((index, self.lanes.get(index).lock())).1
                }
            };
            let buckets = fan_out.of(schedules.of(delta.collection), delta.bucket);
            for (at, bucket) in buckets.iter().enumerate() {
                state.merge(delta.in_bucket(*bucket, at == 0));
            }
            *merged += 1;
        }
        drop(lane);
        if *merged > 0 {
            table.clear();
            *merged = 0;
            self.lanes.measure();
        }
    }

    /// Moves the sum of a cell, whose lock the caller holds together with `moves`, to its lane. The caller empties the cell.
    pub(super) fn merge_from_cell(&self, delta: &Delta<'_>, schedules: &Schedules) {
        let mut state = self.lanes.of(delta.collection).lock();
        let kept = delta.fan_out_kept(schedules.of(delta.collection), self.clock().now());
        kept.for_each(|delta| state.merge(delta));
        drop(state);
        self.accepted_by_cells.fetch_add(delta.increments, Ordering::Relaxed);
    }
}

/// Remembers the stored buckets of the last counting bucket: deltas of one table are nearly always of the same one.
#[derive(Default)]
pub(super) struct FanOut {
    /// Time by which expired buckets are left out; `None` for a read, which refuses them.
    now: Option<Timestamp>,
    last: Option<(*const Schedule, Bucket)>,
    buckets: Vec<Bucket>,
}

impl FanOut {
    pub(super) fn of(&mut self, schedule: &Schedule, counted: Bucket) -> &[Bucket] {
        let wanted = (ptr::from_ref(schedule), counted);
        if self.last != Some(wanted) {
            self.buckets = match self.now {
                Some(now) => schedule.fan_out_kept(counted, now),
                None => schedule.fan_out(counted).collect(),
            };
            self.last = Some(wanted);
        }
        &self.buckets
    }
}
