//! The reading thread: feeds the lines of inputs to the counting thread.

use std::{
    fs::{File, Metadata, TryLockError},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};

use anyhow::{Error, Result, anyhow};
use jiff::Timestamp;

use crate::{
    exit::UsageError,
    ingest::{
        fingerprint::{Position, has_first_line},
        identity::{Claim, Identity, Known, LeftOut, is_rotated, read_head},
        lines::{Block, Lines},
        marks::{FileId, StoredMark, prefixes},
    },
    input::{Input, Source},
    progress::Meters,
    stop::Stop,
};

/// Time for which a file that was moved away may still be written to: its writer may not have reopened it yet.
pub(crate) const LINGER: Duration = Duration::from_secs(300);

/// Message to the counting thread. Events are handled in order.
pub(crate) enum Event {
    /// Asks for the marks whose keys begin with one of `prefixes`. Answered after everything that was fed is stored.
    FindMarks { prefixes: Vec<String>, reply: mpsc::Sender<Vec<StoredMark>> },
    /// A new input begins.
    Begin { input: usize, start: Start, claim: Option<Box<Claim>> },
    /// The next lines of an input.
    Lines { input: usize, block: Block, read_at: Timestamp },
    /// An input has no more lines.
    End { input: usize },
    /// An input cannot be read to its end.
    Failed { name: Arc<str>, error: Error },
    /// An input is left out.
    LeftOut { name: Arc<str>, why: LeftOut },
    /// An input that lagged behind is read.
    CaughtUp { name: Arc<str> },
}

/// Beginning of an input that was opened.
pub(crate) struct Start {
    pub(crate) name: Arc<str>,
    pub(crate) position: Position,
    /// The first line of the content, if reading begins behind it.
    pub(crate) first_line: Vec<u8>,
    /// The last directive of the content before the position.
    pub(crate) directive: Option<Vec<u8>>,
    /// The last line before was counted although no newline had ended it.
    pub(crate) skips_rest: bool,
}

impl Start {
    /// Returns the beginning of a content.
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            position: Position::default(),
            first_line: Vec::new(),
            directive: None,
            skips_rest: false,
        }
    }

    /// Returns the beginning at `position` of a content that begins with `head`, and seeks there.
    pub(crate) fn at(
        name: Arc<str>,
        source: &mut Source,
        head: &[u8],
        position: Position,
    ) -> io::Result<Self> {
        let has_directives = head.first() == Some(&b'#');
        let directive =
            has_directives.then(|| last_directive(source, position.offset)).transpose()?.flatten();
        let before = source.go_to(position.offset, 1)?.unwrap_or_default();
        let skips_rest = before.last().is_some_and(|&byte| byte != b'\n');
        let first_line = head.split(|&byte| byte == b'\n').next().unwrap_or_default().to_vec();
        Ok(Self { name, position, first_line, directive, skips_rest })
    }
}

/// Settings of `--once`.
#[derive(Debug, Clone)]
pub(crate) struct Once {
    /// The counters to which lines add, each with all that decides about what it counts.
    pub(crate) counters: Vec<String>,
    /// A last line without a newline is counted.
    pub(crate) counts_last_line: bool,
}

/// An input that was opened.
pub(crate) enum Begun {
    /// Its lines are read from here on. The pieces tell whether its content is still the one that was claimed.
    Reading(usize, Lines, Pieces),
    /// Its first line is not whole.
    NoLine,
    /// It is left out.
    LeftOut(LeftOut),
}

/// Pieces of a content, and their positions.
pub(crate) type Pieces = Vec<(u64, Vec<u8>)>;

/// Maximum length of a piece.
pub(crate) const PIECE: usize = 256;

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
    pub(crate) meters: Arc<Meters>,
    /// Lines that were counted before are skipped.
    pub(crate) once: Option<Once>,
    /// Lines that are there already are skipped, in files of which no mark is known.
    pub(crate) from_end: bool,
    /// Files are read on while they grow.
    pub(crate) follows: bool,
    /// Records may have several lines.
    pub(crate) joins_lines: bool,
    /// Number of inputs that were opened.
    pub(crate) inputs: usize,
    /// The paths of this run.
    pub(crate) named: Vec<PathBuf>,
}

impl Feed {
    /// Feeds `inputs` one after the other, each to its end.
    pub(crate) fn all(mut self, inputs: &[Input]) {
        self.name(inputs);
        for input in inputs {
            if let Err(Interrupt::Stopped) = self.one(input) {
                return;
            }
        }
    }

    /// Notes which files this run names.
    pub(crate) fn name(&mut self, inputs: &[Input]) {
        let path = |input: &Input| match input {
            Input::File(path) => Some(path.clone()),
            Input::Stdin => None,
        };
        self.named = inputs.iter().filter_map(path).collect();
    }

    /// Feeds one input to its end.
    pub(crate) fn one(&mut self, input: &Input) -> Result<(), Interrupt> {
        let name = input.name();
        let fed = (|| {
            let mut source = input.open(&self.meters.bytes)?;
            let counts_rest = self.counts_rest(input, &source);
            let (number, mut lines, pieces) = match self.begin(input, &mut source, counts_rest)? {
                Begun::Reading(number, lines, pieces) => (number, lines, pieces),
                Begun::NoLine => return Ok(()),
                Begun::LeftOut(why) => return self.send(Event::LeftOut { name: Arc::clone(&name), why }),
            };
            let read = self.pump(number, &mut source, &mut lines, &pieces);
            if !matches!(read, Err(Interrupt::Stopped)) {
                // The line in which reading failed may be cut, so it is not counted.
                if read.is_ok() && counts_rest {
                    check_content(&source, &pieces)?;
                    self.rest(number, &mut lines)?;
                }
                self.send(Event::End { input: number })?;
            }
            read
        })();
        self.report(&name, fed)
    }

    /// Returns whether a last line without a newline is a line: always, unless the input may still be written to.
    fn counts_rest(&self, input: &Input, source: &Source) -> bool {
        let Some(once) = &self.once else { return true };
        let is_left = || {
            let (Input::File(path), Some(file)) = (input, source.file()) else { return false };
            let idle = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let idle = idle.and_then(|modified| modified.elapsed().ok());
            idle.is_some_and(|idle| idle >= LINGER) && is_rotated(path)
        };
        once.counts_last_line || source.is_compressed() || is_left()
    }

    /// Reports the failure of one input to the counting thread.
    pub(crate) fn report(&self, name: &Arc<str>, fed: Result<(), Interrupt>) -> Result<(), Interrupt> {
        match fed {
            Err(Interrupt::Failed(error)) => self.send(Event::Failed { name: Arc::clone(name), error }),
            other => other,
        }
    }

    /// Announces an input, after seeking to the position up to which it was counted before. With `--once`, an input without a
    /// whole line waits, unless it is `finished`.
    pub(crate) fn begin(
        &mut self,
        input: &Input,
        source: &mut Source,
        is_finished: bool,
    ) -> Result<Begun, Interrupt> {
        let (mut claim, mut start, mut pieces) = (None, Start::new(input.name()), Pieces::new());
        if self.once.is_some() || self.from_end {
            let head = read_head(source)?;
            let mut position = Position::default();
            if let Some(once) = &self.once {
                if head.is_empty() || !(is_finished || has_first_line(&head)) {
                    source.go_to(0, 0)?;
                    return Ok(Begun::NoLine);
                }
                let mut found = match self.claim(input, source, &head)? {
                    Ok(claim) => claim,
                    Err(why) => return Ok(Begun::LeftOut(why)),
                };
                if self.from_end && found.is_new() {
                    found.skip_to(self.end_of_lines(source)?, source, &head, &once.counters)?;
                }
                // By its mark the next follower finds the file after a rotation, also when this one is killed before it counts.
                found.is_due |= self.follows && found.is_new();
                position = found.start(&once.counters);
                pieces = vec![(0, head[..head.len().min(PIECE)].to_vec()), found.fingerprint.end(PIECE)];
                claim = Some(Box::new(found));
            } else {
                position.offset = self.end_of_lines(source)?;
            }
            start = Start::at(input.name(), source, &head, position)?;
        }
        let number = self.inputs;
        self.inputs += 1;
        let lines = Lines::new(start.position.offset).joining(self.joins_lines);
        self.send(Event::Begin { input: number, start, claim })?;
        Ok(Begun::Reading(number, lines, pieces))
    }

    /// Returns the position behind the last whole record.
    fn end_of_lines(&self, source: &mut Source) -> io::Result<u64> {
        let end = end_of_lines(source)?;
        if !self.joins_lines {
            return Ok(end);
        }
        // Whether a newline is in quotes is known only from the beginning.
        source.go_to(0, 0)?;
        let (mut lines, mut end, mut spare) = (Lines::new(0).joining(true), 0, Vec::new());
        while let Some(block) = lines.next(source, spare)? {
            end = block.offset + block.bytes().len() as u64;
            spare = block.memory;
        }
        Ok(end)
    }

    /// Feeds whole lines until there are no more for now.
    pub(crate) fn pump(
        &mut self,
        input: usize,
        source: &mut Source,
        lines: &mut Lines,
        pieces: &Pieces,
    ) -> Result<(), Interrupt> {
        while !self.stop.is_set() {
            let spare = self.spare.try_recv().unwrap_or_default();
            let block = lines.next(source, spare)?;
            for (offset, piece) in pieces {
                if !source.still_has(*offset, piece)? {
                    let why =
                        "it was emptied or written anew while it was read; the next run counts the rest";
                    return Err(anyhow!(why).into());
                }
            }
            match block {
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

    /// Feeds a block of lines.
    pub(crate) fn send_lines(&self, input: usize, block: Block) -> Result<(), Interrupt> {
        self.send(Event::Lines { input, block, read_at: Timestamp::now() })
    }

    /// Sends an event. The counting thread is gone only after a stop.
    pub(crate) fn send(&self, event: Event) -> Result<(), Interrupt> {
        self.events.send(event).map_err(|_| Interrupt::Stopped)
    }

    /// Locks a file and finds its mark.
    fn claim(
        &self,
        input: &Input,
        source: &mut Source,
        head: &[u8],
    ) -> Result<Result<Claim, LeftOut>, Interrupt> {
        let name = input.name();
        let (Input::File(path), Some(file)) = (input, source.file()) else {
            let why = "`--once` needs a file that can be read again, not a pipe";
            return Err(UsageError::new(why).into());
        };
        let file = file.try_clone()?;
        // Two processes that count one file at the same time would both count the lines after its mark, and one would be refused.
        if !try_lock(&file) {
            // This process may have counted it under another name, and stores its counts now.
            self.find_marks(Vec::new())?;
            if !try_lock(&file) {
                return Err(anyhow!("`{name}` is being counted by another `ingest --once`").into());
            }
        }
        let marks = self.find_marks(prefixes(head))?;
        let id = FileId::new(path, &file.metadata()?);
        let identity = Identity::find(source, &id, head, &marks, &self.named)?;
        let claim = identity.into_claim(id, head, &marks, Arc::new(file));
        if claim.as_ref().is_ok_and(|claim| claim.value.undo.is_some()) {
            return Err(anyhow!(
                "the counts of `{name}` are being taken back: repeat the `ingest --undo` that was interrupted"
            )
            .into());
        }
        Ok(claim)
    }

    /// Returns the mark of the file.
    pub(crate) fn find_known(&self, input: &Input, metadata: &Metadata) -> Result<Option<Known>, Interrupt> {
        let Input::File(path) = input else { return Ok(None) };
        let mut source = input.open(&self.meters.bytes)?;
        let head = read_head(&mut source)?;
        let marks = self.find_marks(prefixes(&head))?;
        let id = FileId::new(path, metadata);
        Ok(match Identity::find(&mut source, &id, &head, &marks, &self.named)? {
            Identity::Known(known) => Some(*known),
            Identity::New | Identity::LeftOut(_) => None,
        })
    }

    /// Returns the marks whose keys begin with one of `prefixes`, after everything that was fed is stored.
    pub(crate) fn find_marks(&self, prefixes: Vec<String>) -> Result<Vec<StoredMark>, Interrupt> {
        let (reply, answer) = mpsc::channel();
        self.send(Event::FindMarks { prefixes, reply })?;
        answer.recv().map_err(|_| Interrupt::Stopped)
    }
}

/// Checks that a content is still the one that was claimed.
fn check_content(source: &Source, pieces: &Pieces) -> Result<(), Interrupt> {
    for (offset, piece) in pieces {
        if !source.still_has(*offset, piece)? {
            return Err(anyhow!("it was emptied or replaced meanwhile; the next run counts the rest").into());
        }
    }
    Ok(())
}

/// Locks a file, and returns whether no other process has locked it.
pub(crate) fn try_lock(file: &File) -> bool {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        // Some file systems have no locks.
        Ok(()) | Err(TryLockError::Error(_)) => true,
    }
}

/// Returns the last line before `end` that names the fields of the following ones.
fn last_directive(source: &mut Source, end: u64) -> io::Result<Option<Vec<u8>>> {
    source.go_to(0, 0)?;
    let mut lines = BufReader::new(source.by_ref().take(end));
    let (mut line, mut last) = (Vec::new(), None);
    while lines.read_until(b'\n', &mut line)? > 0 {
        if countem_lines::Format::names_fields(&line) {
            last = Some(std::mem::take(&mut line));
        }
        line.clear();
    }
    Ok(last)
}

/// Returns the position behind the last whole line.
fn end_of_lines(source: &mut Source) -> io::Result<u64> {
    let Some(file) = source.file().filter(|_| !source.is_compressed()) else {
        return Err(io::Error::other("`--from-end` needs a file that grows, not an archive or a pipe"));
    };
    let mut end = file.metadata()?.len();
    let mut piece = vec![0; 64 << 10];
    while end > 0 {
        let len = usize::try_from(end).unwrap_or(usize::MAX).min(piece.len());
        file.read_exact_at(&mut piece[..len], end - len as u64)?;
        if let Some(newline) = memchr::memrchr(b'\n', &piece[..len]) {
            return Ok(end - (len - newline - 1) as u64);
        }
        end -= len as u64;
    }
    Ok(0)
}
