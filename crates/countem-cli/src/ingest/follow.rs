//! Keeps reading files that grow, through rotation.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    exit::UsageError,
    ingest::{
        feed::{Event, Feed, Interrupt},
        input::{Input, Source},
        lines::Lines,
    },
};

/// How often files are looked at.
const POLL: Duration = Duration::from_millis(200);

/// How long a file that was moved away is still read after it last grew: its writer may not have noticed yet.
const LINGER: Duration = Duration::from_secs(2);

/// How much of the beginning shows that a file was emptied and written anew.
const SAMPLE: usize = 256;

/// One path, the file that it leads to, and those that it led to before.
struct Path {
    input: Input,
    path: PathBuf,
    name: Arc<str>,
    current: Option<Tail>,
    leaving: Vec<Tail>,
    /// What was last wrong, so that it is reported once and not at every look.
    trouble: String,
}

/// One open file.
struct Tail {
    number: usize,
    source: Source,
    lines: Lines,
    key: (u64, u64),
    sample: Vec<u8>,
    grown: Instant,
}

impl Feed {
    /// Feeds what is in the files that are `inputs` and whatever is added to them, until everybody is to stop.
    ///
    /// A last line without a newline is still being written, and waits for it. When a file was replaced by another one
    /// of its name, or emptied, what is left of it is fed.
    pub(crate) fn follow(mut self, inputs: Vec<Input>) {
        let mut paths: Vec<Path> = inputs.into_iter().filter_map(Path::new).collect();
        let mut is_first_round = true;
        loop {
            for path in &mut paths {
                if let Err(interrupt) = path.poll(&mut self) {
                    let goes_on = path.suffer(interrupt, &self).is_ok();
                    if !goes_on || is_first_round {
                        return;
                    }
                }
            }
            is_first_round = false;
            if self.stop.wait(POLL) {
                return;
            }
        }
    }
}

impl Path {
    fn new(input: Input) -> Option<Self> {
        let Input::File(path) = &input else { return None };
        let (name, path) = (input.name(), path.clone());
        Some(Self { name, input, path, current: None, leaving: Vec::new(), trouble: String::new() })
    }

    fn poll(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let mut at = 0;
        while let Some(tail) = self.leaving.get_mut(at) {
            let is_over = tail.grown.elapsed() >= LINGER;
            match tail.pump(feed) {
                Ok(()) if is_over && tail.grown.elapsed() >= LINGER => self.leaving.remove(at).end(feed)?,
                Ok(()) => at += 1,
                Err(interrupt) => {
                    self.leaving.remove(at);
                    return Err(interrupt);
                }
            }
        }
        if let Some(tail) = &mut self.current {
            if tail.was_emptied()? {
                tail.end(feed)?;
                tail.source.go_to(0, 0)?;
                tail.begin(feed, &self.name)?;
            }
            tail.pump(feed)?;
        }
        let found = match self.path.metadata() {
            Ok(found) => key(&found),
            // Between being moved away and being made anew a log has no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.current.as_ref().is_some_and(|tail| tail.key == found) {
            return Ok(());
        }
        if let Some(mut moved) = self.current.take() {
            moved.grown = Instant::now();
            self.leaving.push(moved);
        }
        self.open(feed)
    }

    /// Gives the file up: what is wrong with it does not concern the others, and a new one may take its place.
    fn suffer(&mut self, interrupt: Interrupt, feed: &Feed) -> Result<(), Interrupt> {
        self.current = None;
        match interrupt {
            Interrupt::Failed(error) if error.to_string() == self.trouble => Ok(()),
            Interrupt::Failed(error) => {
                self.trouble = error.to_string();
                feed.report(&self.name, Err(Interrupt::Failed(error)))
            }
            Interrupt::Stopped => Err(Interrupt::Stopped),
        }
    }

    fn open(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let source = self.input.open(&feed.meter)?;
        if source.is_compressed() {
            return Err(UsageError::new("a compressed file does not grow: leave out `--follow`").into());
        }
        let file = source.file().ok_or_else(|| UsageError::new("`--follow` needs a file, not a pipe"))?;
        let key = key(&file.metadata()?);
        let lines = Lines::new(0);
        let mut tail = Tail { number: 0, source, lines, key, sample: Vec::new(), grown: Instant::now() };
        tail.begin(feed, &self.name)?;
        let tail = self.current.insert(tail);
        tail.pump(feed)
    }
}

impl Tail {
    fn begin(&mut self, feed: &mut Feed, name: &Arc<str>) -> Result<(), Interrupt> {
        self.sample.clear();
        (self.number, self.lines) = feed.begin(name, &mut self.source)?;
        Ok(())
    }

    fn pump(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let before = self.lines.seen();
        self.take_sample()?;
        let pumped = feed.pump(self.number, &mut self.source, &mut self.lines);
        if self.lines.seen() > before {
            self.grown = Instant::now();
        }
        pumped
    }

    /// Feeds what is left of a file that has ended.
    fn end(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        feed.rest(self.number, &mut self.lines)?;
        feed.send(Event::End { input: self.number })
    }

    /// Tells whether the file is shorter than what was read of it, or begins otherwise.
    fn was_emptied(&self) -> io::Result<bool> {
        let Some(file) = self.source.file() else { return Ok(false) };
        if file.metadata()?.len() < self.lines.seen() {
            return Ok(true);
        }
        let mut sample = [0; SAMPLE];
        let len = file.read_at(&mut sample[..self.sample.len()], 0)?;
        Ok(sample[..len] != self.sample)
    }

    /// Remembers how the file begins, before more of it is read.
    fn take_sample(&mut self) -> io::Result<()> {
        if let Some(file) = self.source.file().filter(|_| self.sample.len() < SAMPLE) {
            let mut sample = [0; SAMPLE];
            let len = file.read_at(&mut sample, 0)?;
            if sample[..len].starts_with(&self.sample) {
                self.sample = sample[..len].to_vec();
            }
        }
        Ok(())
    }
}

fn key(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
