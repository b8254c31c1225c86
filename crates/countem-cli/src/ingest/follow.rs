//! Reads files that grow, through rotation.

mod tail;

use std::{
    collections::BTreeSet,
    io,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use self::tail::{Tail, key};
use crate::{
    exit::UsageError,
    ingest::{
        feed::{Feed, Interrupt},
        identity::{Known, leads_to, rotated},
        marks::{FileId, all_prefixes},
    },
    input::Input,
};

/// Interval at which files are polled.
const POLL: Duration = Duration::from_millis(200);

/// A path, the file that it leads to, and the files that it led to before.
struct Path {
    path: PathBuf,
    name: Arc<str>,
    current: Option<Tail>,
    leaving: Vec<Tail>,
    /// Errors that were reported.
    reported: BTreeSet<String>,
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

    /// Opens the files that were rotated away since the path was counted.
    fn catch_up(&mut self, feed: &mut Feed) -> Result<(), Interrupt> {
        let is_known = |known: Known| known.is_proven();
        if feed.once.is_none() || feed.from_end || feed.known(&self.path)?.is_some_and(is_known) {
            return Ok(());
        }
        let rotated = rotated(&self.path);
        let missed = match self.counted_in_part(&rotated, feed)? {
            Some(at) => &rotated[at..],
            None => self.after_the_lost(&rotated, feed)?,
        };
        self.open_missed(missed, feed)
    }

    /// Returns the position of the newest of the `rotated` files of which lines were counted.
    fn counted_in_part(&self, rotated: &[PathBuf], feed: &Feed) -> Result<Option<usize>, Interrupt> {
        let mut found = None;
        for (at, path) in rotated.iter().enumerate() {
            if feed.known(path)?.is_some() {
                found = Some(at);
            }
        }
        Ok(found)
    }

    /// Returns those of the `rotated` files that came after the one that was followed under this path, which is gone.
    fn after_the_lost<'a>(&self, rotated: &'a [PathBuf], feed: &Feed) -> Result<&'a [PathBuf], Interrupt> {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let marks = if rotated.is_empty() { Vec::new() } else { feed.find_marks(all_prefixes())? };
        let files = marks.iter().map(|mark| &mark.value.file);
        let lost = files.filter(|file| file.path == path && !leads_to(&path, file));
        let Some(since) = lost.filter_map(FileId::born).max() else { return Ok(&[]) };
        let is_newer =
            |path: &PathBuf| path.metadata().and_then(|file| file.modified()).is_ok_and(|at| at > since);
        let first = rotated.iter().position(is_newer).unwrap_or(rotated.len());
        tracing::warn!(
            input = &*self.name,
            files = rotated.len() - first,
            "the file that was followed is gone, and with it what was not counted; rotated files after it are counted"
        );
        Ok(&rotated[first..])
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
        let key_of = |path: &PathBuf| path.metadata().ok().map(|found| tail::key(&found));
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
        let Some(tail) = &mut self.current else { return Ok(()) };
        let read = tail.pump(feed);
        let has_left = std::mem::take(&mut tail.is_emptied);
        if !has_left || feed.once.is_none() {
            return read;
        }
        // The copy that was made of it, if there is one.
        let rotated = rotated(&self.path);
        let found = match self.counted_in_part(&rotated, feed) {
            Ok(at) => self.open_missed(at.map_or(&[], |at| &rotated[at..]), feed),
            Err(error) => Err(error),
        };
        read.and(found)
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

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;
    use crate::{
        ingest::{
            feed::{Event, Once},
            marks::group,
        },
        stop::Stop,
    };

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

    #[test]
    fn content_replaced_while_claimed_is_claimed_anew() {
        for follows in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let log = folder.path().join("log");
            fs::write(&log, "old\n").unwrap();
            let (mut feed, fed) = feed();
            feed.once = Some(Once { counters: vec!["c".to_owned()], counts_last_line: false });
            feed.follows = follows;
            let reading = std::thread::spawn({
                let log = log.clone();
                move || match follows {
                    true => {
                        let mut path = Path::new(Input::File(log)).unwrap();
                        (0..2).for_each(|_| assert!(path.poll(&mut feed).is_ok()));
                    }
                    false => assert!(feed.one(&Input::File(log)).is_ok()),
                }
            });
            let (mut claimed, mut counted, mut failed) = (Vec::new(), Vec::new(), false);
            for event in fed {
                match event {
                    Event::FindMarks { prefixes, reply } => {
                        // Emptied and written anew, when its beginning has been read.
                        let is_old = prefixes.contains(&group(b"old\n"));
                        fs::write(
                            &log,
                            if is_old { "new one\nnew two\n" } else { "new one\nnew two\nlast\n" },
                        )
                        .unwrap();
                        reply.send(Vec::new()).unwrap();
                    }
                    Event::Begin { claim, .. } => claimed.push(claim.unwrap().key),
                    Event::Lines { block, .. } => counted.extend_from_slice(block.bytes()),
                    Event::Failed { .. } => failed = true,
                    _ => {}
                }
            }
            reading.join().unwrap();
            assert_eq!(failed, !follows);
            if follows {
                assert!(claimed.last().unwrap().starts_with(&group(b"new one\n")), "{claimed:?}");
            }
            let expected = if follows { "new one\nnew two\nlast\n" } else { "" };
            assert_eq!(str::from_utf8(&counted).unwrap(), expected);
        }
    }
}
