//! Increments of counters that are not pending yet.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use countem::Collector;

use crate::{
    step::Step,
    subject,
    workload::{COLLECTION, names},
};

/// Counts once in each of many counters. The table is drained before, so all are new, but it is not the first one of its
/// process: like any flushed table it has kept its size.
#[derive(Debug)]
pub struct NewKeys {
    collector: Collector,
    names: Arc<[String]>,
}

/// The same with the obvious map of the standard library, behind a lock because threads share it.
#[derive(Debug)]
pub struct NewKeysInMap {
    map: Mutex<HashMap<String, i64>>,
    names: Arc<[String]>,
}

impl NewKeys {
    /// Starts a collector.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(counters: usize) -> Result<Self> {
        Ok(Self { collector: subject::collector()?, names: names(counters) })
    }
}

impl NewKeysInMap {
    /// Makes an empty map.
    pub fn new(counters: usize) -> Self {
        Self { map: Mutex::default(), names: names(counters) }
    }
}

impl Step for NewKeys {
    fn label(&self) -> String {
        format!("countem `collector.increment` of {} new counters", self.names.len())
    }

    fn time(&mut self) -> Duration {
        self.collector.blocking().flush().expect("the collector runs");
        let began = Instant::now();
        for name in &*self.names {
            black_box(&self.collector).increment(COLLECTION, name, 1);
        }
        began.elapsed()
    }
}

impl Step for NewKeysInMap {
    fn label(&self) -> String {
        format!("`Mutex<HashMap<String, i64>>`, {} new entries", self.names.len())
    }

    fn time(&mut self) -> Duration {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let began = Instant::now();
        for name in &*self.names {
            let mut map = black_box(&self.map).lock().unwrap_or_else(PoisonError::into_inner);
            match map.get_mut(name.as_str()) {
                Some(count) => *count += 1,
                None => drop(map.insert(name.clone(), 1)),
            }
        }
        began.elapsed()
    }
}
