//! Reads inputs and feeds their lines to the counting thread.

use std::{
    fs::TryLockError,
    io::Read,
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{self, Receiver, SyncSender},
    },
};

use anyhow::{Error, Result, anyhow};
use jiff::Timestamp;

use crate::{
    exit::UsageError,
    ingest::{
        identity::{Candidate, HEAD, Identity, Place, Position},
        input::{Input, Source},
        lines::{Block, Lines},
    },
    stop::Stop,
};

/// What the counting thread is told, in order.
pub(crate) enum Event {
    /// Which marks may be of a content that begins with `head`? The answer comes after all that was fed is stored.
    Find { head: Vec<u8>, reply: mpsc::Sender<Vec<Candidate>> },
    /// A new input begins.
    Begin { input: usize, name: Arc<str>, resumed: Option<Box<Resumed>> },
    /// What comes next of an input.
    Lines { input: usize, block: Block, read_at: Timestamp },
    /// Nothing more comes of an input.
    End { input: usize },
    /// An input cannot be read, or not to its end.
    Failed { name: Arc<str>, error: Error },
}

/// Where counting goes on in a content that was counted in part.
#[derive(Debug, Clone)]
pub(crate) struct Resumed {
    pub(crate) position: Position,
    pub(crate) place: Place,
    pub(crate) identity: Identity,
    /// The first line of the content.
    pub(crate) first_line: Vec<u8>,
}

/// Why feeding an input ended before its end.
pub(crate) enum Interrupt {
    /// Everybody is to stop.
    Stopped,
    /// The input cannot be read.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Interrupt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The sending side of the counting thread.
pub(crate) struct Feed {
    pub(crate) events: SyncSender<Event>,
    /// Blocks that were counted, to be filled again.
    pub(crate) spare: Receiver<Vec<u8>>,
    pub(crate) stop: Arc<Stop>,
    /// Learns how much was read of the inputs as they lie on the disk.
    pub(crate) meter: Arc<AtomicU64>,
    /// Whether contents that were counted before are skipped.
    pub(crate) is_once: bool,
    pub(crate) inputs: usize,
}

impl Feed {
    /// Feeds `inputs` one after the other, each to its end.
    pub(crate) fn all(mut self, inputs: &[Input]) {
        for input in inputs {
            if let Err(Interrupt::Stopped) = self.one(input) {
                return;
            }
        }
    }

    fn one(&mut self, input: &Input) -> Result<(), Interrupt> {
        let name = input.name();
        let fed = (|| {
            let mut source = input.open(&self.meter)?;
            let (number, mut lines) = self.begin(&name, &mut source)?;
            let read = self.pump(number, &mut source, &mut lines);
            if !matches!(read, Err(Interrupt::Stopped)) {
                // The line in which reading failed may be cut, so it is not counted.
                if read.is_ok() {
                    self.rest(number, &mut lines)?;
                }
                self.send(Event::End { input: number })?;
            }
            read
        })();
        self.report(&name, fed)
    }

    /// Turns the failure of one input into news about it.
    pub(crate) fn report(&self, name: &Arc<str>, fed: Result<(), Interrupt>) -> Result<(), Interrupt> {
        match fed {
            Err(Interrupt::Failed(error)) => self.send(Event::Failed { name: Arc::clone(name), error }),
            other => other,
        }
    }

    /// Announces an input, after going to where it was counted before.
    pub(crate) fn begin(
        &mut self,
        name: &Arc<str>,
        source: &mut Source,
    ) -> Result<(usize, Lines), Interrupt> {
        let resumed = if self.is_once { self.find(name, source)? } else { None };
        let offset = resumed.as_ref().map_or(0, |resumed| resumed.position.offset);
        let input = self.inputs;
        self.inputs += 1;
        self.send(Event::Begin { input, name: Arc::clone(name), resumed: resumed.map(Box::new) })?;
        Ok((input, Lines::new(offset)))
    }

    /// Feeds whole lines until there are no more for now.
    pub(crate) fn pump(
        &mut self,
        input: usize,
        source: &mut Source,
        lines: &mut Lines,
    ) -> Result<(), Interrupt> {
        while !self.stop.is_set() {
            let spare = self.spare.try_recv().unwrap_or_default();
            match lines.next(source, spare)? {
                None => return Ok(()),
                Some(block) => self.send_lines(input, block)?,
            }
        }
        Err(Interrupt::Stopped)
    }

    /// Feeds what is left of an input that has ended: its last line, where that has no newline.
    pub(crate) fn rest(&mut self, input: usize, lines: &mut Lines) -> Result<(), Interrupt> {
        lines.finish().map_or(Ok(()), |block| self.send_lines(input, block))
    }

    fn send_lines(&self, input: usize, block: Block) -> Result<(), Interrupt> {
        self.send(Event::Lines { input, block, read_at: Timestamp::now() })
    }

    /// Fails when the counting thread is gone, which happens only when everybody is to stop.
    pub(crate) fn send(&self, event: Event) -> Result<(), Interrupt> {
        self.events.send(event).map_err(|_| Interrupt::Stopped)
    }

    /// Finds out how far a content was counted, and goes there.
    fn find(&self, name: &str, source: &mut Source) -> Result<Option<Resumed>, Interrupt> {
        let file = source
            .file()
            .ok_or_else(|| UsageError::new("`--once` needs a file that can be read again, not a pipe"))?;
        // Two processes that count one file at the same time would both count what the marks do not tell yet.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(anyhow!("`{name}` is being counted by another `ingest --once`").into());
            }
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut head = Vec::new();
        source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        let (reply, answer) = mpsc::channel();
        self.send(Event::Find { head: head.clone(), reply })?;
        let mut candidates = answer.recv().map_err(|_| Interrupt::Stopped)?;
        // A content that grew has left marks of its younger days; the farthest is the newest.
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.position.offset));
        for candidate in candidates {
            let Candidate { position, place, .. } = candidate;
            if let Some(tail) = source.go_to(position.offset, candidate.tail_len())?
                && candidate.is_of(&tail)
            {
                tracing::info!(input = name, line = position.line, "going on after what was counted before");
                let identity = Identity::resume(&head, &tail, position);
                let first_line = head.split(|&b| b == b'\n').next().unwrap_or_default().to_vec();
                return Ok(Some(Resumed { position, place, identity, first_line }));
            }
        }
        source.go_to(0, 0)?;
        Ok(None)
    }
}
