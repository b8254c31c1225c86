//! Laws of zeros that are removed. A store may keep one, and never removes anything else.

use countem_core::{Bucket, MetricName};

use super::{DAY, Lane, apply, apply::join_all, bucket, counters};
use crate::{Counters, Store};

async fn remove(store: &dyn Store, lane: &Lane, of: &[(&str, &str)]) -> usize {
    let named: Vec<(Bucket, MetricName)> = of
        .iter()
        .map(|(id, metric)| (bucket(id), MetricName::new(metric).expect("a constant metric is valid")))
        .collect();
    store.remove_zeros(&lane.collection, &named).await.expect("removing succeeds")
}

fn without_zeros(counters: &Counters) -> Counters {
    counters.readable().filter(|(_, value)| *value != 0).collect()
}

pub(super) async fn only_zeros_are_removed(store: &dyn Store, mut lane: Lane) {
    let hostile = ["a", "a.b", "$c", "100%", "GET 200", "s{k=\"v\"}", "\u{1f980}"];
    let mut first: Vec<_> = hostile.iter().map(|metric| (DAY, *metric, 5)).collect();
    first.extend([(DAY, "kept", 1), (DAY, "other zero", 0), ("2026-11-21", "a", 0), ("2026-11", "a", 5)]);
    apply(store, &lane.batch(&first)).await;
    let second: Vec<_> = hostile.iter().map(|metric| (DAY, *metric, -5)).collect();
    apply(store, &lane.batch(&second)).await;
    let named: Vec<_> =
        hostile.iter().chain(&["kept", "never counted"]).map(|metric| (DAY, *metric)).collect();
    let removed = remove(store, &lane, &named).await;
    assert!(removed <= hostile.len(), "{removed}");
    let left = lane.day(store).await;
    assert_eq!(left.len(), hostile.len() + 2 - removed, "{left:?}");
    assert_eq!(without_zeros(&left), counters(&[("kept", 1)]));
    assert_eq!(left.get("other zero"), Ok(Some(0)), "it was not named");
    assert_eq!(remove(store, &lane, &named).await, 0, "removing again finds nothing");
    let others = lane.read(store, countem_core::BucketRange::one(bucket("2026-11")), None).await;
    assert_eq!(others.into_values().next(), Some(counters(&[("a", 5)])));
    assert_eq!(remove(store, &lane, &[]).await, 0);
}

pub(super) async fn a_removed_zero_counts_again(store: &dyn Store, mut lane: Lane) {
    for n in [3, 4] {
        apply(store, &lane.batch(&[(DAY, "m", n)])).await;
        let back = lane.batch(&[(DAY, "m", -n)]);
        apply(store, &back).await;
        remove(store, &lane, &[(DAY, "m")]).await;
        apply(store, &back).await;
        assert_eq!(without_zeros(&lane.day(store).await), counters(&[]), "a copy is no second batch");
    }
    apply(store, &lane.batch(&[(DAY, "m", 7)])).await;
    assert_eq!(remove(store, &lane, &[(DAY, "m")]).await, 0);
    assert_eq!(lane.day(store).await, counters(&[("m", 7)]));
}

pub(super) async fn removing_zeros_beside_a_writer_loses_nothing(store: &dyn Store, lane: Lane) {
    const ROUNDS: i64 = 60;
    join_all((0..3).map(|task| {
        let (mut writer, lane) = (lane.other(task + 10), &lane);
        async move {
            // The value passes zero all the time.
            let n = if task == 0 { 1 } else { -1 };
            for _ in 0..ROUNDS {
                if task == 2 {
                    remove(store, lane, &[(DAY, "m")]).await;
                } else {
                    apply(store, &writer.batch(&[(DAY, "m", n)])).await;
                    apply(store, &writer.batch(&[(DAY, "m", 1 - n)])).await;
                }
            }
        }
    }))
    .await;
    assert_eq!(lane.day(store).await, counters(&[("m", 2 * ROUNDS)]));
}
