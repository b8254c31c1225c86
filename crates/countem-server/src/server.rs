//! The life of a server: start in phases, signals, and an end that stores what is pending.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{HttpServer, dev::ServerHandle, rt, web};
use countem::{
    Collector, ShutdownReport, StartError,
    store::{StoreError, open_store_with},
};
use countem_config::{Config, ServerConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    auth::{Access, tokens::Tokens},
    http,
    state::{Phase, State},
    stream::watch_changes,
    tls::{self, Certificate},
};

/// Time in which connections that are idle are closed at the end.
const CLOSING: Duration = Duration::from_millis(250);

/// An error: the server did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration would let strangers in, or cannot be.
    #[error("{0}")]
    Config(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The server cannot run.
    #[error("the server cannot run: {0}")]
    Io(#[from] io::Error),
}

/// Result of a server that has stopped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Served {
    /// The whereabouts of every accepted increment.
    pub report: ShutdownReport,
}

/// A server that serves requests.
#[derive(Debug)]
#[non_exhaustive]
pub struct Serving<'a> {
    /// The addresses on which it listens.
    pub addresses: &'a [SocketAddr],
    /// Tells whether they need TLS.
    pub is_tls: bool,
    /// The collector that counts for its requests.
    pub collector: &'a Collector,
}

/// Serves until SIGTERM or SIGINT, and stores what is pending. `reload` reads the configuration again at SIGHUP; `ready` is called once
/// requests are served, and its result is dropped before the collector shuts down.
///
/// Nothing is bound before configuration, store and journal are found good.
///
/// # Errors
/// [`ServeError`]: the server did not start, and counted nothing.
pub fn run<R>(
    config: Config,
    reload: impl Fn() -> Result<Config, String> + 'static,
    ready: impl FnOnce(&Serving<'_>) -> R,
) -> Result<Served, ServeError> {
    rt::System::new().block_on(serve(config, reload, ready))
}

async fn serve<R>(
    config: Config,
    reload: impl Fn() -> Result<Config, String> + 'static,
    ready: impl FnOnce(&Serving<'_>) -> R,
) -> Result<Served, ServeError> {
    let server = config.server().clone();
    let tokens = read_tokens(&server)?;
    let tls = tls::of(&server).map_err(|error| ServeError::Config(error.to_string()))?;
    check_exposure(&server, tokens.is_some(), tls.is_some())?;
    let mut signals = Signals::new()?;
    let store = open_store_with(config.store_uri(), config.mongodb(), None).await?;
    let collector = Collector::builder().config(&config).shared_store(Arc::clone(&store)).start().await?;
    let deadline = config.to_engine_config().shutdown_deadline;
    let access = Access::new(tokens, server.rate);
    let state = web::Data::new(State::new(collector.clone(), store, config, access));
    let (tls, certificate) = tls.map_or((None, None), |(tls, certificate)| (Some(tls), Some(certificate)));
    let is_tls = tls.is_some();
    let bound = match bind(&state, &server, tls, deadline) {
        Ok(bound) => bound,
        Err(error) => {
            collector.shutdown().await;
            return Err(error);
        }
    };
    let (running, addresses) = bound;
    let handle = running.handle();
    let serving = rt::spawn(running);
    let beside = ready(&Serving { addresses: &addresses, is_tls, collector: &collector });
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = rt::spawn(feed_watchdog());
    let watching = rt::spawn(watch_changes(Arc::clone(&state.changed), collector.clone()));
    while let Asked::Reload = signals.next().await {
        reload_files(&state, certificate.as_deref(), &reload);
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    stop_intake(&state, &handle, &mut signals).await;
    drop(beside);
    let report = collector.shutdown().await;
    watching.abort();
    watchdog.abort();
    serving.abort();
    Ok(Served { report })
}

fn read_tokens(config: &ServerConfig) -> Result<Option<Tokens>, ServeError> {
    let Some(path) = &config.tokens else { return Ok(None) };
    let tokens =
        Tokens::read(path).map_err(|error| ServeError::Config(format!("{}: {error}", path.display())))?;
    if tokens.is_empty() {
        let path = path.display();
        return Err(ServeError::Config(format!("{path} has no token: make one with `countem token new`")));
    }
    Ok(Some(tokens))
}

/// Refuses to serve strangers without tokens and TLS.
fn check_exposure(config: &ServerConfig, has_tokens: bool, has_tls: bool) -> Result<(), ServeError> {
    let exposed = config.listen.iter().find(|address| !address.ip().is_loopback());
    let is_safe = config.insecure || (has_tokens && has_tls);
    let Some(address) = exposed.filter(|_| !is_safe) else { return Ok(()) };
    let missing = match (has_tokens, has_tls) {
        (false, false) => "tokens (`server.tokens`) and TLS (`server.tls_cert`, `server.tls_key`)",
        (false, true) if config.tls_client_ca.is_some() => return Ok(()),
        (false, true) => "tokens (`server.tokens`)",
        _ => "TLS (`server.tls_cert`, `server.tls_key`)",
    };
    Err(ServeError::Config(format!(
        "other machines reach {address}, so the server needs {missing}; where a proxy or the network keeps strangers out, say \
         `--insecure`"
    )))
}

fn bind(
    state: &web::Data<State>,
    config: &ServerConfig,
    tls: Option<rustls::ServerConfig>,
    deadline: Duration,
) -> Result<(actix_web::dev::Server, Vec<SocketAddr>), ServeError> {
    let shared = state.clone();
    let mut server = HttpServer::new(move || http::app(shared.clone()).0)
        .disable_signals()
        .max_connections(config.max_connections)
        .client_request_timeout(config.head_timeout)
        .keep_alive(config.idle_timeout)
        .shutdown_timeout(deadline.as_secs().max(1));
    for address in &config.listen {
        let bound = match &tls {
            None => server.bind_auto_h2c(address),
            Some(tls) => server.bind_rustls_0_23(address, tls.clone()),
        };
        server = bound.map_err(|source| ServeError::Bind { address: *address, source })?;
    }
    let addresses = server.addrs();
    Ok((server.run(), addresses))
}

/// Lets a balancer see that no more requests should come, and then takes none.
async fn stop_intake(state: &State, handle: &ServerHandle, signals: &mut Signals) {
    state.enter(Phase::Draining);
    let drain = state.server().drain;
    if !drain.is_zero() {
        tracing::info!(?drain, "draining: `/readyz` says so, requests are served");
        tokio::select! {
            () = tokio::time::sleep(drain) => {}
            _ = signals.next_stop() => {}
        }
    }
    // Every answer is the last one of its connection from here on, so that none has to be cut.
    state.enter(Phase::Closing);
    tokio::time::sleep(CLOSING).await;
    handle.stop(true).await;
}

/// Reads again what may change while the server runs, and names what may not.
fn reload_files(
    state: &State,
    certificate: Option<&Certificate>,
    reload: &impl Fn() -> Result<Config, String>,
) {
    let report = |what: &str, result: Result<(), String>| match result {
        Ok(()) => tracing::info!("{what}: read again"),
        Err(error) => tracing::error!("{what}: {error}; the former stays"),
    };
    if let Some(certificate) = certificate {
        report("certificate", certificate.reload().map_err(|error| error.to_string()));
    }
    let path = state.server().tokens.clone();
    if let Some(path) = path {
        let read = Tokens::read(&path).map_err(|error| format!("{}: {error}", path.display()));
        let read =
            read.and_then(
                |tokens| if tokens.is_empty() { Err("there is no token".to_owned()) } else { Ok(tokens) },
            );
        report("tokens", read.map(|tokens| state.access.replace(tokens)));
    }
    match reload() {
        Ok(config) if config == state.config => {}
        Ok(config) => {
            let keys = config.differing_keys(&state.config).join(", ");
            tracing::warn!("changed keys take effect at the next start: {keys}");
        }
        Err(error) => tracing::error!("configuration: {error}"),
    }
}

/// Tells the service manager what it asked to be told, if there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Tells the service manager that this process is alive, as often as it asks.
async fn feed_watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(interval / 3).await;
    }
}

/// Request of a signal.
enum Asked {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn next_stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop) {}
    }
}
