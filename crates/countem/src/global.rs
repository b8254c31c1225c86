//! The process-wide collector behind [`count!`](crate::count).

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use countem_engine::{Counter, warn_on_stderr};

use crate::{Collector, Guard, ShutdownReport};

static COLLECTOR: OnceLock<Collector> = OnceLock::new();

/// Another collector was installed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process-wide collector is installed already")]
#[non_exhaustive]
pub struct InstallError;

/// Makes `collector` the one that [`count!`](crate::count) counts with, for the rest of the process.
///
/// Returns a guard that shuts it down: hold it until the end of `main`, or call [`shutdown`].
///
/// # Errors
/// [`InstallError`] when there is one already; it stays.
pub fn install(collector: Collector) -> Result<Guard, InstallError> {
    let guard = Guard::new(collector.clone());
    match COLLECTOR.set(collector) {
        Ok(()) => Ok(guard),
        Err(_) => {
            guard.disarm();
            Err(InstallError)
        }
    }
}

/// Returns the process-wide collector.
pub fn installed() -> Option<&'static Collector> {
    COLLECTOR.get()
}

/// Shuts the process-wide collector down; see [`Collector::shutdown`]. `None` when none is installed.
///
/// # Cancel safety
/// The shutdown goes on when the future is dropped.
pub async fn shutdown() -> Option<ShutdownReport> {
    match installed() {
        Some(collector) => Some(collector.shutdown().await),
        None => None,
    }
}

/// Counts with the process-wide collector: `count!("app-events", "MyMethod.calls")`, or with an amount,
/// `count!("app-events", "bytes", n)`.
///
/// Labels follow as `key = value`; a key that is no word is a literal, such as `"http.method"`:
///
/// ```
/// # let (collector, _clock) = countem::Collector::for_test();
/// # let _guard = countem::install(collector.clone()).unwrap();
/// # use countem::count;
/// count!("app", "signups", plan = "pro", country = "DE");
/// let country = String::from("FR");
/// count!("app", "signups", plan = "free", country = country);
/// count!("app", "bytes", 1_432, "http.method" = "GET", country = &country);
/// # let app = collector.blocking().get_counters("app", None).unwrap();
/// # let expected = [
/// #     (r#"signups{country="DE",plan="pro"}"#, 1),
/// #     (r#"signups{country="FR",plan="free"}"#, 1),
/// #     (r#"bytes{country="FR",http.method="GET"}"#, 1432),
/// # ];
/// # assert_eq!(app, countem::Counters::from(expected));
/// ```
///
/// Where names and labels are literals, they are looked up once per call site. Any other expression is looked up at every call,
/// so the count goes to the name that it has then:
///
/// ```
/// # let (collector, _clock) = countem::Collector::for_test();
/// # let _guard = countem::install(collector.clone()).unwrap();
/// use countem::count;
///
/// for status in [200, 404, 500] {
///     count!("web", &format!("GET {status}"));
/// }
/// let metric = String::from("bytes");
/// count!("web", &metric, 1_432);
/// count!("web", "requests", 3);
/// # let web = collector.blocking().get_counters("web", None).unwrap();
/// # let expected = [("GET 200", 1), ("GET 404", 1), ("GET 500", 1), ("bytes", 1432), ("requests", 3)];
/// # assert_eq!(web, countem::Counters::from(expected));
/// ```
///
/// Before [`install`](crate::install) it counts nothing and logs that once per call site. A refused increment is counted
/// in [`Stats::refused`](crate::Stats::refused) and logged.
#[macro_export]
macro_rules! count {
    (@key $key:ident) => {
        stringify!($key)
    };
    (@key $key:literal) => {
        $key
    };
    ($collection:literal, $metric:literal $(,)?) => {
        $crate::count!($collection, $metric, 1)
    };
    ($collection:expr, $metric:expr $(,)?) => {
        $crate::count!($collection, $metric, 1)
    };
    // Before the rules with an amount, which would take the first label for an assignment.
    ($collection:literal, $metric:literal, $($key:tt = $value:literal),+ $(,)?) => {
        $crate::count!($collection, $metric, 1, $($key = $value),+)
    };
    ($collection:expr, $metric:expr, $($key:tt = $value:expr),+ $(,)?) => {
        $crate::count!($collection, $metric, 1, $($key = $value),+)
    };
    ($collection:literal, $metric:literal, $n:expr $(, $key:tt = $value:literal)* $(,)?) => {{
        static SITE: $crate::CallSite = $crate::CallSite::new();
        SITE.count_literal($collection, $metric, &[$(($crate::count!(@key $key), $value)),*], $n)
    }};
    ($collection:expr, $metric:expr, $n:expr $(, $key:tt = $value:expr)* $(,)?) => {{
        static SITE: $crate::CallSite = $crate::CallSite::new();
        SITE.count($collection, $metric, &[$(($crate::count!(@key $key), AsRef::<str>::as_ref(&$value))),*], $n)
    }};
}

/// One place of the program with a `count!`.
#[derive(Debug)]
pub struct CallSite {
    /// Only of literals, which are the same at every call.
    counter: OnceLock<Counter>,
    warned: AtomicBool,
}

impl CallSite {
    /// Returns a call site that has not counted yet.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only the macro makes call sites, in a static")]
    pub const fn new() -> Self {
        Self { counter: OnceLock::new(), warned: AtomicBool::new(false) }
    }

    /// Counts `n` events under names that are the same at every call.
    #[inline]
    pub fn count_literal(
        &self,
        collection: &'static str,
        metric: &'static str,
        labels: &[(&'static str, &'static str)],
        n: i64,
    ) {
        match self.counter.get() {
            Some(counter) => counter.increment(n),
            None => self.resolve(collection, metric, labels, n),
        }
    }

    /// Counts `n` events under any names.
    #[inline]
    pub fn count(
        &self,
        collection: impl AsRef<str>,
        metric: impl AsRef<str>,
        labels: &[(&str, &str)],
        n: i64,
    ) {
        let (collection, metric) = (collection.as_ref(), metric.as_ref());
        match installed() {
            Some(collector) if labels.is_empty() => collector.increment(collection, metric, n),
            Some(collector) => collector.increment_with(collection, metric, labels, n),
            None => self.warn_once(collection, metric),
        }
    }

    #[cold]
    fn resolve(&self, collection: &str, metric: &str, labels: &[(&str, &str)], n: i64) {
        let counter =
            installed().and_then(|collector| collector.counter_with(collection, metric, labels).ok());
        match counter {
            Some(counter) => self.counter.get_or_init(|| counter).increment(n),
            // Counts and logs the refusal of an invalid name.
            None => self.count(collection, metric, labels, n),
        }
    }

    #[cold]
    fn warn_once(&self, collection: &str, metric: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            const WARNING: &str = "counted before a collector was installed: not counted";
            tracing::warn!(collection, metric, "{WARNING}");
            warn_on_stderr(format_args!("`{metric}` of `{collection}` was {WARNING}"));
        }
    }
}
