//! Requests that an earlier process has left, decided at the start.

use std::collections::BTreeMap;

use countem_core::{Deltas, Table};
use countem_journal::{Record, Recovered};
use countem_store::Claimed;

use crate::deliver::lane_of;

type Lanes = Vec<(u16, Deltas)>;

/// Returns the record that decides the recovered requests, and what is pending after it; `None` if a sum leaves `i64`.
pub(crate) fn decide(recovered: &Recovered, outcomes: &[Claimed]) -> Option<(Record, Lanes)> {
    let (mut won, mut pending) = (BTreeMap::<u16, Table>::new(), BTreeMap::<u16, Table>::new());
    for (lane, deltas) in &recovered.pending {
        let table = pending.entry(*lane).or_default();
        deltas.iter().try_for_each(|delta| table.merge(delta)).ok()?;
    }
    for (entry, claimed) in recovered.keyed.iter().zip(outcomes) {
        if !matches!(claimed, Claimed::Won(_)) {
            continue;
        }
        for delta in entry.counts.deltas() {
            let lane = lane_of(delta.collection, recovered.lanes);
            won.entry(lane).or_default().merge(delta).ok()?;
            pending.entry(lane).or_default().merge(delta).ok()?;
        }
    }
    let decided = recovered.keyed.iter().map(|entry| entry.counts.id().clone()).collect();
    Some((Record { lanes: drained(won), decided, ..Record::default() }, drained(pending)))
}

fn drained(lanes: BTreeMap<u16, Table>) -> Lanes {
    lanes.into_iter().map(|(lane, mut table)| (lane, table.drain())).collect()
}
