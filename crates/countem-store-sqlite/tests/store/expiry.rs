//! Expired rows are removed beside running writers.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use countem_core::{Batch, BatchId, Table, Writer, jiff::Timestamp};
use countem_store::{Store as _, remove_expired};

use crate::support::{COLLECTION, block_on, counters, day, expected, open};

#[test]
fn removal_beside_writers_loses_no_kept_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(store.record_schedules(&"beginning UTC minute:3600s,day".parse().unwrap())).unwrap();
    let is_done = AtomicBool::new(false);
    let removed = thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|node| {
                let store = open(folder.path());
                scope.spawn(move || {
                    for seq in 1..=40 {
                        let mut table = Table::new();
                        for metric in 0..100 {
                            let minute = format!("2020-02-20T{:02}:{:02}", seq % 24, metric % 60);
                            table.fold(COLLECTION, &format!("{metric}"), minute.parse().unwrap(), 1).unwrap();
                        }
                        table.fold(COLLECTION, "m", day(), 1).unwrap();
                        let id = BatchId { writer: Writer::new(node, 1), lane: 0, seq };
                        block_on(store.apply(&std::sync::Arc::new(Batch::new(id, table.drain())))).unwrap();
                    }
                })
            })
            .collect();
        let remover = scope.spawn(|| {
            let mut removed = 0;
            loop {
                let is_last = is_done.load(Ordering::Acquire);
                removed += block_on(remove_expired(&store, Timestamp::now())).unwrap();
                if is_last {
                    return removed;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        remover.join().unwrap()
    });
    assert!(removed > 0, "nothing had expired");
    assert_eq!(block_on(counters(&store)), expected(&[("m", 120)]));
    let left = block_on(store.extent(
        &countem_core::CollectionName::new(COLLECTION).unwrap(),
        countem_core::BucketRange::every(countem_core::Period::Minute),
    ));
    assert_eq!(left.unwrap(), None);
}
