//! State that all requests share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use countem::{Collector, Timestamp, store::Store};
use countem_config::{Config, Guarantee, ServerConfig};
use tokio::sync::Semaphore;

use crate::{
    auth::Access,
    metrics::Metrics,
    problem::{Code, Problem},
    stream::Changed,
};

/// State that all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) collector: Collector,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: Config,
    pub(crate) access: Access,
    pub(crate) metrics: Metrics,
    /// Room for bodies, in KiB.
    pub(crate) bodies: Arc<Semaphore>,
    /// Room for event streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Changes of counters, for event streams.
    pub(crate) changed: Arc<Changed>,
    pub(crate) started: Timestamp,
    phase: AtomicU8,
}

/// Phase in the life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests are served.
    Serving,
    /// Requests are served, and `/readyz` tells a balancer to send no more.
    Draining,
    /// Requests are served, each as the last one of its connection.
    Closing,
}

impl State {
    pub(crate) fn new(collector: Collector, store: Arc<dyn Store>, config: Config, access: Access) -> Self {
        let server = config.server();
        let bodies = Arc::new(Semaphore::new(kib(server.max_bodies).min(Semaphore::MAX_PERMITS)));
        let streams = Arc::new(Semaphore::new(server.max_streams));
        Self {
            collector,
            store,
            access,
            metrics: Metrics::default(),
            bodies,
            streams,
            changed: Arc::new(Changed::new()),
            started: Timestamp::now(),
            phase: AtomicU8::new(Phase::Serving as u8),
            config,
        }
    }

    pub(crate) fn server(&self) -> &ServerConfig {
        self.config.server()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Tells whether the node keeps a journal.
    pub(crate) fn has_journal(&self) -> bool {
        self.config.durability().level == countem_config::DurabilityLevel::Journal
    }

    /// Returns the guarantee of a write, from what it asks for.
    ///
    /// # Errors
    /// The server does not give it.
    pub(crate) fn guarantee(&self, asked: Option<&str>) -> Result<Guarantee, Problem> {
        let server = self.server();
        let Some(name) = asked else {
            let default = server.guarantee;
            // Without a journal only what is in the store survives.
            let is_journal = default == Guarantee::Journal && !self.has_journal();
            return Ok(if is_journal { Guarantee::Memory.max(server.min_guarantee) } else { default });
        };
        let guarantee = Guarantee::named(name).ok_or_else(|| {
            Problem::new(
                Code::BadParameter,
                format_args!("`guarantee` is memory, journal or store, not `{name}`"),
            )
        })?;
        let refuse = |why: String| Err(Problem::new(Code::GuaranteeUnavailable, why));
        if guarantee < server.min_guarantee || guarantee > server.max_guarantee {
            let (min, max) = (server.min_guarantee.name(), server.max_guarantee.name());
            return refuse(format!("this server gives guarantees from `{min}` to `{max}`"));
        }
        if guarantee == Guarantee::Journal && !self.has_journal() {
            return refuse("this server keeps no journal: ask for `store`, or for `memory`".to_owned());
        }
        Ok(guarantee)
    }

    /// Returns the guarantee of a write under an idempotency key, which is durable before it is answered.
    ///
    /// # Errors
    /// The server does not give it.
    pub(crate) fn guarantee_of_keyed(&self, asked: Guarantee) -> Result<Guarantee, Problem> {
        let least = if self.has_journal() { Guarantee::Journal } else { Guarantee::Store };
        let guarantee = asked.max(least);
        if guarantee <= self.server().max_guarantee {
            return Ok(guarantee);
        }
        Err(Problem::new(
            Code::GuaranteeUnavailable,
            "without a journal, an idempotency key needs the guarantee `store`, which this server does not give",
        ))
    }

    /// Returns once everything that was counted before has the guarantee.
    ///
    /// # Errors
    /// It has not, and stays counted.
    pub(crate) async fn wait(&self, guarantee: Guarantee) -> Result<(), Problem> {
        let limit = self.server().write_timeout;
        let waiting = async {
            match guarantee {
                Guarantee::Memory => Ok(()),
                Guarantee::Journal => self.collector.durable().await,
                Guarantee::Store => self.collector.flush().await,
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(not_yet(guarantee, limit)),
        }
    }
}

fn not_yet(guarantee: Guarantee, limit: Duration) -> Problem {
    let name = guarantee.name();
    Problem::new(
        Code::NotYet,
        format_args!("counted, and not in the {name} after {limit:?}; it will be, so do not count it again"),
    )
}

/// Returns the permits for a number of bytes.
pub(crate) fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}
