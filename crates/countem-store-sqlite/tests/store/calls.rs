//! Calls on one store: at any time, from any program, and several at once.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use countem_core::Writer;
use countem_store::Store as _;

use crate::support::{batch, block_on, counters, expected, file, file_names, open};

#[tokio::test]
async fn reopened_file_knows_counts_and_batches() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::new(1, 1);
    let first = batch(&writer, 1, &[("a", 1), ("b", 2)]);
    open(folder.path()).apply(&first).await.unwrap();

    let store = open(folder.path());
    store.apply(&first).await.unwrap();
    store.apply(&batch(&writer, 2, &[("a", 10)])).await.unwrap();
    drop(store);
    assert_eq!(counters(&open(folder.path())).await, expected(&[("a", 11), ("b", 2)]));
}

#[test]
fn no_async_runtime_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let writer = Writer::new(1, 1);
    block_on(async {
        store.apply(&batch(&writer, 1, &[("a", 1)])).await.unwrap();
        assert_eq!(counters(&store).await, expected(&[("a", 1)]));
        store.forget(&writer).await.unwrap();
        store.check().await.unwrap();
    });
    assert_eq!(store.location(), format!("sqlite://{}", file(folder.path()).display()));
}

#[test]
fn outstanding_calls_finish_before_drop_returns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let batches: Vec<_> = (1..=10).map(|epoch| batch(&Writer::new(1, epoch), 1, &[("a", 1)])).collect();
    for batch in &batches {
        let call = store.apply(batch);
        // The first poll hands the batch over.
        assert!(pin!(call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    drop(store);
    assert_eq!(block_on(counters(&open(folder.path()))), expected(&[("a", 10)]));
    assert_eq!(file_names(folder.path()), ["countem.db"], "closing tidies up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_see_whole_batches_while_batches_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()));
    let metrics: Vec<String> = (0..100).map(|i| format!("m{i}")).collect();
    let ones: Vec<_> = metrics.iter().map(|metric| (metric, 1)).collect();
    let writer = Writer::new(1, 1);
    store.apply(&batch(&writer, 1, &ones)).await.unwrap();

    let readers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < 40 {
                    let counters = counters(&store).await;
                    assert_eq!(counters.len(), 100);
                    let now = counters["m0"];
                    assert!(counters.values().all(|value| value == Ok(now)), "{counters:?}");
                    assert!(now >= seen, "{now} after {seen}");
                    seen = now;
                }
            })
        })
        .collect();
    for seq in 2..=40 {
        store.apply(&batch(&writer, seq, &ones)).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
