//! The process-wide collector behind [`count!`](crate::count).

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use countem_core::NameError;
use countem_engine::Counter;

use crate::Collector;

static COLLECTOR: OnceLock<Collector> = OnceLock::new();

/// Another collector was installed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process-wide collector is installed already")]
pub struct InstallError;

/// Makes `collector` the one that [`count!`](crate::count) counts with, for the rest of the process.
///
/// # Errors
/// [`InstallError`] when there is one already; it stays.
pub fn install(collector: Collector) -> Result<(), InstallError> {
    COLLECTOR.set(collector).map_err(|_| InstallError)
}

/// Returns the process-wide collector.
pub fn installed() -> Option<&'static Collector> {
    COLLECTOR.get()
}

/// Counts with the process-wide collector: `count!("app-events", "MyMethod.calls")`, or `count!("app-events", "bytes", n)`.
///
/// The handle of the counter is made once per call site, so both names have to be the same at every call: use
/// [`Collector::increment`] for names that vary. Before [`install`] it counts nothing and logs that once per call site. An invalid name
/// is logged once, too.
#[macro_export]
macro_rules! count {
    ($collection:expr, $metric:expr) => {
        $crate::count!($collection, $metric, 1)
    };
    ($collection:expr, $metric:expr, $n:expr) => {{
        static SITE: $crate::CallSite = $crate::CallSite::new();
        SITE.increment($collection, $metric, $n)
    }};
}

/// The handle of one `count!`.
#[derive(Debug)]
pub struct CallSite {
    counter: OnceLock<Result<Counter, NameError>>,
    warned: AtomicBool,
}

impl CallSite {
    /// Returns a call site that has not counted yet.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only the macro makes call sites, in a static")]
    pub const fn new() -> Self {
        Self { counter: OnceLock::new(), warned: AtomicBool::new(false) }
    }

    /// Counts `n` events.
    #[inline]
    pub fn increment(&self, collection: &str, metric: &str, n: i64) {
        match self.counter.get() {
            Some(Ok(counter)) => counter.increment(n),
            Some(Err(_)) => {}
            None => self.resolve(collection, metric, n),
        }
    }

    #[cold]
    fn resolve(&self, collection: &str, metric: &str, n: i64) {
        let Some(collector) = installed() else {
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(collection, metric, "counted before a collector was installed: not counted");
            }
            return;
        };
        let counter = self.counter.get_or_init(|| {
            let counter = collector.counter(collection, metric);
            counter.inspect_err(|error| tracing::error!(%error, "`count!` has an invalid name: not counted"))
        });
        if let Ok(counter) = counter {
            counter.increment(n);
        }
    }
}
