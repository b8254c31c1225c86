//! One open file that grows.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    exit::UsageError,
    ingest::{
        feed::{Begun, Event, Feed, Interrupt, LINGER, PIECE, Pieces},
        identity::LeftOut,
        lines::Lines,
    },
    input::{Input, Source},
};

/// Time after which the last line of a file that was moved away is taken for whole, if no process has the file open.
const SETTLE: Duration = Duration::from_secs(2);

/// Interval at which an idle file that was moved away is looked for among the open files of other processes.
const OPEN_CHECK: Duration = Duration::from_secs(10);

/// One open file.
pub(super) struct Tail {
    input: Input,
    /// `None` until the file has a line.
    number: Option<usize>,
    pub(super) source: Source,
    lines: Lines,
    pub(super) key: (u64, u64),
    /// The beginning, and what stood before the mark when the content was claimed.
    pieces: Pieces,
    pub(super) grown: Instant,
    /// The last time at which other processes were asked for the file.
    checked: Option<Instant>,
    /// The length at which the file lagged behind what was counted.
    lagging: Option<u64>,
    /// The file was emptied, and a copy may have lines that were not read.
    pub(super) is_emptied: bool,
}

impl Tail {
    /// Opens a file. Nothing of it is read yet.
    pub(super) fn open(input: Input, feed: &Feed) -> Result<Self, Interrupt> {
        let source = input.open(&feed.meters.bytes)?;
        let file = source.file().ok_or_else(|| UsageError::new("`--follow` needs a file, not a pipe"))?;
        let key = key(&file.metadata()?);
        let (lines, pieces, grown) = (Lines::new(0), Pieces::new(), Instant::now());
        Ok(Self {
            input,
            number: None,
            source,
            lines,
            key,
            pieces,
            grown,
            checked: None,
            lagging: None,
            is_emptied: false,
        })
    }

    /// Begins to read the file, if it has a line.
    pub(super) fn begin(&mut self, feed: &mut Feed, is_finished: bool) -> Result<(), Interrupt> {
        self.pieces.clear();
        self.lines = Lines::new(0);
        self.number = None;
        let len = self.len()?;
        let name = self.input.name();
        match feed.begin(&self.input, &mut self.source, is_finished)? {
            Begun::Reading(number, lines, pieces) => {
                (self.number, self.lines, self.pieces) = (Some(number), lines, pieces);
                if self.lagging.take().is_some() {
                    feed.send(Event::CaughtUp { name })?;
                }
            }
            Begun::LeftOut(why @ LeftOut::Lagging) => {
                if self.lagging.replace(len).is_none() {
                    tracing::warn!(
                        input = &*name,
                        "not counted until it is longer than what was counted of it"
                    );
                    feed.send(Event::LeftOut { name, why })?;
                }
            }
            Begun::LeftOut(LeftOut::Copy) | Begun::NoLine => {}
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.source.file().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))
    }

    pub(super) fn pump(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if self.number.is_none() {
            if self.lagging == Some(self.len()?) {
                return Ok(());
            }
            self.source.go_to(0, 0)?;
            self.begin(feed, false)?;
        }
        let Some(number) = self.number else { return Ok(()) };
        self.take_sample()?;
        while !feed.stop.is_set() {
            let (before, recent) = (self.lines.seen(), self.lines.recent());
            let spare = feed.spare.try_recv().unwrap_or_default();
            let block = self.lines.next(&mut self.source, spare)?;
            if self.lines.seen() > before {
                self.grown = Instant::now();
            }
            // What was read may be of a new content, which has grown beyond the old one since the last look.
            if self.differs(&recent)? {
                self.is_emptied = true;
                feed.send(Event::End { input: number })?;
                self.source.go_to(0, 0)?;
                self.begin(feed, false)?;
                return if self.number.is_some() { self.pump(feed) } else { Ok(()) };
            }
            let behind = self.len()?.saturating_sub(self.lines.seen());
            match block {
                // The beginning of a line waits for its end.
                None => feed.meters.behind.store(0, Ordering::Relaxed),
                Some(_) => feed.meters.behind.store(behind, Ordering::Relaxed),
            }
            match block {
                None => return Ok(()),
                Some(block) => feed.send_lines(number, block)?,
            }
        }
        Err(Interrupt::Stopped)
    }

    /// Feeds the rest of a file that is not read any more.
    fn end(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        self.finish_line(feed)?;
        self.number.map_or(Ok(()), |number| feed.send(Event::End { input: number }))
    }

    /// Leaves the content of a file that was emptied. Half a line at its end is none: the rest is in a copy, or lost.
    pub(super) fn drop_rest(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if self.lines.has_rest() {
            tracing::warn!(input = &*self.input.name(), "half a line was cut off when the file was emptied");
        }
        self.is_emptied = true;
        self.number.map_or(Ok(()), |number| feed.send(Event::End { input: number }))
    }

    /// Feeds the last line, which has no newline.
    fn finish_line(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if self.number.is_none() {
            self.source.go_to(0, 0)?;
            self.begin(feed, true)?;
            if let Some(number) = self.number {
                feed.pump(number, &mut self.source, &mut self.lines, &self.pieces)?;
            }
        }
        self.number.map_or(Ok(()), |number| feed.rest(number, &mut self.lines))
    }

    /// Ends a file that was moved away, in two steps. Its last line is whole once no process can be writing it; the file itself
    /// is left when it was idle for long, and no process has it open. Returns whether it is left.
    pub(super) fn leave(&mut self, feed: &mut Feed) -> Result<bool, Interrupt> {
        let idle = self.grown.elapsed();
        if idle < SETTLE || self.checked.is_some_and(|checked| checked.elapsed() < OPEN_CHECK) {
            return Ok(false);
        }
        let has_rest = self.source.file().is_some_and(|file| {
            file.metadata().is_ok_and(|metadata| self.number.is_none() && metadata.len() > 0)
        }) || self.lines.has_rest();
        if !has_rest && idle < LINGER {
            return Ok(false);
        }
        self.checked = Some(Instant::now());
        let is_open = is_open_elsewhere(self.key);
        if idle >= LINGER && is_open != Some(true) {
            return self.end(feed).map(|()| true);
        }
        if is_open == Some(false) {
            self.finish_line(feed)?;
        }
        Ok(false)
    }

    /// Returns whether the file is shorter than what was read of it, or differs from it at the beginning or the end.
    pub(super) fn was_emptied(&self) -> io::Result<bool> {
        let len =
            self.source.file().map_or(Ok(u64::MAX), |file| file.metadata().map(|metadata| metadata.len()))?;
        Ok(len < self.lines.seen() || self.differs(&self.lines.recent())?)
    }

    /// Returns whether the file differs from what was read of it at the beginning, or from the bytes `recent` at their position.
    fn differs(&self, recent: &(u64, Vec<u8>)) -> io::Result<bool> {
        for (offset, expected) in self.pieces.iter().chain([recent]) {
            if !self.source.still_has(*offset, expected)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers the beginning of the file before more of it is read.
    fn take_sample(&mut self) -> io::Result<()> {
        let known = self.pieces.first().map_or(0, |(_, sample)| sample.len());
        if known == PIECE {
            return Ok(());
        }
        let sample = self.source.bytes_at(0, PIECE)?;
        match self.pieces.first_mut() {
            Some((_, known)) if sample.starts_with(known) => *known = sample,
            Some(_) => {}
            None => self.pieces.push((0, sample)),
        }
        Ok(())
    }
}

pub(super) fn key(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Returns whether another process has the file open, `None` if this user may not see that of every process.
fn is_open_elsewhere(file: (u64, u64)) -> Option<bool> {
    let own = std::process::id().to_string();
    let mut sees_all = true;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        if !name.to_str().is_some_and(|name| name != own && name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        match fs::read_dir(process.path().join("fd")) {
            Ok(mut open) => {
                let is_it = |path: PathBuf| path.metadata().is_ok_and(|metadata| key(&metadata) == file);
                if open.any(|descriptor| descriptor.is_ok_and(|descriptor| is_it(descriptor.path()))) {
                    return Some(true);
                }
            }
            // The process may have ended.
            Err(error) => sees_all &= error.kind() == io::ErrorKind::NotFound,
        }
    }
    sees_all.then_some(false)
}
