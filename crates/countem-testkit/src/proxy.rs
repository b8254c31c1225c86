//! A proxy between a MongoDB client and server that cuts, holds and delays whole messages on command.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

mod connection;
mod fault;
mod message;

use fault::{Effect, Picked, Rule};
pub use fault::{Fault, Held};
pub use message::Message;

/// A TCP proxy that understands MongoDB's message frames, so that a fault hits exactly the chosen request.
///
/// It runs on a thread and runtime of its own: a test may block its own runtime, or have none.
///
/// A client has to stay pinned to the proxy, else it learns the server's real address from the first reply and
/// goes around it: connect with [`uri`](Self::uri), which says `directConnection=true`. That works for a
/// standalone and for one member of a replica set, usually the primary; it does not follow a failover.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Treatment of all messages that no fault has picked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// Passes everything on.
    #[default]
    Forward,
    /// Passes everything on, each request this much later.
    Delay(Duration),
    /// Passes nothing on in either direction and keeps connections open, new ones too. What was on its way
    /// arrives when the mode changes, as it does with TCP when a network partition heals.
    BlackHole,
    /// Closes all connections, new ones at once.
    Refuse,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 for connections to the server at port `target` of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no free port or no thread.
    pub fn start(target: u16) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { target, ..Shared::default() });
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let accepting = accept(listener, Arc::clone(&shared));
        // Dropping the runtime at the end of the thread closes every connection.
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    error = accepting => eprintln!("the proxy stopped listening: {error}"),
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(run)?;
        Ok(Self { port, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the port of 127.0.0.1 that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the connection string that pins a client to this proxy.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Changes the treatment of all messages that no fault picks, also on open connections.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Closes all connections that are open now.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts the connection *before* the server sees a request that `matches`, `times` times.
    ///
    /// Faults that are still waiting are asked in the order in which they were made.
    pub fn drop_request(
        &self,
        times: u32,
        matches: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Fault {
        self.add(Rule::new(times, Effect::DropRequest, matches))
    }

    /// Passes such a request on, waits for the server's reply and cuts the connection instead of handing it over.
    ///
    /// Thus the server has carried the request out when [`Fault::happened`] returns.
    pub fn drop_reply(
        &self,
        times: u32,
        matches: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Fault {
        self.add(Rule::new(times, Effect::DropReply, matches))
    }

    /// Keeps the first such request back until it is [delivered](Held::deliver), also after its client has given
    /// up and gone. All other connections go on.
    pub fn hold(&self, matches: impl Fn(&Message) -> bool + Send + Sync + 'static) -> Held {
        let (orders, inbox) = mpsc::unbounded_channel();
        let arrived = self.add(Rule::new(1, Effect::Hold(inbox), matches));
        Held::new(arrived, orders)
    }

    fn add(&self, rule: Rule) -> Fault {
        let fault = rule.fault();
        self.shared.add(rule);
        fault
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy has been printed already, and this may run during a test's own.
            thread.join().ok();
        }
    }
}

/// State that all connections of a proxy share.
#[derive(Default)]
struct Shared {
    target: u16,
    mode: watch::Sender<Mode>,
    /// Counts calls of `cut_all`.
    cuts: watch::Sender<u64>,
    rules: Mutex<Vec<Rule>>,
}

impl Shared {
    fn add(&self, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Picks the fault of `request`, if it has one.
    fn pick(&self, request: &Message) -> Option<Picked> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let picked = rules.iter_mut().find_map(|rule| rule.pick(request));
        rules.retain(|rule| !rule.is_used_up());
        picked
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(connection::run(client, Arc::clone(&shared)));
            }
            Err(error) => return error,
        }
    }
}
