//! Laws of writing.

use std::{future::Future, sync::Arc};

use countem_core::{Batch, BatchId, BucketRange, CollectionName, Period};

use super::{DAY, Lane, apply, bucket, counters};
use crate::{ErrorKind, Held, Release, Released, Rows, Store};

pub(super) async fn a_batch_is_added_to_what_is_stored(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "a", 1), (DAY, "b", 2)])).await;
    apply(store, &lane.batch(&[(DAY, "b", 3), (DAY, "c", 4)])).await;
    assert_eq!(lane.day(store).await, counters(&[("a", 1), ("b", 5), ("c", 4)]));
}

pub(super) async fn applying_a_batch_twice_equals_applying_it_once(store: &dyn Store, mut lane: Lane) {
    let batch = lane.batch(&[(DAY, "a", 1), ("2026-11-21", "a", 2)]);
    for _ in 0..3 {
        apply(store, &batch).await;
    }
    let rows = lane.read(store, BucketRange::every(Period::Day), None).await;
    assert_eq!(
        rows,
        Rows::from([(bucket(DAY), counters(&[("a", 1)])), (bucket("2026-11-21"), counters(&[("a", 2)]))])
    );
}

pub(super) async fn a_late_copy_after_a_newer_batch_changes_nothing(store: &dyn Store, mut lane: Lane) {
    let first = lane.batch(&[(DAY, "a", 1), (DAY, "only-in-first", 1)]);
    let second = lane.batch(&[(DAY, "a", 10)]);
    let third = lane.batch(&[(DAY, "a", 100)]);
    for batch in [&first, &second, &third, &first, &second, &third] {
        apply(store, batch).await;
    }
    assert_eq!(lane.day(store).await, counters(&[("a", 111), ("only-in-first", 1)]));
}

pub(super) async fn lanes_and_writers_are_independent(store: &dyn Store, mut lane: Lane) {
    let mut other = lane.other(2);
    apply(store, &lane.batch(&[(DAY, "a", 1)])).await;
    apply(store, &lane.batch(&[(DAY, "a", 10)])).await;
    apply(store, &other.batch(&[(DAY, "a", 100)])).await;
    assert_eq!(lane.day(store).await, counters(&[("a", 111)]));

    // The same writer and seq in another lane is another batch, about another collection.
    let elsewhere =
        CollectionName::new(&format!("{}-x", lane.collection)).expect("a longer name is still valid");
    let lane_one = Lane { collection: elsewhere.clone(), writer: lane.writer.clone(), seq: 0 };
    let id = BatchId { writer: lane.writer.clone(), lane: 1, seq: 1 };
    apply(store, &Arc::new(Batch::new(id, lane_one.deltas(&[(DAY, "a", 7)])))).await;
    assert_eq!(lane_one.day(store).await, counters(&[("a", 7)]));
}

pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|context| {
        for pending in &mut running {
            if pending.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *pending = None;
            }
        }
        if running.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

pub(super) async fn concurrent_writers_all_count(store: &dyn Store, lane: Lane) {
    join_all((0..8).map(|writer| {
        let mut lane = lane.other(writer + 10);
        async move {
            for _ in 0..5 {
                apply(store, &lane.batch(&[(DAY, "shared", 1), (DAY, &format!("own-{writer}"), 1)])).await;
            }
        }
    }))
    .await;
    let day = lane.day(store).await;
    assert_eq!(day["shared"], 40);
    assert_eq!(day.len(), 9);
    assert!(day.iter().all(|(metric, value)| metric == "shared" || value == Ok(5)), "{day:?}");
}

pub(super) async fn creating_the_same_counters_at_once_loses_nothing(store: &dyn Store, lane: Lane) {
    let days: Vec<String> = (1..=28).map(|day| format!("2026-02-{day:02}")).collect();
    join_all((0..8).map(|writer| {
        let (mut lane, days) = (lane.other(writer + 10), &days);
        async move {
            let deltas: Vec<_> = days.iter().map(|day| (day.as_str(), "created", 1)).collect();
            apply(store, &lane.batch(&deltas)).await;
        }
    }))
    .await;
    let rows = lane.read(store, BucketRange::every(Period::Day), None).await;
    assert_eq!(rows.len(), 28);
    assert!(rows.values().all(|day| *day == counters(&[("created", 8)])), "{rows:?}");
}

pub(super) async fn negative_and_zero_amounts_are_stored(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "down", -5), (DAY, "zero", 0)])).await;
    apply(store, &lane.batch(&[(DAY, "down", 2)])).await;
    assert_eq!(lane.day(store).await, counters(&[("down", -3), ("zero", 0)]));
}

pub(super) async fn an_overflowing_counter_is_quarantined_alone(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "big", i64::MAX - 1), (DAY, "small", i64::MIN + 1)])).await;
    let batch = lane.batch(&[(DAY, "a", 1), (DAY, "big", 2), (DAY, "small", -2), (DAY, "z", 3)]);
    let mut quarantined = store.apply(&batch).await.expect("applying succeeds").quarantined;
    quarantined.sort_by(|a, b| a.metric.cmp(&b.metric));
    let told: Vec<_> = quarantined
        .iter()
        .map(|q| (q.collection.as_str(), q.metric.as_str(), q.bucket, q.n, q.increments))
        .collect();
    let collection = lane.collection.as_str();
    assert_eq!(told, [(collection, "big", bucket(DAY), 2, 1), (collection, "small", bucket(DAY), -2, 1)]);
    assert!(quarantined.iter().all(|q| !q.reason.is_empty()));
    assert_eq!(
        lane.day(store).await,
        counters(&[("a", 1), ("big", i64::MAX - 1), ("small", i64::MIN + 1), ("z", 3)])
    );
    apply(store, &lane.batch(&[(DAY, "big", 1)])).await;
    assert_eq!(lane.day(store).await["big"], i64::MAX);
}

pub(super) async fn a_quarantined_delta_is_reported_again(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "big", i64::MAX)])).await;
    let batch = lane.batch(&[(DAY, "big", 1), (DAY, "a", 1)]);
    let first = store.apply(&batch).await.expect("applying succeeds");
    let again = store.apply(&batch).await.expect("applying succeeds");
    assert_eq!(first.quarantined.len(), 1);
    assert_eq!(first, again);
    assert_eq!(lane.day(store).await, counters(&[("a", 1), ("big", i64::MAX)]));
}

/// Lists what is held of the lane's collection, `None` for a store without a quarantine.
async fn held(store: &dyn Store, lane: &Lane) -> Option<Vec<Held>> {
    match store.quarantined().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        held => {
            let mut held = held.expect("listing the quarantine succeeds");
            held.retain(|held| held.quarantined.collection == lane.collection.as_str());
            Some(held)
        }
    }
}

pub(super) async fn a_held_delta_is_released_once(store: &dyn Store, mut lane: Lane) {
    let batch = lane.batch(&[(DAY, "big", i64::MAX), (DAY, "other", i64::MAX)]);
    apply(store, &batch).await;
    let batch = lane.batch(&[(DAY, "big", 2), (DAY, "ok", 1), (DAY, "other", 3)]);
    let reported = store.apply(&batch).await.expect("applying succeeds").quarantined;
    apply(store, &lane.batch(&[(DAY, "ok", 1)])).await;
    // The store keeps it when the writer has moved on, and when it is forgotten.
    store.forget(&lane.writer).await.expect("retiring succeeds");
    let Some(entries) = held(store, &lane).await else { return };
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.batch == *batch.id() && reported.contains(&entry.quarantined)));
    let entry = |metric| entries.iter().find(|entry| entry.quarantined.metric == metric).expect("it is held");
    let release =
        async |metric, release| store.release(entry(metric), release).await.expect("releasing succeeds");
    assert!(matches!(release("big", Release::Retry).await, Released::Kept(why) if !why.is_empty()));
    assert_eq!(held(store, &lane).await.as_ref(), Some(&entries));

    apply(store, &lane.other(2).batch(&[(DAY, "big", -10)])).await;
    assert_eq!(release("big", Release::Retry).await, Released::Done);
    assert_eq!(release("big", Release::Retry).await, Released::Gone);
    assert_eq!(release("other", Release::Drop).await, Released::Done);
    assert_eq!(release("other", Release::Drop).await, Released::Gone);
    assert_eq!(held(store, &lane).await, Some(Vec::new()));
    let expected = [("big", i64::MAX - 8), ("ok", 2), ("other", i64::MAX)];
    assert_eq!(lane.day(store).await, counters(&expected));
}

pub(super) async fn a_journal_holds_what_is_quarantined_of_its_batches(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "big", i64::MAX)])).await;
    let batch = Arc::new(Batch::new(lane.id(), lane.deltas(&[(DAY, "big", 1)])).journaled());
    for _ in 0..2 {
        assert_eq!(store.apply(&batch).await.expect("applying succeeds").quarantined.len(), 1);
    }
    assert_eq!(held(store, &lane).await.unwrap_or_default(), []);
}

pub(super) async fn forgetting_a_writer_keeps_the_counts(store: &dyn Store, mut lane: Lane) {
    let mut other = lane.other(2);
    apply(store, &lane.batch(&[(DAY, "m", 1)])).await;
    let kept = other.batch(&[(DAY, "m", 10)]);
    apply(store, &kept).await;
    store.forget(&lane.writer).await.expect("retiring succeeds");
    assert_eq!(lane.day(store).await, counters(&[("m", 11)]));
    apply(store, &kept).await;
    assert_eq!(lane.day(store).await, counters(&[("m", 11)]), "another writer's batch was forgotten");
}

pub(super) async fn a_retired_writer_is_still_recognised(store: &dyn Store, mut lane: Lane) {
    let mut next = lane.other(2);
    let batches = [lane.batch(&[(DAY, "m", 1)]), next.batch(&[(DAY, "m", 10)])];
    for batch in &batches {
        store.register(&batch.id().writer).await.expect("registering succeeds");
        apply(store, batch).await;
    }
    store.retire_predecessors(&next.writer).await.expect("retiring succeeds");
    store.retire(&next.writer).await.expect("retiring succeeds");
    for late in &batches {
        apply(store, late).await;
        assert!(
            store.remembers(&late.id().writer).await.expect("the store knows"),
            "it was retired a moment ago"
        );
    }
    assert_eq!(lane.day(store).await, counters(&[("m", 11)]));
}
