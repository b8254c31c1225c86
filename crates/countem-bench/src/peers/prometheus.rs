//! The `prometheus` crate.

use std::{hint::black_box, sync::Arc};

use anyhow::Result;
use prometheus::{IntCounterVec, Opts};

use crate::{counting::Counting, workload::Walk};

/// One vector of counters with one label, looked up at every increment.
#[derive(Debug)]
pub struct PrometheusVec {
    vector: IntCounterVec,
    names: Arc<[String]>,
}

impl PrometheusVec {
    /// Makes a vector for `names`.
    ///
    /// # Errors
    /// When the crate refuses its description.
    pub fn new(names: &Arc<[String]>) -> Result<Self> {
        let vector = IntCounterVec::new(Opts::new("app_events", "What happened."), &["metric"])?;
        Ok(Self { vector, names: Arc::clone(names) })
    }
}

impl Counting for PrometheusVec {
    fn label(&self) -> &'static str {
        "`prometheus`: `vec.with_label_values(&[name]).inc()`"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| black_box(&self.vector).with_label_values(&[name]).inc());
    }

    fn counted(&self) -> Option<u64> {
        Some(self.names.iter().map(|name| self.vector.with_label_values(&[name]).get()).sum())
    }
}
