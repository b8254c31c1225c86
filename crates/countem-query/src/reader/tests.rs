use countem_core::{Batch, BatchId, Period, Table, Writer};
use countem_store::MemoryStore;
use jiff::tz::TimeZone;

use super::*;

fn bucket(id: &str) -> Bucket {
    id.parse().unwrap()
}

fn web() -> CollectionName {
    CollectionName::new("web").unwrap()
}

/// A reader of a store that holds `counted`, by bucket and metric.
async fn reader(zone: &str, periods: &[Period], counted: &[(&str, &str, i64)]) -> Reader {
    let mut table = Table::new();
    for (id, metric, n) in counted {
        table.fold("web", metric, bucket(id), *n).unwrap();
    }
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
    let store = MemoryStore::new();
    store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    let schedules = Schedules::new(&TimeZone::get(zone).unwrap(), periods, &BTreeMap::new()).unwrap();
    Reader::of_store(Arc::new(store), Arc::new(schedules))
}

async fn pages(reader: &Reader, bucket: Bucket, limit: usize) -> Vec<Counters> {
    let limit = NonZeroUsize::new(limit).unwrap();
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = reader.get_page(&web(), bucket, after.as_deref(), limit).await.unwrap();
        after = page.metrics().next_back().map(str::to_owned);
        let is_last = page.len() < limit.get();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_add_up_to_the_sum() {
    let counted = [
        ("2026-11-19", "a", 1),
        ("2026-11-19", "c", 2),
        ("2026-11-19", "e", 3),
        ("2026-11-20", "b", 10),
        ("2026-11-20", "c", 20),
        ("2026-11-20", "d", 30),
        ("2026-11-21", "a", 100),
        ("2026-11-21", "e", 300),
    ];
    let reader = reader("UTC", &[Period::Day], &counted).await;
    let month = bucket("2026-11");
    let whole = reader.get_counters(&web(), month).await.unwrap();
    assert_eq!(whole, Counters::from([("a", 101), ("b", 10), ("c", 22), ("d", 30), ("e", 303)]));
    for limit in 1..7 {
        let pages = pages(&reader, month, limit).await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "{pages:?}");
        let read: Vec<_> = pages.into_iter().flatten().collect();
        assert_eq!(read, whole.clone().into_iter().collect::<Vec<_>>(), "pages of {limit}");
    }
}

#[tokio::test]
async fn sum_beyond_64_bits_spoils_no_other() {
    let counted = [
        ("2026-11-19", "a", 3),
        ("2026-11-19", "m", i64::MAX),
        ("2026-11-20", "m", 1),
        ("2026-12-01", "m", i64::MAX),
        ("2026-12-02", "m", 1),
        ("2026-12-03", "m", -1),
    ];
    let reader = reader("UTC", &[Period::Day], &counted).await;
    let (november, metric) = (bucket("2026-11"), MetricName::new("m").unwrap());
    let read = reader.get_counters(&web(), november).await.unwrap();
    assert_eq!(read.readable().collect::<Vec<_>>(), [("a", 3)]);
    assert_eq!(read.unreadable().map(|(metric, _)| metric).collect::<Vec<_>>(), ["m"]);
    let refused = reader.get(&web(), &metric, november).await;
    assert!(matches!(refused, Err(ReadError::Unreadable { .. })), "{refused:?}");
    let months = |last| BucketRange::new(november, bucket(last)).unwrap();
    let refused = reader.series(&web(), &metric, months("2026-12")).await;
    assert!(
        matches!(refused, Err(ReadError::Unreadable { bucket, .. }) if bucket == november),
        "{refused:?}"
    );
    let fits = reader.get_counters(&web(), bucket("2026-12")).await.unwrap();
    assert_eq!(fits["m"], i64::MAX);
    let limit = NonZeroUsize::new(1).unwrap();
    let page = reader.get_page(&web(), november, Some("a"), limit).await.unwrap();
    assert_eq!(page.unreadable().count(), 1, "it is in its place: {page:?}");
}

/// Clocks in Pyongyang were half an hour off the hours of UTC from August 2015 to May 2018.
#[tokio::test]
async fn series_is_refused_where_a_bucket_is() {
    let metric = MetricName::new("m").unwrap();
    let counted = [("2015-08-02T03", "m", 1), ("2016-01-01T14", "m", 2), ("2018-06-02T03", "m", 4)];
    let reader = reader("Asia/Pyongyang", &[Period::Hour], &counted).await;
    let series = async |first, last| {
        let range = BucketRange::new(bucket(first), bucket(last)).unwrap();
        reader.series(&web(), &metric, range).await
    };
    let before = series("2015-08-01", "2015-08-13").await.unwrap();
    assert_eq!(before, BTreeMap::from([(bucket("2015-08-02"), 1)]));
    let after = series("2018-06-01", "2018-06-30").await.unwrap();
    assert_eq!(after, BTreeMap::from([(bucket("2018-06-02"), 4)]));
    for (first, last) in [("2015-08-01", "2018-06-01"), ("2016-01-01", "2016-01-01"), ("2015-07", "2018-06")]
    {
        let refused = series(first, last).await;
        assert!(matches!(refused, Err(ReadError::NotStored { .. })), "{first}: {refused:?}");
    }
    // Some of its months begin within an hour.
    assert_eq!(series("all", "all").await.unwrap(), BTreeMap::from([(Bucket::ALL, 7)]));
}

#[tokio::test]
async fn series_of_stored_hours_needs_no_whole_days() {
    let metric = MetricName::new("m").unwrap();
    // From 23:30 to 00:30 in Kolkata.
    let reader = reader("Asia/Kolkata", &[Period::Hour], &[("2026-11-20T18", "m", 3)]).await;
    let hours = BucketRange::new(bucket("2026-11-20T00"), bucket("2026-11-20T23")).unwrap();
    let series = reader.series(&web(), &metric, hours).await.unwrap();
    assert_eq!(series, BTreeMap::from([(bucket("2026-11-20T18"), 3)]));
}

#[tokio::test]
async fn nearest_bucket_is_of_the_asked_period() {
    let counted = [("2026-11-10T22", "m", 1), ("2026-11-20T18", "m", 2), ("2026-11-20T19", "m", 3)];
    // The evening of the 20th in UTC is the night of the 21st.
    let reader = reader("Asia/Tokyo", &[Period::Hour], &counted).await;
    assert_eq!(
        reader.extent(&web()).await.unwrap(),
        Some((bucket("2026-11-10T22"), bucket("2026-11-20T19")))
    );
    let other = CollectionName::new("other").unwrap();
    assert_eq!(reader.extent(&other).await.unwrap(), None);
    for (asked, nearest) in [
        ("2026-11-12", "2026-11-11"),
        ("2026-11-20", "2026-11-21"),
        ("2026-11-25", "2026-11-21"),
        ("2026-11-20T17", "2026-11-20T18"),
        ("2026-11-20T20", "2026-11-20T19"),
        ("2027-01", "2026-11"),
        ("2026-W48", "2026-W47"),
        ("0001-01-01", "2026-11-11"),
        ("9999-12-31", "2026-11-21"),
    ] {
        let near = reader.nearest(&web(), bucket(asked)).await.unwrap();
        assert_eq!(near, Some(bucket(nearest)), "next to {asked}");
    }
    assert_eq!(reader.nearest(&other, bucket("2026-11-12")).await.unwrap(), None);
    assert_eq!(reader.nearest(&web(), Bucket::ALL).await.unwrap(), None);
}

mod changes;
mod expired;
mod zones;
