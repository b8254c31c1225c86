//! Laws of reading.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use countem_core::{Batch, BucketRange, CollectionName, MetricName, Period};

use super::{DAY, Lane, apply, bucket, counters, names::all_names};
use crate::{Counters, RowQuery, Rows, Select, Store};

pub(super) async fn a_read_counts_an_in_flight_batch_exactly_once(store: &dyn Store, mut lane: Lane) {
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
    let query = RowQuery { collection: lane.collection.clone(), range, select: Select::One(one) };
    let rows = store.read(&query, Some(&unapplied)).await.expect("a read succeeds");
    assert_eq!(rows, Rows::from([(bucket(DAY), counters(&[("b", 220)]))]));
}

pub(super) async fn a_range_holds_its_own_buckets_only(store: &dyn Store, mut lane: Lane) {
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

pub(super) async fn an_extent_ends_at_buckets_with_counters(store: &dyn Store, mut lane: Lane) {
    let nothing = store.extent(&lane.collection, BucketRange::every(Period::Day)).await;
    assert_eq!(nothing.expect("a read succeeds"), None);
    let ids = [
        "2026-11-19",
        "2026-11-20",
        "2026-11-30",
        "2026-11-19T23",
        "2026-11-30T01",
        "2026-11",
        "2026",
        "all",
    ];
    let deltas: Vec<_> = ids.iter().map(|id| (*id, "m", 1)).collect();
    apply(store, &lane.batch(&deltas)).await;
    let ends = |first: &str, last: &str| Some((first.to_owned(), last.to_owned()));
    let extent = async |first: &str, last: &str| {
        let range = BucketRange::new(bucket(first), bucket(last)).expect("the buckets are in order");
        let extent = store.extent(&lane.collection, range).await.expect("a read succeeds");
        extent.map(|extent| (extent.first().to_string(), extent.last().to_string()))
    };
    for (first, last, expected) in [
        ("0001-01-01", "9999-12-31", ends("2026-11-19", "2026-11-30")),
        ("2026-11-20", "2026-11-29", ends("2026-11-20", "2026-11-20")),
        ("2026-11-21", "2026-11-29", None),
        ("2026-12-01", "2026-12-01", None),
        ("2026-11-01T00", "2026-12-31T23", ends("2026-11-19T23", "2026-11-30T01")),
        ("2025-01", "2027-01", ends("2026-11", "2026-11")),
        ("2026-W01", "2026-W53", None),
        ("all", "all", ends("all", "all")),
    ] {
        assert_eq!(extent(first, last).await, expected, "{first} to {last}");
    }
}

pub(super) async fn one_metric_can_be_read_alone(store: &dyn Store, mut lane: Lane) {
    apply(store, &lane.batch(&[(DAY, "a", 1), (DAY, "a.b", 2), ("2026-11-21", "a.b", 3)])).await;
    let metric = MetricName::new("a.b").expect("`a.b` is a metric name");
    let range = BucketRange::every(Period::Day);
    let query = RowQuery { collection: lane.collection.clone(), range, select: Select::One(metric) };
    let rows = store.read(&query, None).await.expect("a read succeeds");
    assert_eq!(
        rows,
        Rows::from([(bucket(DAY), counters(&[("a.b", 2)])), (bucket("2026-11-21"), counters(&[("a.b", 3)]))])
    );
}

pub(super) async fn collections_are_listed_sorted(store: &dyn Store, mut lane: Lane) {
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

/// Reads page by page, and puts the pages of the buckets together.
async fn read_pages(
    store: &dyn Store,
    lane: &Lane,
    range: BucketRange,
    limit: usize,
    in_flight: Option<&Batch>,
) -> Rows {
    read_pages_of(store, lane, "", range, limit, in_flight).await
}

async fn read_pages_of(
    store: &dyn Store,
    lane: &Lane,
    prefix: &str,
    range: BucketRange,
    limit: usize,
    in_flight: Option<&Batch>,
) -> Rows {
    let limit = NonZeroUsize::new(limit).expect("a page holds at least one metric");
    let (mut whole, mut after) = (Rows::new(), None);
    loop {
        let select = Select::Page { prefix: prefix.to_owned(), after: after.clone(), limit };
        let query = RowQuery { collection: lane.collection.clone(), range, select };
        let page = store.read(&query, in_flight).await.expect("a read succeeds");
        assert!(page.values().all(|counters| counters.len() <= limit.get()), "more than {limit}: {page:?}");
        let metrics: BTreeSet<&str> = page.values().flat_map(Counters::metrics).collect();
        let Some(last) = metrics.iter().copied().take(limit.get()).next_back() else { return whole };
        for (bucket, counters) in &page {
            let read = whole.entry(*bucket).or_default();
            for (metric, value) in counters.iter().take_while(|(metric, _)| *metric <= last) {
                assert!(read.metrics().next_back().is_none_or(|before| before < metric), "`{metric}` again");
                read.merge(metric, value.map_err(Clone::clone));
            }
        }
        after = Some(last.to_owned());
    }
}

/// The beginnings of every name, and texts that sort before, between and behind names.
fn prefixes(names: &[String]) -> BTreeSet<String> {
    let beginnings = names.iter().flat_map(|name| {
        let ends = name.char_indices().map(|(at, char)| at + char.len_utf8());
        ends.take(3).map(|end| name[..end].to_owned()).collect::<Vec<_>>()
    });
    let others = ["", "\u{d7ff}", "\u{10ffff}", "a\u{10ffff}", "zzz"].map(str::to_owned);
    beginnings.chain(others).collect()
}

pub(super) async fn pages_of_a_prefix_return_its_counters(store: &dyn Store, mut lane: Lane) {
    let mut names = all_names();
    names.extend(
        ["a", "ab", "a\u{10ffff}", "a\u{10ffff}\u{10ffff}b", "\u{10ffff}", "\u{e000}x"].map(str::to_owned),
    );
    names.sort_unstable();
    names.dedup();
    let mut deltas: Vec<_> = names.iter().map(|name| (DAY, name.as_str(), 1)).collect();
    deltas.extend(names.iter().step_by(3).map(|name| ("2026-11-21", name.as_str(), 2)));
    apply(store, &lane.batch(&deltas)).await;
    let in_flight: Vec<_> = names.iter().step_by(7).map(|name| (DAY, name.as_str(), 5)).collect();
    let in_flight = lane.batch(&in_flight);
    for range in [BucketRange::one(bucket(DAY)), two_days()] {
        for batch in [None, Some(&*in_flight)] {
            let whole = lane.read(store, range, batch).await;
            for prefix in prefixes(&names) {
                let mut expected = Rows::new();
                for (bucket, counters) in &whole {
                    for (metric, value) in counters.iter().filter(|(metric, _)| metric.starts_with(&prefix)) {
                        expected.entry(*bucket).or_default().merge(metric, value.map_err(Clone::clone));
                    }
                }
                for limit in [1, 20] {
                    let read = read_pages_of(store, &lane, &prefix, range, limit, batch).await;
                    assert_eq!(read, expected, "pages of {limit} of `{prefix}`");
                }
            }
        }
    }
}

const PAGE_SIZES: [usize; 5] = [1, 2, 3, 20, 1000];

fn two_days() -> BucketRange {
    BucketRange::new(bucket(DAY), bucket("2026-11-21")).expect("the days are in order")
}

pub(super) async fn pages_return_every_counter_once_in_order(store: &dyn Store, mut lane: Lane) {
    let names = all_names();
    let mut deltas: Vec<_> = names.iter().map(|name| (DAY, name.as_str(), 1)).collect();
    deltas.extend(names.iter().step_by(3).map(|name| ("2026-11-21", name.as_str(), 2)));
    apply(store, &lane.batch(&deltas)).await;
    for range in [BucketRange::one(bucket(DAY)), two_days(), BucketRange::every(Period::Day)] {
        let expected = lane.read(store, range, None).await;
        for limit in PAGE_SIZES {
            assert_eq!(read_pages(store, &lane, range, limit, None).await, expected, "pages of {limit}");
        }
    }
}

pub(super) async fn a_page_counts_an_in_flight_batch_exactly_once(store: &dyn Store, mut lane: Lane) {
    let names = all_names();
    let stored: Vec<_> = names.iter().step_by(2).map(|name| (DAY, name.as_str(), 1)).collect();
    apply(store, &lane.batch(&stored)).await;
    let mut deltas: Vec<_> = names.iter().step_by(3).map(|name| (DAY, name.as_str(), 10)).collect();
    deltas.extend(names.iter().step_by(5).map(|name| ("2026-11-21", name.as_str(), 20)));
    let batch = lane.batch(&deltas);
    let mut expected = Rows::new();
    for (day, metric, n) in stored.iter().chain(&deltas) {
        expected.entry(bucket(day)).or_default().add(metric, *n);
    }
    for state in ["before it is applied", "after it is applied"] {
        for limit in PAGE_SIZES {
            let read = read_pages(store, &lane, two_days(), limit, Some(&batch)).await;
            assert_eq!(read, expected, "{state}, pages of {limit}");
        }
        apply(store, &batch).await;
    }
}
