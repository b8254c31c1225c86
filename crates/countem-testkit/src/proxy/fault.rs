//! Faults that a test orders, and how it learns that they have happened.

use std::mem;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use super::message::Message;

/// Maximum time that a test waits for a fault before it fails.
const FAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A fault that was ordered; tells when it has happened. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Fault {
    count: watch::Receiver<u32>,
}

impl Fault {
    /// Waits until the fault has happened `times` times since it was ordered.
    ///
    /// # Errors
    /// When that is not so after 60 s, or cannot be any more.
    pub async fn happened(&self, times: u32) -> Result<()> {
        let mut count = self.count.clone();
        let waiting = time::timeout(FAULT_TIMEOUT, count.wait_for(|count| *count >= times)).await;
        let seen = || format!("the fault has happened {} times instead of {times}", self.count());
        waiting.with_context(seen)?.with_context(seen)?;
        Ok(())
    }

    /// Returns how often it has happened.
    #[must_use]
    pub fn count(&self) -> u32 {
        *self.count.borrow()
    }
}

/// A request that is, or will be, kept back. Dropping it cuts the connection and the request is never delivered.
#[derive(Debug)]
pub struct Held {
    arrival: Fault,
    orders: mpsc::UnboundedSender<Order>,
}

impl Held {
    pub(super) fn new(arrival: Fault, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { arrival, orders }
    }

    /// Waits until the request is here.
    ///
    /// # Errors
    /// When it has not come after 60 s.
    pub async fn arrived(&self) -> Result<()> {
        self.arrival.happened(1).await.context("no request to hold has come")
    }

    /// Cuts the connection to the client, which gets an error at once, and keeps the one to the server.
    ///
    /// # Errors
    /// When no request has come after 60 s, or its connection is closed.
    pub async fn cut_client(&self) -> Result<()> {
        self.order(Order::CutClient).await
    }

    /// Delivers the request over the server connection it was meant for, and returns the server's reply. A client
    /// that is still there gets the reply too.
    ///
    /// # Errors
    /// When no request has come or the server has not replied after 60 s, or the connection is closed.
    pub async fn deliver(self) -> Result<Message> {
        self.order(Order::Deliver).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T> {
        self.arrived().await?;
        let (answer, done) = oneshot::channel();
        let closed = "the connection of the held request is closed";
        self.orders.send(order(answer)).ok().context(closed)?;
        time::timeout(FAULT_TIMEOUT, done).await.context("no answer to the held request")?.context(closed)
    }
}

/// Order of a test to the connection that holds a request.
#[derive(Debug)]
pub(super) enum Order {
    CutClient(oneshot::Sender<()>),
    Deliver(oneshot::Sender<Message>),
}

/// Effect of a fault on the request that it has picked.
pub(super) enum Effect {
    DropRequest,
    DropReply,
    Hold(mpsc::UnboundedReceiver<Order>),
}

/// An effect, and the counter that tells the test once it has happened.
pub(super) struct Picked {
    pub(super) effect: Effect,
    pub(super) counter: watch::Sender<u32>,
}

/// A fault that waits for its requests.
pub(super) struct Rule {
    left: u32,
    effect: Effect,
    matches: Box<dyn Fn(&Message) -> bool + Send + Sync>,
    counter: watch::Sender<u32>,
}

impl Rule {
    pub(super) fn new(
        times: u32,
        effect: Effect,
        matches: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { left: times, effect, matches: Box::new(matches), counter: watch::Sender::new(0) }
    }

    pub(super) fn fault(&self) -> Fault {
        Fault { count: self.counter.subscribe() }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }

    pub(super) fn pick(&mut self, request: &Message) -> Option<Picked> {
        if self.is_used_up() || !(self.matches)(request) {
            return None;
        }
        self.left -= 1;
        let effect = match &mut self.effect {
            Effect::DropRequest => Effect::DropRequest,
            Effect::DropReply => Effect::DropReply,
            // There is one inbox and so one hold: the rule is used up, and what stays behind is never picked.
            hold @ Effect::Hold(_) => mem::replace(hold, Effect::DropRequest),
        };
        Some(Picked { effect, counter: self.counter.clone() })
    }
}
