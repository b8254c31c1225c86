//! Laws of expired buckets. Laws that share a store share its schedules: where others have recorded some, these have nothing to check.

use countem_core::{BucketRange, jiff::Timestamp};

use super::{Lane, apply, bucket, counters};
use crate::{Store, remove_expired};

const OLD: &str = "2020-02-20T10:05";

/// Records that minutes are kept for an hour, and returns true if the store has that.
async fn keeps_minutes_for_an_hour(store: &dyn Store) -> bool {
    let schedules = "beginning UTC minute:3600s,day".parse().expect("the schedules are well formed");
    let recorded = store.record_schedules(&schedules).await.expect("recording succeeds");
    recorded == schedules && store.schedules().await.expect("the schedules are read") == Some(schedules)
}

async fn remove(store: &dyn Store) {
    remove_expired(store, Timestamp::now()).await.expect("removing succeeds");
    assert_eq!(
        store.remove_expired(Timestamp::now(), 1000).await.expect("removing succeeds"),
        0,
        "some are left"
    );
}

pub(super) async fn removal_keeps_what_is_kept(store: &dyn Store, mut lane: Lane) {
    if !keeps_minutes_for_an_hour(store).await {
        return;
    }
    let minute = Timestamp::now().to_string()[..16].to_owned();
    let kept = [(minute.as_str(), "m", 1), ("2020-02-20", "m", 2), ("2020-02", "m", 4), ("all", "m", 8)];
    apply(store, &lane.batch(&kept)).await;
    let old: Vec<_> = (0..2500).map(|metric| format!("{metric}")).collect();
    let old: Vec<_> = old.iter().map(|metric| (OLD, metric.as_str(), 1)).collect();
    store.apply(&lane.batch(&old)).await.expect("applying succeeds");
    remove(store).await;
    for (id, metric, n) in kept {
        let range = BucketRange::one(bucket(id));
        let read = lane.read(store, range, None).await.remove(&bucket(id));
        assert_eq!(read, Some(counters(&[(metric, n)])), "{id}");
    }
    assert_eq!(lane.read(store, BucketRange::one(bucket(OLD)), None).await.len(), 0, "it has expired");
}

pub(super) async fn removed_buckets_take_no_count_again(store: &dyn Store, mut lane: Lane) {
    if !keeps_minutes_for_an_hour(store).await {
        return;
    }
    store.apply(&lane.batch(&[(OLD, "m", 1)])).await.expect("applying succeeds");
    remove(store).await;
    let late = lane.batch(&[(OLD, "m", 10), ("2020-02-20", "m", 100)]);
    for _ in 0..2 {
        let quarantined = store.apply(&late).await.expect("applying succeeds").quarantined;
        assert_eq!(quarantined.len(), 1, "{quarantined:?}");
        assert_eq!((quarantined[0].bucket, quarantined[0].n), (bucket(OLD), 10));
        assert!(quarantined[0].reason.contains("expired"), "{}", quarantined[0].reason);
    }
    remove(store).await;
    let rows = lane.read(store, BucketRange::one(bucket("2020-02-20")), None).await;
    assert_eq!(rows.into_values().next(), Some(counters(&[("m", 100)])));
    assert_eq!(lane.read(store, BucketRange::one(bucket(OLD)), None).await.len(), 0);
}
