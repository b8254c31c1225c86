//! Taking everything out of a collector's table.

use std::{
    collections::HashMap,
    hint::black_box,
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use anyhow::Result;
use countem::Collector;
use tokio::runtime::Runtime;

use crate::{
    step::Step,
    subject,
    workload::{COLLECTION, names},
};

/// Drains the tables of a collector into its lanes and wakes the storage actors, as every flush begins. What comes after,
/// freezing and storing, is not timed.
#[derive(Debug)]
pub struct Drain {
    collector: Collector,
    runtime: Runtime,
    names: Arc<[String]>,
}

/// Moves the entries of one map of the standard library into another one.
#[derive(Debug)]
pub struct DrainMap {
    counted: HashMap<String, i64>,
    pending: HashMap<String, i64>,
    names: Arc<[String]>,
}

impl Drain {
    /// Starts a collector.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(counters: usize) -> Result<Self> {
        Ok(Self { collector: subject::collector()?, runtime: subject::runtime(), names: names(counters) })
    }
}

impl DrainMap {
    /// Makes empty maps.
    pub fn new(counters: usize) -> Self {
        Self { counted: HashMap::new(), pending: HashMap::new(), names: names(counters) }
    }
}

impl Step for Drain {
    fn label(&self) -> String {
        format!("countem drains {} counters into their lane and wakes its actor", self.names.len())
    }

    fn time(&mut self) -> Duration {
        for name in &*self.names {
            self.collector.increment(COLLECTION, name, 1);
        }
        let mut flush = pin!(self.collector.flush());
        let mut context = Context::from_waker(Waker::noop());
        let began = Instant::now();
        // The first poll drains on this thread and then waits for the store.
        let poll = flush.as_mut().poll(&mut context);
        let took = began.elapsed();
        if poll.is_pending() {
            self.runtime.block_on(flush).expect("the collector runs");
        }
        took
    }
}

impl Step for DrainMap {
    fn label(&self) -> String {
        format!("`HashMap<String, i64>` of {} entries merged into another one", self.names.len())
    }

    fn time(&mut self) -> Duration {
        for name in &*self.names {
            *self.counted.entry(name.clone()).or_default() += 1;
        }
        self.pending.clear();
        let began = Instant::now();
        for (name, n) in mem::take(black_box(&mut self.counted)) {
            *self.pending.entry(name).or_default() += n;
        }
        began.elapsed()
    }
}
