//! The `metrics` facade with the Prometheus recorder.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::{counting::Counting, workload::Walk};

/// `counter!` with a label whose value is known at run time only, so it has to be owned. The recorder is the process-wide
/// one; nothing exports.
#[derive(Debug)]
pub struct MetricsMacro {
    handle: PrometheusHandle,
}

impl MetricsMacro {
    /// Installs the recorder for the whole process, once.
    ///
    /// # Errors
    /// When another recorder is installed.
    pub fn install() -> Result<Self> {
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = match INSTALLED.get() {
            Some(handle) => handle.clone(),
            None => {
                let recorder = PrometheusBuilder::new().build_recorder();
                let handle = recorder.handle();
                metrics::set_global_recorder(recorder)
                    .map_err(|error| error.to_string())
                    .map_err(anyhow::Error::msg)
                    .context("cannot install the recorder of `metrics`")?;
                INSTALLED.get_or_init(|| handle).clone()
            }
        };
        Ok(Self { handle })
    }
}

impl Counting for MetricsMacro {
    fn label(&self) -> &'static str {
        "`metrics`: `counter!(…, \"metric\" => name)`, Prometheus recorder"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| metrics::counter!("app_events", "metric" => name.to_owned()).increment(1));
    }

    fn counted(&self) -> Option<u64> {
        let text = self.handle.render();
        let values = text.lines().filter(|line| line.starts_with("app_events{"));
        Some(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }
}
