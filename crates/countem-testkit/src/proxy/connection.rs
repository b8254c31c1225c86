//! One proxied connection.

use std::sync::Arc;
use std::{io, mem};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use super::fault::{Effect, Order};
use super::message::{Message, Reader};
use super::{Mode, Shared};

/// Serves `client` until one side closes the connection or a fault cuts it.
pub(super) async fn run(client: TcpStream, shared: Arc<Shared>) {
    // An I/O error of one side is what a cut looks like from here; the other side learns it by the close.
    if let Ok(connection) = Connection::open(client, shared).await {
        connection.serve().await.ok();
    }
}

struct Connection {
    client: Peer,
    server: Peer,
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    shared: Arc<Shared>,
    fault: Active,
}

/// One side of the connection.
struct Peer {
    incoming: Reader,
    outgoing: OwnedWriteHalf,
    /// A client may go while the server's side still has a fault to finish.
    gone: bool,
}

/// The fault that is active on this connection.
enum Active {
    None,
    /// Cut the connection when the reply to this request arrives, and count that.
    DropReply {
        request: i32,
        counter: watch::Sender<u32>,
    },
    /// Keep this request until told.
    Hold {
        request: Message,
        orders: mpsc::UnboundedReceiver<Order>,
    },
    /// Hand the reply to this request to the test.
    Deliver {
        request: i32,
        reply: oneshot::Sender<Message>,
    },
}

/// The fate of a connection after a step.
#[derive(Eq, PartialEq)]
enum Next {
    Continue,
    Cut,
}

impl Connection {
    async fn open(client: TcpStream, shared: Arc<Shared>) -> io::Result<Self> {
        // Subscribed before the server is dialled, so that a cut which comes meanwhile is seen.
        let (mode, cuts) = (shared.mode.subscribe(), shared.cuts.subscribe());
        if *mode.borrow() == Mode::Refuse {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let server = TcpStream::connect(("127.0.0.1", shared.target)).await?;
        let (client, server) = (Peer::new(client)?, Peer::new(server)?);
        Ok(Self { client, server, mode, cuts, shared, fault: Active::None })
    }

    async fn serve(mut self) -> io::Result<()> {
        while self.step().await? == Next::Continue {}
        Ok(())
    }

    async fn step(&mut self) -> io::Result<Next> {
        let mode = *self.mode.borrow_and_update();
        if mode == Mode::Refuse {
            return Ok(Next::Cut);
        }
        let open = mode != Mode::BlackHole;
        tokio::select! {
            _ = self.cuts.changed() => Ok(Next::Cut),
            changed = self.mode.changed() => Ok(if changed.is_ok() { Next::Continue } else { Next::Cut }),
            order = self.fault.order() => self.follow(order).await,
            request = self.client.incoming.next(), if open && !self.client.gone => match request {
                Ok(Some(request)) => self.request(request).await,
                Ok(None) | Err(_) => Ok(self.lose_client()),
            },
            reply = self.server.incoming.next(), if open => match reply? {
                Some(reply) => Ok(self.reply(reply).await),
                None => Ok(Next::Cut),
            },
        }
    }

    /// Returns the mode that holds for a message that has arrived just now, once it may pass; `None` is a cut.
    ///
    /// Reading the mode only after the arrival ensures that a mode set by a test holds for all that it then sends.
    async fn gate(&mut self) -> Option<Mode> {
        loop {
            let mode = *self.mode.borrow_and_update();
            if mode == Mode::Refuse || self.cuts.has_changed().unwrap_or(true) {
                return None;
            }
            if mode != Mode::BlackHole {
                return Some(mode);
            }
            tokio::select! {
                _ = self.cuts.changed() => return None,
                changed = self.mode.changed() => changed.ok()?,
            }
        }
    }

    async fn request(&mut self, request: Message) -> io::Result<Next> {
        let Some(mode) = self.gate().await else { return Ok(Next::Cut) };
        if let Mode::Delay(delay) = mode {
            time::sleep(delay).await;
        }
        let Some(picked) = self.shared.pick(&request) else {
            self.server.send(&request).await?;
            return Ok(Next::Continue);
        };
        let counter = picked.counter;
        match picked.effect {
            Effect::DropRequest => {
                // Closed before it is counted: when the test hears of it, nothing can get through any more.
                self.client.outgoing.shutdown().await.ok();
                counter.send_modify(|count| *count += 1);
                return Ok(Next::Cut);
            }
            Effect::DropReply => {
                self.server.send(&request).await?;
                self.fault = Active::DropReply { request: request.id(), counter };
            }
            Effect::Hold(orders) => {
                self.fault = Active::Hold { request, orders };
                counter.send_modify(|count| *count += 1);
            }
        }
        Ok(Next::Continue)
    }

    async fn reply(&mut self, reply: Message) -> Next {
        if self.gate().await.is_none() {
            return Next::Cut;
        }
        match &mut self.fault {
            Active::DropReply { request, counter } if *request == reply.answers() => {
                counter.send_modify(|count| *count += 1);
                return Next::Cut;
            }
            Active::Deliver { request, .. } if *request == reply.answers() => {
                let delivered = mem::replace(&mut self.fault, Active::None);
                if let Active::Deliver { reply: answer, .. } = delivered {
                    // The test may have stopped waiting; the client still gets its reply.
                    answer.send(reply.clone()).ok();
                }
            }
            _ => {}
        }
        if self.client.gone || self.client.send(&reply).await.is_err() {
            return self.lose_client();
        }
        Next::Continue
    }

    async fn follow(&mut self, order: Option<Order>) -> io::Result<Next> {
        match order {
            Some(Order::CutClient(done)) => {
                self.client.outgoing.shutdown().await.ok();
                self.client.gone = true;
                done.send(()).ok();
            }
            Some(Order::Deliver(reply)) => {
                if let Active::Hold { request, .. } = &self.fault {
                    let id = request.id();
                    self.server.send(request).await?;
                    self.fault = Active::Deliver { request: id, reply };
                }
            }
            // The test let go of the request.
            None => return Ok(Next::Cut),
        }
        Ok(Next::Continue)
    }

    /// Ends the connection, unless a fault has to be finished with the server alone.
    fn lose_client(&mut self) -> Next {
        self.client.gone = true;
        if matches!(self.fault, Active::None) { Next::Cut } else { Next::Continue }
    }
}

impl Peer {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (incoming, outgoing) = stream.into_split();
        Ok(Self { incoming: Reader::new(incoming), outgoing, gone: false })
    }

    async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.outgoing.write_all(message.bytes()).await
    }
}

impl Active {
    /// Waits for the test's next order; for ever when no request is held.
    async fn order(&mut self) -> Option<Order> {
        match self {
            Self::Hold { orders, .. } => orders.recv().await,
            _ => std::future::pending().await,
        }
    }
}
