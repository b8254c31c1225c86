//! Laws of marks.

use std::sync::Arc;

use countem_core::{Batch, Mark};

use super::{DAY, Lane, apply, apply::join_all, counters};
use crate::{ErrorKind, Store};

impl Lane {
    /// Returns a batch that adds `n` to `m` and moves the mark `key` from `expected` to `value`.
    fn moving(&mut self, n: i64, key: &str, expected: Option<&str>, value: Option<&str>) -> Arc<Batch> {
        let (expected, value) = (expected.map(str::to_owned), value.map(str::to_owned));
        let mark = Mark { key: key.to_owned(), expected, value };
        Arc::new(Batch::with_mark(self.id(), self.deltas(&[(DAY, "m", n)]), mark))
    }

    fn key(&self) -> String {
        format!("mark of {}", self.collection)
    }
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    store.marks(key).await.expect("reading marks succeeds").remove(key)
}

async fn conflicts(store: &dyn Store, batch: &Arc<Batch>) {
    let error = store.apply(batch).await.expect_err("the mark is elsewhere");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

pub(super) async fn a_mark_moves_with_its_batch(store: &dyn Store, mut lane: Lane) {
    let key = lane.key();
    assert_eq!(value(store, &key).await, None);
    let first = lane.moving(1, &key, None, Some("1"));
    let second = lane.moving(1, &key, Some("1"), Some("2"));
    for (batch, after) in [(&first, "1"), (&first, "1"), (&second, "2"), (&second, "2"), (&first, "2")] {
        apply(store, batch).await;
        assert_eq!(value(store, &key).await.as_deref(), Some(after));
    }
    // Another writer moves on, and a copy of the batch before it is still no conflict.
    apply(store, &lane.other(2).moving(1, &key, Some("2"), Some("3"))).await;
    apply(store, &second).await;
    assert_eq!(lane.day(store).await, counters(&[("m", 3)]));
}

pub(super) async fn a_mark_elsewhere_stores_nothing(store: &dyn Store, mut lane: Lane) {
    let key = lane.key();
    conflicts(store, &lane.other(2).moving(1, &key, Some("0"), Some("1"))).await;
    assert_eq!(value(store, &key).await, None);
    apply(store, &lane.moving(1, &key, None, Some("1"))).await;
    for (writer, expected) in [(3, None), (4, Some("0")), (5, Some("11")), (6, Some(""))] {
        conflicts(store, &lane.other(writer).moving(10, &key, expected, Some("9"))).await;
    }
    assert_eq!(value(store, &key).await.as_deref(), Some("1"));
    assert_eq!(lane.day(store).await, counters(&[("m", 1)]));
}

pub(super) async fn of_two_batches_from_one_mark_one_is_stored(store: &dyn Store, lane: Lane) {
    let key = lane.key();
    let mut expected = None;
    for round in 0..5 {
        let stored = std::sync::Mutex::new(Vec::new());
        join_all((0..4).map(|racer| {
            let value = format!("{round} by {racer}");
            let batch =
                lane.other(10 * (round + 1) + racer).moving(1, &key, expected.as_deref(), Some(&value));
            let stored = &stored;
            async move {
                match store.apply(&batch).await {
                    Ok(_) => stored.lock().expect("no racer panics").push(value),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
        }))
        .await;
        let stored = stored.into_inner().expect("no racer panics");
        assert_eq!(stored.len(), 1, "round {round}");
        assert_eq!(value(store, &key).await.as_ref(), stored.first());
        expected = stored.into_iter().next();
    }
    assert_eq!(lane.day(store).await, counters(&[("m", 5)]));
}

pub(super) async fn a_removed_mark_can_be_set_again(store: &dyn Store, mut lane: Lane) {
    let key = lane.key();
    let first = lane.moving(1, &key, None, Some("1"));
    apply(store, &first).await;
    apply(store, &lane.moving(0, &key, Some("1"), None)).await;
    assert_eq!(value(store, &key).await, None);
    apply(store, &first).await;
    assert_eq!(value(store, &key).await, None, "a late copy does not set it");
    apply(store, &lane.moving(1, &key, None, Some("1"))).await;
    assert_eq!(value(store, &key).await.as_deref(), Some("1"));
    assert_eq!(lane.day(store).await, counters(&[("m", 2)]));
}

pub(super) async fn marks_are_listed_by_prefix(store: &dyn Store, mut lane: Lane) {
    let key = lane.key();
    let keys = ["", "/a", "/a/%_*.$", "/b", "0"].map(|end| format!("{key}{end}"));
    for key in &keys {
        apply(store, &lane.moving(1, key, None, Some(key))).await;
    }
    let listed = async |prefix: &str| {
        let marks = store.marks(prefix).await.expect("reading marks succeeds");
        assert!(marks.iter().all(|(key, value)| key == value));
        marks.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(listed(&key).await, keys);
    assert_eq!(listed(&format!("{key}/a")).await, keys[1..3]);
    assert_eq!(listed(&format!("{key}/c")).await, [""; 0]);
}

pub(super) async fn a_quarantined_delta_moves_its_mark(store: &dyn Store, mut lane: Lane) {
    let key = lane.key();
    apply(store, &lane.moving(i64::MAX, &key, None, Some("1"))).await;
    let batch = lane.moving(1, &key, Some("1"), Some("2"));
    for _ in 0..2 {
        assert_eq!(store.apply(&batch).await.expect("applying succeeds").quarantined.len(), 1);
    }
    assert_eq!(value(store, &key).await.as_deref(), Some("2"));
    assert_eq!(lane.day(store).await, counters(&[("m", i64::MAX)]));
}
