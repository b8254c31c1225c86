//! The laws of the [`Store`] contract as executable checks, for every store and decorator.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use countem_store::{MemoryStore, conformance};
//!
//! let laws = conformance::run(async || MemoryStore::new()).await;
//! assert_eq!(laws, conformance::LAWS);
//! # });
//! ```

use std::{future::Future, sync::Arc};

use countem_core::{
    Batch, BatchId, Bucket, BucketRange, CollectionName, Deltas, Mark, MetricName, Period, Table, Writer,
};

use crate::{Counters, ErrorKind, Query, Rows, Select, Store};

/// How many laws [`run`] checks.
pub const LAWS: usize = 17;

/// Checks every law, each on a fresh store from `make`, and returns how many were checked.
///
/// Stores may keep data of earlier laws as long as names do not collide: every law uses a collection of its own.
///
/// # Panics
/// When the store breaks a law; the message names it.
pub async fn run<S: Store>(make: impl AsyncFn() -> S) -> usize {
    let mut laws = 0;
    macro_rules! check {
        ($($law:ident),* $(,)?) => {$(
            // The name is printed first, so that it stands above the message of a failing assertion.
            println!("law: {}", stringify!($law));
            {
                let store = make().await;
                $law(&store, Lane::new(stringify!($law))).await;
            }
            laws += 1;
        )*};
    }
    check!(
        a_batch_is_added_to_what_is_stored,
        applying_a_batch_twice_equals_applying_it_once,
        a_late_copy_after_a_newer_batch_changes_nothing,
        lanes_and_writers_are_independent,
        concurrent_writers_all_count,
        creating_the_same_counters_at_once_loses_nothing,
        a_read_counts_an_in_flight_batch_exactly_once,
        an_overflowing_counter_is_quarantined_alone,
        a_quarantined_delta_is_reported_again,
        names_are_read_back_identically_and_never_mixed_up,
        names_survive_on_existing_counters,
        a_range_holds_its_own_buckets_only,
        one_metric_can_be_read_alone,
        negative_and_zero_amounts_are_stored,
        collections_are_listed_sorted,
        a_mark_is_set_with_its_batch,
        retiring_a_writer_keeps_the_counts,
    );
    assert_eq!(laws, LAWS, "the suite does not check as many laws as it says");
    laws
}

/// A writer with one lane and a collection of its own.
struct Lane {
    collection: CollectionName,
    writer: Writer,
    seq: u64,
}

impl Lane {
    fn new(law: &str) -> Self {
        let name: String = law.replace('_', "-").chars().take(CollectionName::MAX_LEN).collect();
        let collection =
            CollectionName::new(&name).expect("a law's name without underscores is a collection name");
        // The node only has to differ from law to law.
        let node = law.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { collection, writer: Writer::new(node, 1), seq: 0 }
    }

    fn other(&self, epoch: u64) -> Self {
        Self { collection: self.collection.clone(), writer: Writer::new(self.writer.node(), epoch), seq: 0 }
    }

    fn deltas(&self, deltas: &[(&str, &str, i64)]) -> Deltas {
        let mut table = Table::new();
        for (bucket, metric, n) in deltas {
            table
                .fold(self.collection.as_str(), metric, self::bucket(bucket), *n)
                .expect("the law counts what may be counted");
        }
        table.drain()
    }

    fn id(&mut self) -> BatchId {
        self.seq += 1;
        BatchId { writer: self.writer.clone(), lane: 0, seq: self.seq }
    }

    fn batch(&mut self, deltas: &[(&str, &str, i64)]) -> Arc<Batch> {
        Arc::new(Batch::new(self.id(), self.deltas(deltas)))
    }

    async fn read(&self, store: &impl Store, range: BucketRange, in_flight: Option<&Batch>) -> Rows {
        let query = Query { collection: self.collection.clone(), range, select: Select::All };
        store.read(&query, in_flight).await.expect("a read succeeds")
    }

    async fn day(&self, store: &impl Store) -> Counters {
        self.read(store, BucketRange::one(bucket(DAY)), None).await.remove(&bucket(DAY)).unwrap_or_default()
    }
}

const DAY: &str = "2026-11-20";

fn bucket(id: &str) -> Bucket {
    id.parse().expect("a constant id is well formed")
}

fn counters(of: &[(&str, i64)]) -> Counters {
    of.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

async fn apply(store: &impl Store, batch: &Arc<Batch>) {
    let applied = store.apply(batch).await.expect("applying succeeds");
    assert_eq!(applied.quarantined, [], "nothing is quarantined");
}

async fn a_batch_is_added_to_what_is_stored(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "a", 1), (DAY, "b", 2)])).await;
    apply(store, &lane.batch(&[(DAY, "b", 3), (DAY, "c", 4)])).await;
    assert_eq!(lane.day(store).await, counters(&[("a", 1), ("b", 5), ("c", 4)]));
}

async fn applying_a_batch_twice_equals_applying_it_once(store: &impl Store, mut lane: Lane) {
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

async fn a_late_copy_after_a_newer_batch_changes_nothing(store: &impl Store, mut lane: Lane) {
    let first = lane.batch(&[(DAY, "a", 1), (DAY, "only-in-first", 1)]);
    let second = lane.batch(&[(DAY, "a", 10)]);
    let third = lane.batch(&[(DAY, "a", 100)]);
    for batch in [&first, &second, &third, &first, &second, &third] {
        apply(store, batch).await;
    }
    assert_eq!(lane.day(store).await, counters(&[("a", 111), ("only-in-first", 1)]));
}

async fn lanes_and_writers_are_independent(store: &impl Store, mut lane: Lane) {
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

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|context| {
        for slot in &mut running {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
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

async fn concurrent_writers_all_count(store: &impl Store, lane: Lane) {
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
    assert!(day.iter().all(|(metric, value)| metric == "shared" || *value == 5), "{day:?}");
}

async fn creating_the_same_counters_at_once_loses_nothing(store: &impl Store, lane: Lane) {
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

async fn a_read_counts_an_in_flight_batch_exactly_once(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "a", 1)])).await;
    let batch = lane.batch(&[(DAY, "a", 10), (DAY, "b", 20), ("2026-11-21", "a", 30)]);
    let range = BucketRange::new(bucket(DAY), bucket("2026-11-21")).expect("the days are in order");
    let expected = Rows::from([
        (bucket(DAY), counters(&[("a", 11), ("b", 20)])),
        (bucket("2026-11-21"), counters(&[("a", 30)])),
    ]);
    assert_eq!(lane.read(store, range, Some(&batch)).await, expected, "before it is applied");
    apply(store, &batch).await;
    assert_eq!(lane.read(store, range, Some(&batch)).await, expected, "after it is applied");
    assert_eq!(lane.read(store, range, None).await, expected, "without naming it");

    let one = MetricName::new("b").expect("`b` is a metric name");
    let unapplied = lane.batch(&[(DAY, "a", 100), (DAY, "b", 200)]);
    let query = Query { collection: lane.collection.clone(), range, select: Select::One(one) };
    let rows = store.read(&query, Some(&unapplied)).await.expect("a read succeeds");
    assert_eq!(rows, Rows::from([(bucket(DAY), counters(&[("b", 220)]))]));
}

async fn an_overflowing_counter_is_quarantined_alone(store: &impl Store, mut lane: Lane) {
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

async fn a_quarantined_delta_is_reported_again(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "big", i64::MAX)])).await;
    let batch = lane.batch(&[(DAY, "big", 1), (DAY, "a", 1)]);
    let first = store.apply(&batch).await.expect("applying succeeds");
    let again = store.apply(&batch).await.expect("applying succeeds");
    assert_eq!(first.quarantined.len(), 1);
    assert_eq!(first, again);
    assert_eq!(lane.day(store).await, counters(&[("a", 1), ("big", i64::MAX)]));
}

/// Names that other stores have stumbled over.
const NAMES: &[&str] = &[
    "a",
    "a.b",
    "a..b",
    "a.b.c",
    ".",
    "..",
    ".a",
    "a.",
    "$inc",
    "$",
    "a$",
    "$$",
    "_id",
    "%2E",
    "%",
    "%%",
    "%24",
    "%252E",
    "c",
    "w",
    "w.x",
    "c.a",
    "GET 200",
    "/path?x=1&y=2",
    "\u{1f980}",
    "ä",
    "a\u{308}",
    " ",
    "  ",
    "A",
    "'",
    "\"",
    "`",
    "\\",
    "\\u0000",
    "0",
    "-1",
    "null",
    "__proto__",
    "__overflow__",
    "%00",
    "expires_at",
];

fn names_with_longest() -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend([
        "x".repeat(512),
        ".".repeat(512),
        "%".repeat(512),
        "$".repeat(512),
        "\u{1f980}".repeat(128),
    ]);
    names
}

async fn names_are_read_back_identically_and_never_mixed_up(store: &impl Store, mut lane: Lane) {
    let names = names_with_longest();
    let expected: Counters = names.iter().cloned().zip(1..).collect();
    let deltas: Vec<_> = expected.iter().map(|(name, n)| (DAY, name.as_str(), *n)).collect();
    apply(store, &lane.batch(&deltas)).await;
    assert_eq!(lane.day(store).await, expected);
    for (name, n) in &expected {
        let metric = MetricName::new(name).expect("the listed names are valid");
        let range = BucketRange::one(bucket(DAY));
        let query = Query { collection: lane.collection.clone(), range, select: Select::One(metric) };
        let rows = store.read(&query, None).await.expect("a read succeeds");
        assert_eq!(rows, Rows::from([(bucket(DAY), counters(&[(name, *n)]))]));
    }
}

async fn names_survive_on_existing_counters(store: &impl Store, mut lane: Lane) {
    let names = names_with_longest();
    // One at a time, so that every later name meets a bucket that holds all earlier ones.
    for name in &names {
        apply(store, &lane.batch(&[(DAY, name, 1)])).await;
    }
    let all: Vec<_> = names.iter().map(|name| (DAY, name.as_str(), 1)).collect();
    apply(store, &lane.batch(&all)).await;
    assert_eq!(lane.day(store).await, names.iter().map(|name| (name.clone(), 2)).collect::<Counters>());
}

async fn a_range_holds_its_own_buckets_only(store: &impl Store, mut lane: Lane) {
    let ids = [
        "2026-11-19",
        "2026-11-20",
        "2026-11-20T14",
        "2026-11-20T14:05",
        "2026-11-20T14:05:09",
        "2026-11-21",
        "2026-11",
        "2026-12",
        "2026-W47",
        "2026-W48",
        "2026",
        "2027",
        "all",
    ];
    let deltas: Vec<_> = ids.iter().map(|id| (*id, "m", 1)).collect();
    apply(store, &lane.batch(&deltas)).await;
    for id in ids {
        let rows = lane.read(store, BucketRange::one(bucket(id)), None).await;
        assert_eq!(rows, Rows::from([(bucket(id), counters(&[("m", 1)]))]), "bucket {id}");
    }
    let range = BucketRange::new(bucket("2026-11-20"), bucket("2026-12-31")).expect("the days are in order");
    let days: Vec<_> = lane.read(store, range, None).await.into_keys().collect();
    assert_eq!(days, [bucket("2026-11-20"), bucket("2026-11-21")]);
    let weeks: Vec<_> = lane.read(store, BucketRange::every(Period::Week), None).await.into_keys().collect();
    assert_eq!(weeks, [bucket("2026-W47"), bucket("2026-W48")]);
    assert_eq!(lane.read(store, BucketRange::one(bucket("2025-01-01")), None).await, Rows::new());
}

async fn one_metric_can_be_read_alone(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "a", 1), (DAY, "a.b", 2), ("2026-11-21", "a.b", 3)])).await;
    let metric = MetricName::new("a.b").expect("`a.b` is a metric name");
    let range = BucketRange::every(Period::Day);
    let query = Query { collection: lane.collection.clone(), range, select: Select::One(metric) };
    let rows = store.read(&query, None).await.expect("a read succeeds");
    assert_eq!(
        rows,
        Rows::from([(bucket(DAY), counters(&[("a.b", 2)])), (bucket("2026-11-21"), counters(&[("a.b", 3)]))])
    );
}

async fn negative_and_zero_amounts_are_stored(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "down", -5), (DAY, "zero", 0)])).await;
    apply(store, &lane.batch(&[(DAY, "down", 2)])).await;
    assert_eq!(lane.day(store).await, counters(&[("down", -3), ("zero", 0)]));
}

async fn collections_are_listed_sorted(store: &impl Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "m", 1)])).await;
    for suffix in ["-b", "-a", ".c", "-A"] {
        let collection = CollectionName::new(&format!("{}{suffix}", lane.collection))
            .expect("a longer name is still valid");
        let other = Lane { collection, writer: lane.writer.clone(), seq: 0 };
        let batch = Arc::new(Batch::new(lane.id(), other.deltas(&[(DAY, "m", 1), ("2026-11-21", "m", 1)])));
        apply(store, &batch).await;
    }
    let mut names = store.collections().await.expect("listing succeeds");
    names.retain(|name| name.as_str().starts_with(lane.collection.as_str()));
    let expected: Vec<_> =
        ["", "-A", "-a", "-b", ".c"].iter().map(|s| format!("{}{s}", lane.collection)).collect();
    assert_eq!(names.iter().map(CollectionName::as_str).collect::<Vec<_>>(), expected);
}

async fn a_mark_is_set_with_its_batch(store: &impl Store, mut lane: Lane) {
    let key = format!("mark of {}", lane.collection);
    match store.mark(&key).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        before => assert_eq!(before.expect("reading a mark succeeds"), None),
    }
    for value in ["1", "2"] {
        let mark = Mark { key: key.clone(), value: value.to_owned() };
        let batch = Arc::new(Batch::with_mark(lane.id(), lane.deltas(&[(DAY, "m", 1)]), mark));
        apply(store, &batch).await;
        apply(store, &batch).await;
        assert_eq!(store.mark(&key).await.expect("reading a mark succeeds").as_deref(), Some(value));
    }
    assert_eq!(lane.day(store).await, counters(&[("m", 2)]));
}

async fn retiring_a_writer_keeps_the_counts(store: &impl Store, mut lane: Lane) {
    let mut other = lane.other(2);
    apply(store, &lane.batch(&[(DAY, "m", 1)])).await;
    let kept = other.batch(&[(DAY, "m", 10)]);
    apply(store, &kept).await;
    store.forget(&lane.writer).await.expect("retiring succeeds");
    assert_eq!(lane.day(store).await, counters(&[("m", 11)]));
    apply(store, &kept).await;
    assert_eq!(lane.day(store).await, counters(&[("m", 11)]), "another writer's batch was forgotten");
}
