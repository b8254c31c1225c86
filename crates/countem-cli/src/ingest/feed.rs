//! The reading thread: feeds the lines of inputs to the counting thread.

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
        fingerprint::{Fingerprint, FoundMark, HEAD, MarkKey, Position},
        input::{Input, Source},
        lines::{Block, Lines},
    },
    stop::Stop,
};

/// Message to the counting thread. Events are handled in order.
pub(crate) enum Event {
    /// Asks for the marks of contents that begin with `head`. Answered after everything that was fed is stored.
    FindMarks { head: Vec<u8>, reply: mpsc::Sender<Vec<FoundMark>> },
    /// A new input begins.
    Begin { input: usize, name: Arc<str>, resumed: Option<Box<Resumed>> },
    /// The next lines of an input.
    Lines { input: usize, block: Block, read_at: Timestamp },
    /// An input has no more lines.
    End { input: usize },
    /// An input cannot be read to its end.
    Failed { name: Arc<str>, error: Error },
}

/// State of a content that was counted in part, from which counting continues.
#[derive(Debug, Clone)]
pub(crate) struct Resumed {
    pub(crate) position: Position,
    pub(crate) key: MarkKey,
    pub(crate) fingerprint: Fingerprint,
    /// The first line of the content.
    pub(crate) first_line: Vec<u8>,
}

/// Reason for which an input was not fed to its end.
pub(crate) enum Interrupt {
    /// A stop was requested.
    Stopped,
    /// The input cannot be read.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Interrupt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Sender of events to the counting thread.
pub(crate) struct Feed {
    pub(crate) events: SyncSender<Event>,
    /// Memory of counted blocks, to be filled again.
    pub(crate) spare: Receiver<Vec<u8>>,
    pub(crate) stop: Arc<Stop>,
    /// Bytes that were read from the disk, before decompression.
    pub(crate) meter: Arc<AtomicU64>,
    /// Contents that were counted before are skipped.
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

    /// Reports the failure of one input to the counting thread.
    pub(crate) fn report(&self, name: &Arc<str>, fed: Result<(), Interrupt>) -> Result<(), Interrupt> {
        match fed {
            Err(Interrupt::Failed(error)) => self.send(Event::Failed { name: Arc::clone(name), error }),
            other => other,
        }
    }

    /// Announces an input, after seeking to the position up to which it was counted before.
    pub(crate) fn begin(
        &mut self,
        name: &Arc<str>,
        source: &mut Source,
    ) -> Result<(usize, Lines), Interrupt> {
        let resumed = if self.is_once { self.resume(name, source)? } else { None };
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

    /// Feeds the last line of an input that has ended without a newline.
    pub(crate) fn rest(&mut self, input: usize, lines: &mut Lines) -> Result<(), Interrupt> {
        lines.finish().map_or(Ok(()), |block| self.send_lines(input, block))
    }

    fn send_lines(&self, input: usize, block: Block) -> Result<(), Interrupt> {
        self.send(Event::Lines { input, block, read_at: Timestamp::now() })
    }

    /// Sends an event. The counting thread is gone only after a stop.
    pub(crate) fn send(&self, event: Event) -> Result<(), Interrupt> {
        self.events.send(event).map_err(|_| Interrupt::Stopped)
    }

    /// Seeks to the position up to which a content was counted, `None` for a new content.
    fn resume(&self, name: &str, source: &mut Source) -> Result<Option<Resumed>, Interrupt> {
        let file = source
            .file()
            .ok_or_else(|| UsageError::new("`--once` needs a file that can be read again, not a pipe"))?;
        // Two processes that count one file at the same time would both count the lines after its mark.
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
        self.send(Event::FindMarks { head: head.clone(), reply })?;
        let mut marks = answer.recv().map_err(|_| Interrupt::Stopped)?;
        // A content that grew has left shorter marks; the farthest is the newest.
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.position.offset));
        for mark in marks {
            let FoundMark { position, key, .. } = mark;
            if let Some(tail) = source.go_to(position.offset, mark.tail_len())?
                && mark.is_of(&tail)
            {
                tracing::info!(
                    input = name,
                    line = position.line,
                    "continuing after the lines that were counted before"
                );
                let fingerprint = Fingerprint::resume(&head, &tail, position);
                let first_line = head.split(|&b| b == b'\n').next().unwrap_or_default().to_vec();
                return Ok(Some(Resumed { position, key, fingerprint, first_line }));
            }
        }
        source.go_to(0, 0)?;
        Ok(None)
    }
}
