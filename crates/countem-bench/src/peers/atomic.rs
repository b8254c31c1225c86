//! The floor: one atomic number.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{counting::Counting, workload::Walk};

/// One `AtomicU64` that all threads add to. It tells no names apart and does not look at them.
#[derive(Debug, Default)]
pub struct FetchAdd {
    count: AtomicU64,
}

impl Counting for FetchAdd {
    fn label(&self) -> &'static str {
        "bare shared `AtomicU64::fetch_add`"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |_| {
            black_box(&self.count).fetch_add(1, Ordering::Relaxed);
        });
    }

    fn counted(&self) -> Option<u64> {
        Some(self.count.load(Ordering::Relaxed))
    }
}
