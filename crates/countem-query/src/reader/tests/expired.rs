//! Buckets that may have been removed are refused.

use countem_store::{Rows, async_trait};

use super::*;

/// A store at a fixed time.
#[derive(Debug)]
struct At(StoreSource, Timestamp);

#[async_trait]
impl Source for At {
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError> {
        self.0.rows(query).await
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.0.collections().await
    }
    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        self.0.schedules().await
    }
    fn now(&self) -> Timestamp {
        self.1
    }
}

/// Returns a reader at `now` of a store that counts by `schedules`.
async fn reader_at(now: &str, schedules: &str, counted: &[(&str, &str, i64)]) -> Reader {
    let mut table = Table::new();
    for (id, metric, n) in counted {
        table.fold("web", metric, bucket(id), *n).unwrap();
    }
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    let unrecorded = Arc::new(schedules.parse().unwrap());
    Reader::new(Arc::new(At(StoreSource { store, unrecorded }, now.parse().unwrap())))
}

#[tokio::test]
async fn expired_buckets_and_their_sums_are_refused() {
    let counted = [
        ("2026-11-18T10:04", "m", 1),
        ("2026-11-18T10:05", "m", 2),
        ("2026-11-20T09:00", "m", 4),
        ("2026-11-10", "m", 100),
        ("2026-11-11", "m", 200),
        ("2026-11-20", "m", 400),
    ];
    let schedules = "beginning UTC minute:172800s,day:864000s";
    let reader = reader_at("2026-11-20T10:05:30Z", schedules, &counted).await;
    let (web, metric) = (web(), MetricName::new("m").unwrap());
    for (id, value) in [
        ("2026-11-18T10:05", Some(2)),
        ("2026-11-20T09", Some(4)),
        ("2026-11-18T11", None),
        ("2026-11-10", Some(100)),
        ("2026-W47", Some(400)),
    ] {
        assert_eq!(reader.get(&web, &metric, bucket(id)).await.unwrap(), value, "{id}");
    }
    for (id, words) in [
        (
            "2026-11-18T10:04",
            "`2026-11-18T10:04` of `web` has expired: the first of its minute buckets that is kept is `2026-11-18T10:05`",
        ),
        ("2026-11-18T10", "kept is `2026-11-18T10:05`; store hour buckets to keep their sums"),
        ("2026-11-09", "the first of its day buckets that is kept is `2026-11-10`"),
        ("2026-11", "kept is `2026-11-10`; store month buckets to keep their sums"),
        ("all", "kept is `2026-11-10`; store all buckets to keep their sums"),
    ] {
        let errors = [
            reader.get(&web, &metric, bucket(id)).await.unwrap_err(),
            reader.get_counters(&web, bucket(id)).await.unwrap_err(),
            reader.get_all_counters(bucket(id)).await.unwrap_err(),
            reader.series(&web, &metric, BucketRange::one(bucket(id))).await.unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.ends_with(words), "{id}: {error}");
        }
    }
    let days = |first, last| BucketRange::new(bucket(first), bucket(last)).unwrap();
    let series = reader.series(&web, &metric, days("2026-11-10", "2026-11-20")).await.unwrap();
    assert_eq!(series.values().sum::<i64>(), 700);
    let error = reader.series(&web, &metric, days("2026-11-09", "2026-11-20")).await.unwrap_err();
    assert!(matches!(error, ReadError::Expired { .. }), "{error}");
}

#[tokio::test]
async fn extent_begins_with_what_is_kept() {
    let counted = [("2026-11-09", "m", 1), ("2026-11-12", "m", 2), ("2026-11-20", "m", 4)];
    let reader = reader_at("2026-11-20T10:05:30Z", "beginning UTC day:864000s", &counted).await;
    assert_eq!(reader.extent(&web()).await.unwrap(), Some((bucket("2026-11-12"), bucket("2026-11-20"))));
    assert_eq!(reader.nearest(&web(), bucket("2026-11-08")).await.unwrap(), Some(bucket("2026-11-12")));
}

#[tokio::test]
async fn extent_counts_what_coarser_buckets_keep() {
    let counted = [
        ("2026-09-10", "m", 1),
        ("2026-09", "m", 1),
        ("2026-11-18", "m", 2),
        ("2026-11-20", "m", 4),
        ("2026-11", "m", 6),
    ];
    let reader = reader_at("2026-11-20T10:05:30Z", "beginning UTC day:864000s,month", &counted).await;
    assert_eq!(reader.extent(&web()).await.unwrap(), Some((bucket("2026-09"), bucket("2026-11-20"))));
    assert_eq!(reader.nearest(&web(), bucket("2026-10")).await.unwrap(), Some(bucket("2026-09")));
    assert_eq!(reader.nearest(&web(), bucket("2026-11-19")).await.unwrap(), Some(bucket("2026-11-18")));
}
