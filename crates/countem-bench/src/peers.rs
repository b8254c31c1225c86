//! Ways to count with other crates. The label of each says how it is set up.

mod actix;
mod atomic;
mod cadence;
mod metrics;
mod prometheus;

pub use actix::ActixMessages;
pub use atomic::FetchAdd;
pub use cadence::CadenceQueue;
pub use metrics::MetricsMacro;
pub use prometheus::PrometheusVec;

use std::sync::Arc;

use anyhow::Result;

use crate::counting::Counting;

/// Returns every peer, the baseline first.
///
/// # Errors
/// When one cannot be set up.
pub fn all(names: &Arc<[String]>) -> Result<Vec<Arc<dyn Counting>>> {
    Ok(vec![
        Arc::new(FetchAdd::default()),
        Arc::new(PrometheusVec::new(names)?),
        Arc::new(MetricsMacro::install()?),
        Arc::new(CadenceQueue::open()?),
        Arc::new(ActixMessages::start()?),
    ])
}
