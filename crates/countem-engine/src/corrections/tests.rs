//! Corrections beside a model, beside writers, and on stores that end at any step.
//!
//! Shows G21.

mod crash;
mod laws;
mod refuse;

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{
    Batch, BatchId, Bucket, BucketRange, CollectionName, Delta, MetricName, Period, Schedules, Table, Writer,
    jiff::Timestamp,
};
use countem_query::TimeRange;
use countem_store::{MemoryStore, RowQuery, Select, Store};

use super::*;

/// Stored counters other than zero.
type Stored = BTreeMap<(Bucket, String), i64>;

/// One increment.
#[derive(Debug, Clone)]
struct Counted {
    metric: String,
    at: Timestamp,
    n: i64,
}

/// Increments, and the counters that they make up.
#[derive(Debug, Clone)]
struct Model {
    schedules: Arc<Schedules>,
    counted: Vec<Counted>,
}

const NOW: &str = "2026-11-25T10:30:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn web() -> CollectionName {
    CollectionName::new("web").unwrap()
}

fn metric(name: &str) -> MetricName {
    MetricName::new(name).unwrap()
}

fn range(text: &str) -> TimeRange {
    text.parse().unwrap()
}

fn rename(from: &str, to: &str, range: Option<TimeRange>) -> Correction {
    Correction::Rename { collection: web(), from: metric(from), to: metric(to), range }
}

fn delete(metrics: Option<&[&str]>, range: Option<TimeRange>) -> Correction {
    let metrics = metrics.map(|names| names.iter().map(|name| metric(name)).collect());
    Correction::Delete { collection: web(), metrics, range }
}

impl Model {
    fn new(schedules: &str) -> Self {
        Self { schedules: Arc::new(schedules.parse().unwrap()), counted: Vec::new() }
    }

    fn count(&mut self, metric: &str, at: &str, n: i64) {
        self.counted.push(Counted { metric: metric.to_owned(), at: at.parse().unwrap(), n });
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let schedule = self.schedules.of("web");
        for Counted { metric, at, n } in &self.counted {
            let bucket = schedule.bucket_at(*at).unwrap();
            let delta = Delta { collection: "web", metric, bucket, n: *n, increments: 1 };
            delta.fan_out(schedule).for_each(|delta| table.merge(delta).unwrap());
        }
        table
    }

    fn rows(&self) -> Stored {
        let table = self.table();
        let rows = table.iter().map(|delta| ((delta.bucket, delta.metric.to_owned()), delta.n));
        rows.filter(|(_, n)| *n != 0).collect()
    }

    /// Stores the increments, and returns the store.
    async fn stored(&self) -> MemoryStore {
        let store = MemoryStore::new();
        if self.schedules.revision() == 1 {
            store.record_schedules(&self.schedules).await.unwrap();
        }
        add(&store, 1, self.table()).await;
        store
    }

    fn corrections<S: Store>(&self, store: &Arc<S>) -> Corrections {
        let store: Arc<dyn Store> = store.clone();
        Corrections::new(store, Arc::clone(&self.schedules))
    }
}

/// Stores a batch of another writer.
async fn add(store: &dyn Store, writer: u64, mut table: Table) {
    let id = BatchId { writer: Writer::new(writer, 1), lane: 0, seq: 1 };
    let applied = store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    assert_eq!(applied.quarantined, []);
}

/// Returns everything that is stored, zeros included.
async fn everything(store: &dyn Store) -> Stored {
    let mut all = Stored::new();
    for period in Period::ALL {
        let query = RowQuery { collection: web(), range: BucketRange::every(period), select: Select::All };
        for (bucket, counters) in store.read(&query, None).await.unwrap() {
            all.extend(counters.readable().map(|(metric, n)| ((bucket, metric.to_owned()), n)));
        }
    }
    all
}
