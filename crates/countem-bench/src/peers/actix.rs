//! One message to an actor per increment.

use std::{
    collections::HashMap,
    fmt,
    hint::black_box,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use actix::prelude::*;
use anyhow::{Context as _, Result, anyhow};

use crate::{
    counting::Counting,
    workload::{COLLECTION, Walk},
};

/// An actor on a thread of its own that adds up what it is told: what `increment(collection, metric, n)` is without folding by
/// the caller. An increment is done when the actor has handled it: a mailbox that only grows is no way to count.
pub struct ActixMessages {
    folder: Addr<Folder>,
    system: System,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Folder {
    counts: HashMap<String, HashMap<String, u64>>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Increment {
    collection: String,
    metric: String,
    n: u64,
}

/// Asks for the sum of everything counted, which comes after all messages sent before.
#[derive(Message)]
#[rtype(result = "()")]
struct Sum {
    reply: SyncSender<u64>,
}

impl Actor for Folder {
    type Context = Context<Self>;
}

impl Handler<Increment> for Folder {
    type Result = ();
    fn handle(&mut self, increment: Increment, _: &mut Self::Context) {
        let Increment { collection, metric, n } = increment;
        *self.counts.entry(collection).or_default().entry(metric).or_default() += n;
    }
}

impl Handler<Sum> for Folder {
    type Result = ();
    fn handle(&mut self, sum: Sum, _: &mut Self::Context) {
        // The asking thread waits for the answer.
        sum.reply.send(self.counts.values().flat_map(HashMap::values).sum()).ok();
    }
}

impl ActixMessages {
    /// Starts the actor.
    ///
    /// # Errors
    /// When its thread does not start.
    pub fn start() -> Result<Self> {
        let (ready, started) = sync_channel(1);
        let thread = thread::Builder::new().name("actix".to_owned()).spawn(move || {
            let runner = System::new();
            let folder = runner.block_on(async { Folder::default().start() });
            ready.send((folder, System::current())).ok();
            runner.run().ok();
        })?;
        let (folder, system) = started.recv().context("the thread of the actor has ended")?;
        Ok(Self { folder, system, thread: Some(thread) })
    }

    fn sum(&self) -> Result<u64> {
        let (reply, answer) = sync_channel(1);
        self.folder.try_send(Sum { reply }).or_else(|error| match error {
            // A full mailbox takes it all the same, as it took the increments.
            SendError::Full(sum) => {
                self.folder.do_send(sum);
                Ok(())
            }
            SendError::Closed(_) => Err(anyhow!("the actor has ended")),
        })?;
        answer.recv().context("the actor has ended")
    }
}

impl Counting for ActixMessages {
    fn label(&self) -> &'static str {
        "one actix message per increment (`do_send`)"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| {
            let increment = Increment { collection: COLLECTION.to_owned(), metric: name.to_owned(), n: 1 };
            black_box(&self.folder).do_send(increment);
        });
    }

    fn settle(&self) {
        self.sum().expect("the actor lives as long as its address");
    }

    fn counted(&self) -> Option<u64> {
        self.sum().ok()
    }
}

impl Drop for ActixMessages {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            thread.join().ok();
        }
    }
}

impl fmt::Debug for ActixMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActixMessages")
    }
}
