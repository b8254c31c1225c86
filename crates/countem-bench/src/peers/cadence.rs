//! The StatsD client `cadence`.

use std::{hint::black_box, net::UdpSocket, thread};

use anyhow::{Context, Result};
use cadence::{BufferedUdpMetricSink, CountedExt, QueuingMetricSink, StatsdClient};

use crate::{counting::Counting, workload::Walk};

/// A client with a queue and a buffer of datagrams, as its documentation recommends. It sends to a socket of this machine
/// that is never read, so the kernel throws the datagrams away.
///
/// The client's own thread empties the queue; an increment is done when it has.
#[derive(Debug)]
pub struct CadenceQueue {
    client: StatsdClient,
    queue: QueuingMetricSink,
    _unread: UdpSocket,
}

impl CadenceQueue {
    /// Opens the sockets and starts the client.
    ///
    /// # Errors
    /// When there are no sockets to be had.
    pub fn open() -> Result<Self> {
        let unread = UdpSocket::bind("127.0.0.1:0").context("cannot open a socket that receives")?;
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot open a socket that sends")?;
        socket.set_nonblocking(true)?;
        let sink = BufferedUdpMetricSink::from(unread.local_addr()?, socket)?;
        let queue = QueuingMetricSink::from(sink);
        let client = StatsdClient::from_sink("app-events", queue.clone());
        Ok(Self { client, queue, _unread: unread })
    }
}

impl Counting for CadenceQueue {
    fn label(&self) -> &'static str {
        "`cadence` (StatsD), queue and buffered UDP"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| {
            // A datagram that is lost is no concern of a caller.
            black_box(&self.client).incr(name).ok();
        });
    }

    fn settle(&self) {
        while self.queue.queued() > 0 {
            thread::yield_now();
        }
    }

    fn counted(&self) -> Option<u64> {
        None
    }
}
