//! Reads files that grow, through rotation.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path as FilePath, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    exit::UsageError,
    ingest::{
        feed::{Begun, Event, Feed, Interrupt, LINGER},
        identity::{Known, LeftOut, rotated},
        lines::Lines,
    },
    input::{Input, Source},
};

/// Interval at which files are polled.
const POLL: Duration = Duration::from_millis(200);

/// Time after which the last line of a file that was moved away is taken for whole, if no process has the file open.
const SETTLE: Duration = Duration::from_secs(2);

/// Interval at which an idle file that was moved away is looked for among the open files of other processes.
const OPEN_CHECK: Duration = Duration::from_secs(10);

/// Bytes of the beginning that show whether a file was emptied and written anew.
const SAMPLE: usize = 256;

/// A path, the file that it leads to, and the files that it led to before.
struct Path {
    path: PathBuf,
    name: Arc<str>,
    current: Option<Tail>,
    leaving: Vec<Tail>,
    /// Errors that were reported.
    reported: BTreeSet<String>,
}

/// One open file.
struct Tail {
    input: Input,
    /// `None` until the file has a line.
    number: Option<usize>,
    source: Source,
    lines: Lines,
    key: (u64, u64),
    sample: Vec<u8>,
    grown: Instant,
    /// The last time at which other processes were asked for the file.
    checked: Option<Instant>,
    /// The length at which the file lagged behind what was counted.
    lagging: Option<u64>,
}

impl Feed {
    /// Feeds the lines of the files `inputs`, and all lines that are added to them, until a stop is requested.
    ///
    /// A last line without a newline is still being written, and waits for its newline. It is fed when the file was
    /// emptied or replaced by another one of its name. A file that is missing is waited for.
    pub(crate) fn follow(mut self, inputs: Vec<Input>) {
        self.name(&inputs);
        let mut paths: Vec<Path> = inputs.into_iter().filter_map(Path::new).collect();
        let mut is_first_round = true;
        loop {
            for path in &mut paths {
                if is_first_round {
                    let caught_up = path.catch_up(&mut self);
                    if path.report_once(caught_up, &self).is_err() {
                        return;
                    }
                }
                let polled = path.poll(&mut self);
                let is_unusable = is_first_round && polled.is_err();
                if path.report_once(polled, &self).is_err() || is_unusable {
                    return;
                }
            }
            is_first_round = false;
            // What comes from now on is new.
            self.from_end = false;
            if self.stop.wait(POLL) {
                return;
            }
        }
    }

    /// Returns the mark of a file whose lines were counted before, at least in part.
    fn known(&self, path: &FilePath) -> Result<Option<Known>, Interrupt> {
        let input = Input::File(path.to_owned());
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => self.find_known(&input, &metadata),
            _ => Ok(None),
        }
    }
}

impl Path {
    fn new(input: Input) -> Option<Self> {
        let name = input.name();
        let Input::File(path) = input else { return None };
        Some(Self { name, path, current: None, leaving: Vec::new(), reported: BTreeSet::new() })
    }

    /// Opens the files that were rotated away since the path was counted: the newest of which lines were counted, and those
    /// that came after it.
    fn catch_up(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if feed.once.is_none()
            || feed.from_end
            || feed.known(&self.path)?.is_some_and(|known| known.is_proven())
        {
            return Ok(());
        }
        let rotated = rotated(&self.path);
        let mut missed = rotated.len();
        for (at, path) in rotated.iter().enumerate() {
            if feed.known(path)?.is_some() {
                missed = at;
            }
        }
        self.open_missed(&rotated[missed..], feed)
    }

    /// Opens files that were rotated away before they were read.
    fn open_missed(&mut self, missed: &[PathBuf], feed: &mut Feed) -> Result<(), Interrupt> {
        for path in missed {
            let input = Input::File(path.clone());
            let tail = Tail::open(input.clone(), feed)?;
            if tail.source.is_compressed() {
                feed.one(&input)?;
            } else if self.leaving.iter().all(|leaving| leaving.key != tail.key) {
                self.leaving.push(tail);
            }
        }
        Ok(())
    }

    /// Returns the files that came after the one of `key` and were rotated away, too, since the last look.
    fn missed_after(&self, key: (u64, u64)) -> Vec<PathBuf> {
        let mut rotated = rotated(&self.path);
        let key_of = |path: &PathBuf| path.metadata().ok().map(|found| self::key(&found));
        match rotated.iter().position(|path| key_of(path) == Some(key)) {
            Some(at) => rotated.split_off(at + 1),
            None => Vec::new(),
        }
    }

    /// Reads on in all files and follows the path to a new one. A file that cannot be read for now stays open for the next
    /// poll: reopened, it would be counted from its beginning.
    fn poll(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        self.read_leaving(feed)?;
        let read = self.read_current(feed);
        if let Err(Interrupt::Stopped) = read {
            return read;
        }
        // Also when the current file cannot be read: another one may have replaced it.
        let switched = self.switch_file(feed);
        read.and(switched)
    }

    fn read_leaving(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let mut at = 0;
        while let Some(tail) = self.leaving.get_mut(at) {
            let read = tail.pump(feed).and_then(|()| tail.leave(feed));
            if let Ok(true) = read {
                self.leaving.remove(at);
            } else {
                at += 1;
            }
            self.report_once(read.map(drop), feed)?;
        }
        Ok(())
    }

    fn read_current(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let Some(tail) = &mut self.current else { return Ok(()) };
        if tail.was_emptied()?
            && let Some(mut tail) = self.current.take()
        {
            // If this fails, the new content is opened from its beginning.
            tail.drop_rest(feed)?;
            tail.source.go_to(0, 0)?;
            tail.begin(feed, false)?;
            self.current = Some(tail);
        }
        self.current.as_mut().map_or(Ok(()), |tail| tail.pump(feed))
    }

    /// Switches to the file that the path leads to now.
    fn switch_file(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let found = match self.path.metadata() {
            Ok(found) => key(&found),
            // During a rotation the path may lead to no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.current.as_ref().is_some_and(|tail| tail.key == found) {
            return Ok(());
        }
        if let Some(mut moved) = self.current.take() {
            let missed = self.missed_after(moved.key);
            moved.grown = Instant::now();
            self.leaving.push(moved);
            self.open_missed(&missed, feed)?;
        }
        let mut tail = Tail::open(Input::File(self.path.clone()), feed)?;
        if tail.source.is_compressed() {
            return Err(UsageError::new("a compressed file does not grow: leave out `--follow`").into());
        }
        tail.begin(feed, false)?;
        self.current.insert(tail).pump(feed)
    }

    /// Reports an error of one file once; other files are unaffected.
    fn report_once(&mut self, polled: Result<(), Interrupt>, feed: &Feed) -> Result<(), Interrupt> {
        match polled {
            Err(Interrupt::Failed(error)) if !self.reported.insert(error.to_string()) => Ok(()),
            other => feed.report(&self.name, other),
        }
    }
}

impl Tail {
    /// Opens a file. Nothing of it is read yet.
    fn open(input: Input, feed: &Feed) -> Result<Self, Interrupt> {
        let source = input.open(&feed.meters.bytes)?;
        let file = source.file().ok_or_else(|| UsageError::new("`--follow` needs a file, not a pipe"))?;
        let key = key(&file.metadata()?);
        let (lines, sample, grown) = (Lines::new(0), Vec::new(), Instant::now());
        Ok(Self { input, number: None, source, lines, key, sample, grown, checked: None, lagging: None })
    }

    /// Begins to read the file, if it has a line.
    fn begin(&mut self, feed: &mut Feed, is_finished: bool) -> Result<(), Interrupt> {
        self.sample.clear();
        self.lines = Lines::new(0);
        self.number = None;
        let len = self.len()?;
        let name = self.input.name();
        match feed.begin(&self.input, &mut self.source, is_finished)? {
            Begun::Reading(number, lines) => {
                (self.number, self.lines) = (Some(number), lines);
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

    fn pump(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
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
                feed.send(Event::End { input: number })?;
                self.source.go_to(0, 0)?;
                return self.begin(feed, false);
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
    fn drop_rest(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if self.lines.has_rest() {
            tracing::warn!(input = &*self.input.name(), "half a line was cut off when the file was emptied");
        }
        self.number.map_or(Ok(()), |number| feed.send(Event::End { input: number }))
    }

    /// Feeds the last line, which has no newline.
    fn finish_line(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        if self.number.is_none() {
            self.source.go_to(0, 0)?;
            self.begin(feed, true)?;
            if let Some(number) = self.number {
                feed.pump(number, &mut self.source, &mut self.lines)?;
            }
        }
        self.number.map_or(Ok(()), |number| feed.rest(number, &mut self.lines))
    }

    /// Ends a file that was moved away, in two steps. Its last line is whole once no process can be writing it; the file itself
    /// is left when it was idle for long, and no process has it open. Returns whether it is left.
    fn leave(&mut self, feed: &mut Feed) -> Result<bool, Interrupt> {
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
    fn was_emptied(&self) -> io::Result<bool> {
        let len =
            self.source.file().map_or(Ok(u64::MAX), |file| file.metadata().map(|metadata| metadata.len()))?;
        Ok(len < self.lines.seen() || self.differs(&self.lines.recent())?)
    }

    /// Returns whether the file differs from what was read of it at the beginning, or from the bytes `recent` at their position.
    fn differs(&self, recent: &(u64, Vec<u8>)) -> io::Result<bool> {
        let Some(file) = self.source.file() else { return Ok(false) };
        for (offset, expected) in [(0, &self.sample), (recent.0, &recent.1)] {
            let mut found = [0; SAMPLE];
            let len = file.read_at(&mut found[..expected.len()], offset)?;
            // A hole may be filled.
            let is_alike = |(found, expected): (&u8, &u8)| found == expected || *expected == 0;
            if len < expected.len() || !found.iter().zip(expected).all(is_alike) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers the beginning of the file before more of it is read.
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

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;
    use crate::stop::Stop;

    /// Returns a feed and the receiver of its events.
    fn feed() -> (Feed, mpsc::Receiver<Event>) {
        let (events, fed) = mpsc::sync_channel(100);
        let (_, spare) = mpsc::channel();
        let stop = Arc::new(Stop::default());
        (
            Feed {
                events,
                spare,
                stop,
                meters: Arc::default(),
                once: None,
                from_end: false,
                follows: true,
                joins_lines: false,
                inputs: 0,
                named: Vec::new(),
            },
            fed,
        )
    }

    /// Polls once, and returns the lines that were fed and the number of errors that were reported.
    fn poll(path: &mut Path, feed: &mut Feed, fed: &mpsc::Receiver<Event>) -> (String, usize) {
        let polled = path.poll(feed);
        assert!(path.report_once(polled, feed).is_ok());
        let (mut text, mut errors) = (String::new(), 0);
        for event in fed.try_iter() {
            match event {
                Event::Lines { block, .. } => text += str::from_utf8(block.bytes()).unwrap(),
                Event::Failed { .. } => errors += 1,
                _ => {}
            }
        }
        (text, errors)
    }

    #[test]
    fn unreadable_file_is_read_on_and_not_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let append = |name, text: &str| {
            let mut content = fs::read(file(name)).unwrap_or_default();
            content.extend_from_slice(text.as_bytes());
            fs::write(file(name), content).unwrap();
        };
        let (mut feed, fed) = feed();
        let mut path = Path::new(Input::File(file("log"))).unwrap();
        append("log", "one\n");
        let mut poll = |path: &mut Path| poll(path, &mut feed, &fed);
        assert_eq!(poll(&mut path), ("one\n".into(), 0));

        append("log", "two\n");
        path.current.as_mut().unwrap().source.fail(2);
        assert_eq!(poll(&mut path), (String::new(), 1), "reported");
        assert_eq!(poll(&mut path), (String::new(), 0), "only once");
        assert_eq!(poll(&mut path), ("two\n".into(), 0));

        // Another file replaces the unreadable one, which is still read on.
        append("log", "three\n");
        path.current.as_mut().unwrap().source.fail(3);
        fs::rename(file("log"), file("log.1")).unwrap();
        append("log", "four\n");
        assert_eq!(poll(&mut path), ("four\n".into(), 0));
        append("log", "five\n");
        assert_eq!(poll(&mut path), ("five\n".into(), 0), "the new file is read meanwhile");
        assert_eq!(poll(&mut path), (String::new(), 0));
        assert_eq!(poll(&mut path), ("three\n".into(), 0));
    }
}
