//! Reads of a running node.

use std::{sync::Arc, time::Duration};

use countem_core::{CollectionName, Delta};
use countem_query::{ReadError, Source};
use countem_store::{ErrorKind, Query, Rows, StoreError, async_trait, overlay};

use super::Core;
use crate::lane::Lane;

/// The store and what this node has pending.
#[derive(Debug)]
pub(super) struct NodeSource {
    pub(super) core: Arc<Core>,
}

#[async_trait]
impl Source for NodeSource {
    async fn rows(&self, query: &Query) -> Result<Rows, ReadError> {
        let core = &self.core;
        let lane = core.node.lane(query.collection.as_str());
        let store = core.store()?;
        core.resolve_past(lane).await?;
        // While the gate is held no further batch is sent: what the snapshot calls unsent stays unsent.
        let _gate = lane.gate.read().await;
        core.node.drain_all();
        let snapshot = lane.lock().snapshot(query);
        let mut rows = store.read(query, snapshot.in_flight.as_deref()).await?;
        for (bucket, counters) in &snapshot.unsent {
            let deltas = counters.iter().map(|(metric, n)| Delta {
                collection: query.collection.as_str(),
                metric,
                bucket: *bucket,
                n: *n,
                increments: 0,
            });
            overlay(&mut rows, query, deltas);
        }
        Ok(rows)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        let store = self.core.store()?;
        // What is pending first: what is stored meanwhile is then seen twice, and never not at all.
        self.core.node.drain_all();
        let mut names = Vec::new();
        for lane in self.core.node.lanes() {
            names.extend(lane.lock().collections().filter_map(|name| CollectionName::new(name).ok()));
        }
        names.extend(store.collections().await?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

impl Core {
    /// Returns once no batch of an earlier process is unresolved in `lane`: before, nobody can say what the store has of them.
    async fn resolve_past(&self, lane: &Lane) -> Result<(), StoreError> {
        let attempts_before = lane.lock().ledger.attempts;
        loop {
            {
                let lane = lane.lock();
                if !lane.has_unresolved_past() {
                    return Ok(());
                }
                // A batch that was stored since then is an attempt, too, but leaves no error.
                if lane.ledger.attempts > attempts_before
                    && let Some(error) = &lane.ledger.last_error
                {
                    let text =
                        format!("counts of an earlier process have to be stored before a read: {error}");
                    return Err(StoreError::new(ErrorKind::NotApplied, text));
                }
            }
            self.actors.flush(true);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
