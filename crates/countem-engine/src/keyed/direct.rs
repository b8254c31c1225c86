//! Without a journal: the store adds the deltas together with the claim.

use std::sync::Arc;

use countem_core::{Delta, Deltas, Table};
use countem_store::{Applied, Claimed, ErrorKind, StoreError};

use super::{
    Desk, KeyedError,
    desk::{Entry, Group},
    settle::answer,
};

impl Desk {
    /// Claims the keys of a group together with its deltas.
    pub(super) async fn count_directly(self: &Arc<Self>, group: Group) {
        let agreed = match self.supervisor.store() {
            Some(store) => self.supervisor.agreement().ensure(&*store).await,
            None => Err(StoreError::new(ErrorKind::NotApplied, "the collector was shut down")),
        };
        let schedules = self.intake.calendar().schedules();
        let mut current = Vec::new();
        for entry in self.enter(group, |deltas| self.admit(deltas)) {
            let is_stale = |delta| self.is_counted_otherwise(&delta, &entry.counted_by, &schedules);
            if let Err(error) = &agreed {
                self.finish(entry, Err(KeyedError::unavailable(error)));
            } else if !Arc::ptr_eq(&entry.counted_by, &schedules) && entry.entry.counts.deltas().any(is_stale)
            {
                self.finish(entry, Err(KeyedError::unavailable(&"the store has another schedule by now")));
            } else {
                current.push(entry);
            }
        }
        if !current.is_empty() {
            self.settle(current).await;
        }
    }

    /// Applies the caps on distinct metrics.
    fn admit(&self, deltas: Deltas) -> Deltas {
        let mut admitted = Table::new();
        let all_fit = deltas.iter().all(|delta| {
            let metric = self.lanes.of(delta.collection).lock().admitted(&delta);
            admitted.merge(Delta { metric: &metric, ..delta }).is_ok()
        });
        // Metrics beyond a cap are one counter, whose sum may leave `i64`: then each keeps its name.
        if all_fit { admitted.drain() } else { deltas }
    }

    /// Notes what the store has added, and answers the callers.
    pub(super) async fn note_applied(&self, decided: Vec<(Entry, Claimed)>) {
        let is_over = self.is_over.read().await;
        if *is_over {
            return;
        }
        for (entry, claimed) in decided {
            if let Claimed::Won(Applied { quarantined }) = &claimed {
                let is_quarantined = |delta: &Delta<'_>| {
                    quarantined.iter().any(|one| {
                        (one.collection.as_str(), one.bucket, one.metric.as_str())
                            == (delta.collection, delta.bucket, delta.metric)
                    })
                };
                for delta in entry.entry.counts.deltas().filter(|delta| !is_quarantined(delta)) {
                    self.lanes.of(delta.collection).lock().note_applied(&delta);
                }
                for one in quarantined {
                    self.lanes.of(&one.collection).lock().quarantine_request(one.clone());
                }
            }
            self.finish(entry, Ok(answer(&claimed)));
        }
    }
}
