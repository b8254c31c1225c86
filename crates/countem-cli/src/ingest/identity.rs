//! The rule of `--once` for which file is which.
//!
//! A mark says: the lines up to here were counted, in a content that begins like this. A file has a mark if its content begins
//! with all that the mark covers, wherever it was moved or copied, unless the file that the mark was set for is still there,
//! in the same folder or named in the same run, and has that content, too: then they are two files that begin alike. Two
//! exceptions: a compressed file is a copy of one that begins with its content, and so is a file with the name of a rotated
//! one (`log.1`) whose whole content is the beginning of the present one (`log`), as while `copytruncate` works.
//!
//! A file that is shorter than what a mark covers, and equal to it at every step that it reaches, may be a copy that lags behind.
//! It is left out, unless the mark was set for this very file, which was emptied then, or the content of the mark is in another
//! file beside it or in the run.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{DirEntryExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;

use crate::{
    ingest::{
        added::Added,
        fingerprint::{Fingerprint, HEAD, Position, Step, head_len, hex, tail_len},
        marks::{FileId, MarkValue, StoredMark, free_key, group},
    },
    input::{Input, Source},
};

/// The mark that goes with the lines of a file.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) key: String,
    /// The value in the store, `None` when the mark is new.
    pub(crate) stored: Option<String>,
    pub(crate) value: MarkValue,
    pub(crate) fingerprint: Fingerprint,
    /// The mark is to be set even if no line is counted: it was another file's.
    pub(crate) is_due: bool,
    /// Keeps other processes from counting the file until its counts are stored.
    pub(crate) lock: Arc<File>,
}

/// Relation of a file to the marks in the store.
#[derive(Debug)]
pub(crate) enum Identity {
    /// The file has this mark.
    Known(Box<Known>),
    /// No mark is of this file.
    New,
    /// The file is left out.
    LeftOut(LeftOut),
}

/// Reason for which a file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// It is a copy in the making of another file.
    Copy,
    /// It may be a copy of a longer file that was counted.
    Lagging,
}

/// A mark that a file has.
#[derive(Debug)]
pub(crate) struct Known {
    mark: StoredMark,
    /// The bytes before the mark's position.
    tail: Vec<u8>,
    is_due: bool,
}

impl Identity {
    /// Finds the mark of the file `id`, whose content begins with `head`. `named` are the paths of this run.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn find(
        source: &mut Source,
        id: &FileId,
        head: &[u8],
        marks: &[StoredMark],
        named: &[PathBuf],
    ) -> io::Result<Self> {
        let mut found = agreeing(source, head, marks)?;
        // Several marks may be of beginnings of the content; the farthest is the newest.
        found.sort_by_key(|(mark, _)| {
            (!mark.value.file.is_same(id), Reverse(mark.value.position), mark.is_old())
        });
        let is_own = |mark: &StoredMark| mark.value.file.is_same(id);
        let is_known = found.first().is_some_and(|(mark, _)| is_own(mark));
        if !is_known && !source.is_compressed() {
            for path in rotated_from(&id.path) {
                if begins_like(source, id, &path)? {
                    return Ok(Self::LeftOut(LeftOut::Copy));
                }
            }
        }
        let mut known = None;
        for (mark, tail) in found {
            let there = if is_own(mark) { None } else { where_it_is(mark, id, named) };
            let is_copy = match &there {
                Some(path) => source.is_compressed() && is_beginning_of(source, path)?,
                None => false,
            };
            if there.is_none() || is_copy {
                let is_due = !is_own(mark) && !is_copy;
                known = Some(Known { mark: mark.clone(), tail, is_due });
                break;
            }
        }
        let counted = known.as_ref().map_or(0, |known| known.mark.value.position.offset);
        if !marks.iter().any(is_own) {
            for mark in marks.iter().filter(|mark| mark.value.position.offset > counted) {
                if lags_behind(source, id, mark, named)? {
                    return Ok(Self::LeftOut(LeftOut::Lagging));
                }
            }
        }
        Ok(known.map_or(Self::New, |known| Self::Known(Box::new(known))))
    }

    /// Returns the claim on the mark for the file `id`. `marks` are those that were searched.
    pub(crate) fn into_claim(
        self,
        id: FileId,
        head: &[u8],
        marks: &[StoredMark],
        lock: Arc<File>,
    ) -> Result<Claim, LeftOut> {
        match self {
            Self::LeftOut(why) => Err(why),
            Self::New => Ok(Claim {
                key: free_key(head, marks),
                stored: None,
                value: MarkValue { file: id, sums: Fingerprint::default().sums(), ..MarkValue::default() },
                fingerprint: Fingerprint::default(),
                is_due: false,
                lock,
            }),
            Self::Known(known) => {
                let Known { mark, tail, is_due } = *known;
                // The mark of an earlier countem stays, and a new one takes its place.
                let (key, stored) = match mark.is_old() {
                    true => (free_key(head, marks), None),
                    false => (mark.key, Some(mark.text)),
                };
                let steps = mark.value.sums.steps.clone();
                let fingerprint = Fingerprint::resume(head, &tail, mark.value.position.offset, steps);
                let is_due = is_due && stored.is_some();
                let value = MarkValue { file: id, ..mark.value };
                Ok(Claim { key, stored, value, fingerprint, is_due, lock })
            }
        }
    }
}

impl Known {
    /// Returns whether the file is the one of the mark, or has content that was counted.
    pub(crate) fn is_proven(&self) -> bool {
        !self.is_due || self.mark.value.position.offset > 0
    }
}

impl Claim {
    /// Returns the position from which a line counts for one of `counters`.
    pub(crate) fn start(&self, counters: &[String]) -> Position {
        counters.iter().map(|counter| self.value.of(counter)).min().unwrap_or_default()
    }

    /// Returns whether nothing of the content was ever counted.
    pub(crate) fn is_new(&self) -> bool {
        self.stored.is_none() && self.value.position == Position::default()
    }

    /// Takes the content before `offset` for counted by `counters`.
    pub(crate) fn skip_to(
        &mut self,
        offset: u64,
        source: &mut Source,
        head: &[u8],
        counters: &[String],
    ) -> io::Result<()> {
        let tail = source.go_to(offset, tail_len(offset))?.unwrap_or_default();
        let position = Position { offset, line: 0 };
        let mut begin = Fingerprint::default();
        begin.advance(0, &head[..head.len().min(head_len(offset))]);
        self.fingerprint = Fingerprint::resume(head, &tail, offset, begin.sums().steps);
        self.value.position = position;
        self.value.sums = self.fingerprint.sums();
        self.value.counted = counters.iter().map(|counter| (counter.clone(), position)).collect();
        let added = Added { from: offset, sum: 0 };
        self.value.added = counters.iter().map(|counter| (counter.clone(), added)).collect();
        self.is_due = true;
        Ok(())
    }
}

/// Returns the marks that the content of `source` begins with, each with the bytes before its position.
pub(crate) fn agreeing<'a>(
    source: &mut Source,
    head: &[u8],
    marks: &'a [StoredMark],
) -> io::Result<Vec<(&'a StoredMark, Vec<u8>)>> {
    let mut heads: HashMap<usize, String> = HashMap::new();
    let (mut found, group) = (Vec::new(), group(head));
    for mark in marks.iter().filter(|mark| mark.is_old() || mark.key.starts_with(&group)) {
        let offset = mark.value.position.offset;
        let Some(covered) = head.get(..head_len(offset)) else { continue };
        if *heads.entry(covered.len()).or_insert_with(|| hex(covered)) != mark.value.sums.head {
            continue;
        }
        if let Some(tail) = source.go_to(offset, tail_len(offset))?
            && hex(&tail) == mark.value.sums.tail
        {
            found.push((mark, tail));
        }
    }
    Ok(found)
}

/// Reads the beginning of a content that was just opened.
pub(crate) fn read_head(source: &mut Source) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Returns the path of the file that a mark was set for, if it is still there beside the file `id`, uncompressed and with the
/// content of the mark.
fn where_it_is(mark: &StoredMark, id: &FileId, named: &[PathBuf]) -> Option<PathBuf> {
    let file = &mark.value.file;
    // A path may lead to another file than it did when it was named.
    let in_run = named.iter().find(|path| leads_to(path, file)).cloned();
    let path = in_run.or_else(|| locate(file, id))?;
    holds(&path, mark, false).then_some(path)
}

/// Returns whether the file `id` may be a copy of the longer content of `mark` that lags behind.
pub(crate) fn lags_behind(
    source: &mut Source,
    id: &FileId,
    mark: &StoredMark,
    named: &[PathBuf],
) -> io::Result<bool> {
    for Step(offset, expected) in &mark.value.sums.steps {
        match source.go_to(*offset, tail_len(*offset))? {
            Some(tail) if hex(&tail) != *expected => return Ok(false),
            Some(_) => {}
            None => break,
        }
    }
    // A file that reaches the mark was compared with all of it.
    if mark.is_old() || source.go_to(mark.value.position.offset, 1)?.is_some() {
        return Ok(false);
    }
    match where_its_content_is(mark, id, named) {
        None => Ok(true),
        // Two files that begin alike, unless one is an archive of the other.
        Some(path) => Ok(source.is_compressed() && is_beginning_of(source, &path)?),
    }
}

/// Returns the path of another file with the content of a mark: the one that it was set for, one of this run, or a rotated one
/// beside the file `id`, also if it is compressed.
fn where_its_content_is(mark: &StoredMark, id: &FileId, named: &[PathBuf]) -> Option<PathBuf> {
    let others = named.iter().filter(|path| !leads_to(path, id)).cloned();
    let paths = locate(&mark.value.file, id).into_iter().chain(others);
    let mut paths = paths.chain(rotated(&id.path)).chain(rotated_from(&id.path));
    paths.find(|path| *path != id.path && holds(path, mark, true))
}

/// Returns whether the file at `path` has the content of a mark.
fn holds(path: &Path, mark: &StoredMark, may_be_compressed: bool) -> bool {
    let has_content = || -> Result<bool> {
        let mut source = Input::File(path.to_owned()).open(&Arc::default())?;
        let head = read_head(&mut source)?;
        let is_usable = may_be_compressed || !source.is_compressed();
        Ok(is_usable && !agreeing(&mut source, &head, std::slice::from_ref(mark))?.is_empty())
    };
    // A file that cannot be read is none that could be counted.
    path.is_file() && has_content().unwrap_or(false)
}

/// Returns whether the file at `path` begins with the content of `source`.
fn is_beginning_of(source: &mut Source, path: &Path) -> io::Result<bool> {
    source.go_to(0, 0)?;
    let other = File::open(path)?;
    let (mut offset, mut ours, mut theirs) = (0, vec![0; HEAD], vec![0; HEAD]);
    loop {
        let read = source.read(&mut ours)?;
        let found = other.read_at(&mut theirs[..read], offset)?;
        if found == 0 || ours[..found] != theirs[..found] {
            return Ok(read == 0);
        }
        offset += found as u64;
        if found < read {
            // The rest is compared from there.
            source.go_to(offset, 0)?;
        }
    }
}

/// Finds a file, under its last known path or another one, in the folder of the file `beside`.
fn locate(file: &FileId, beside: &FileId) -> Option<PathBuf> {
    let folder = beside.path.parent()?;
    if file.path.parent() == Some(folder) && leads_to(&file.path, file) {
        return Some(file.path.clone());
    }
    let entries = fs::read_dir(folder).ok()?.flatten();
    let alike = entries.filter(|entry| entry.ino() == file.ino());
    alike.map(|entry| entry.path()).find(|path| leads_to(path, file))
}

/// Returns whether a path leads to a file now.
pub(crate) fn leads_to(path: &Path, file: &FileId) -> bool {
    path.metadata().is_ok_and(|metadata| file.is_of(&metadata))
}

/// Returns whether the whole content of `source`, which is the file `id`, is the beginning of another file at `path`.
fn begins_like(source: &Source, id: &FileId, path: &Path) -> io::Result<bool> {
    let (Some(file), Ok(whole)) = (source.file(), File::open(path)) else { return Ok(false) };
    let metadata = whole.metadata()?;
    if id.is_of(&metadata) || !metadata.is_file() {
        return Ok(false);
    }
    let (mut offset, len) = (0, file.metadata()?.len());
    let (mut ours, mut theirs) = (vec![0; HEAD], vec![0; HEAD]);
    while offset < len {
        let read = file.read_at(&mut ours, offset)?;
        if read == 0
            || whole.read_exact_at(&mut theirs[..read], offset).is_err()
            || ours[..read] != theirs[..read]
        {
            return Ok(false);
        }
        offset += read as u64;
    }
    Ok(true)
}

/// Lists the paths of which a rotation may have made `path`: `log` of `log.1`, `log-20261120` and `log.1.gz`, and `app.log` of
/// `app-20261120.log`.
fn rotated_from(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let mut names = Vec::new();
    for (at, _) in name.match_indices(['.', '-', '_']).filter(|(at, _)| *at > 0) {
        let rest = &name[at + 1..];
        if rest.starts_with(|c: char| c.is_ascii_digit()) || rest == "old" {
            names.push(name[..at].to_owned());
            let extensions = rest.match_indices('.').map(|(dot, _)| [&name[..at], &rest[dot..]].concat());
            names.extend(extensions);
        }
    }
    names.into_iter().map(|name| path.with_file_name(name)).collect()
}

/// Lists the files that a rotation made of the file at `path`, the oldest first.
pub(crate) fn rotated(path: &Path) -> Vec<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|candidate| rotated_from(candidate).contains(&path))
        .filter_map(|path| Some((path.metadata().ok().filter(fs::Metadata::is_file)?.modified().ok()?, path)))
        .collect();
    // Of files of the same moment, `log.2` is older than `log.1`.
    found.sort_by(|(a, a_path), (b, b_path)| a.cmp(b).then_with(|| b_path.cmp(a_path)));
    let mut found: Vec<_> = found.into_iter().map(|(_, path)| path).collect();
    // Numbers tell more than times, which compression may set.
    if found.iter().all(|path| number_of(path).is_some()) {
        found.sort_by_key(|path| std::cmp::Reverse(number_of(path)));
    }
    found
}

/// Returns the number at the end of the name of a rotated file: 2 of `log.2.gz`. A date is none.
fn number_of(path: &Path) -> Option<u16> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".gz").unwrap_or(name).rsplit_once('.')?.1.parse().ok()
}

/// Returns whether a rotation made `path` of a file that is there.
pub(crate) fn is_rotated(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    rotated_from(&path).iter().any(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotated_files_are_recognised() {
        for (name, of) in [
            ("/l/log.1", "/l/log"),
            ("/l/log.2.gz", "/l/log"),
            ("/l/log-20261120", "/l/log"),
            ("/l/app.log.2026-11-20.gz", "/l/app.log"),
            ("/l/app-20261120.log", "/l/app.log"),
            ("/l/log.old", "/l/log"),
        ] {
            assert!(rotated_from(Path::new(name)).contains(&PathBuf::from(of)), "{name} of {of}");
        }
        for (name, of) in [
            ("/l/log", "/l/log"),
            ("/l/log", "/l/log.1"),
            ("/l/log.gz", "/l/log"),
            ("/m/log.1", "/l/log"),
            ("/l/r1", "/l/r"),
            ("/l/app.log", "/l/app"),
            ("/l/app-b.log", "/l/app.log"),
        ] {
            assert!(!rotated_from(Path::new(name)).contains(&PathBuf::from(of)), "{name} of {of}");
        }
    }
}
