//! Marks in the store: how far each content was counted, by which counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use countem_core::Mark;
use countem_engine::Retry;
use countem_store::{ErrorKind, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ingest::{
    added::Added,
    fingerprint::{Position, Sums, first_line_hash},
};

/// Prefix of the keys of all marks.
pub(crate) const PREFIX: &str = "file/";

/// Prefix of the keys that an earlier countem wrote: one position for whatever was counted.
const OLD_PREFIX: &str = "ingest/";

/// Value of the mark of a content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarkValue {
    /// The farthest counted position.
    #[serde(flatten)]
    pub(crate) position: Position,
    /// Fingerprint of the content up to it.
    #[serde(flatten)]
    pub(crate) sums: Sums,
    /// The file that had the content when the mark was set.
    #[serde(default)]
    pub(crate) file: FileId,
    /// The position up to which each counter has counted.
    #[serde(default)]
    pub(crate) counted: BTreeMap<String, Position>,
    /// Sums of all that each of them has added, but for those of an earlier countem.
    #[serde(default)]
    pub(crate) added: BTreeMap<String, Added>,
    /// The counters that are being taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) undo: Option<UndoState>,
    /// The same for counters that are not listed, in a mark of an earlier countem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) others: Option<Position>,
}

/// Progress of taking counts back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UndoState {
    /// The counters of which counts are taken back.
    pub(crate) counters: BTreeSet<String>,
    /// The last of their stored counters, in order, whose counts were taken back.
    pub(crate) last: (String, String, String),
    /// Identity in the log of corrections.
    pub(crate) id: String,
}

/// A file at the moment when its mark was set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub(crate) path: PathBuf,
    dev: u64,
    ino: u64,
    /// Nanoseconds between 1970 and the creation of the file, where its file system knows: a later file may get its number.
    #[serde(default)]
    born: Option<u64>,
}

/// A mark as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMark {
    pub(crate) key: String,
    /// The text of the value, which a batch expects.
    pub(crate) text: String,
    pub(crate) value: MarkValue,
}

impl FileId {
    /// Returns the identity of the file at `path`.
    pub(crate) fn new(path: &Path, metadata: &Metadata) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self { path, dev: metadata.dev(), ino: metadata.ino(), born: born(metadata) }
    }

    /// Returns whether both are one file on the disk, whatever its name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.born) == (other.dev, other.ino, other.born)
    }

    /// Returns whether `metadata` is of this file.
    pub(crate) fn is_of(&self, metadata: &Metadata) -> bool {
        (self.dev, self.ino, self.born) == (metadata.dev(), metadata.ino(), born(metadata))
    }

    /// Returns the moment at which the file was created, where that is known.
    pub(crate) fn born(&self) -> Option<SystemTime> {
        self.born.map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }

    /// Returns the number of the file in its file system.
    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }
}

fn born(metadata: &Metadata) -> Option<u64> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

impl MarkValue {
    /// Returns the position up to which `counter` has counted.
    pub(crate) fn of(&self, counter: &str) -> Position {
        self.counted.get(counter).copied().or(self.others).unwrap_or_default()
    }

    /// Adds to the sum of `counter`, before its position moves.
    pub(crate) fn add(&mut self, counter: &str, sum: u64) {
        let is_new = self.of(counter) == Position::default();
        match self.added.get_mut(counter) {
            Some(added) => added.sum = added.sum.wrapping_add(sum),
            None if is_new => {
                self.added.insert(counter.to_owned(), Added { from: 0, sum });
            }
            // The sum of what was counted before is not known.
            None => {}
        }
    }

    /// Returns the value as it is stored.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are always JSON")
    }
}

impl StoredMark {
    /// Reads marks. One that cannot be read is none of ours.
    pub(crate) fn read_all(stored: BTreeMap<String, String>) -> impl Iterator<Item = Self> {
        stored.into_iter().filter_map(|(key, text)| {
            let mut value: MarkValue = serde_json::from_str(&text).ok()?;
            if key.starts_with(OLD_PREFIX) {
                value.others = Some(value.position);
            }
            Some(Self { key, text, value })
        })
    }

    /// Returns whether an earlier countem set the mark.
    pub(crate) fn is_old(&self) -> bool {
        self.key.starts_with(OLD_PREFIX)
    }

    /// Returns a batch's change that removes the mark.
    pub(crate) fn removal(&self) -> Mark {
        Mark { key: self.key.clone(), expected: Some(self.text.clone()), value: None }
    }
}

/// Returns the prefixes of the keys of all marks that contents with the beginning `head` can have.
pub(crate) fn prefixes(head: &[u8]) -> Vec<String> {
    vec![group(head), OLD_PREFIX.to_owned()]
}

/// Returns the prefix of the keys of the marks of all contents with the first line of `head`.
pub(crate) fn group(head: &[u8]) -> String {
    format!("{PREFIX}{}/", first_line_hash(head))
}

/// Returns the prefixes of the keys of all marks.
pub(crate) fn all_prefixes() -> Vec<String> {
    vec![PREFIX.to_owned(), OLD_PREFIX.to_owned()]
}

/// Returns the first key for the beginning `head` that none of `marks` has. Two processes that find no mark of a content choose
/// the same one, and only one of them can set it.
pub(crate) fn free_key(head: &[u8], marks: &[StoredMark]) -> String {
    let group = group(head);
    let keys = (0_u64..).map(|number| format!("{group}{number}"));
    let mut free = keys.filter(|key| marks.iter().all(|mark| mark.key != *key));
    free.next().expect("there are more numbers than marks")
}

/// Reads the marks whose keys begin with one of `prefixes`, and retries while the store is away.
///
/// # Errors
/// The store could not be read within `timeout`.
pub(crate) async fn read(
    store: &Arc<dyn Store>,
    prefixes: &[String],
    mut retry: Retry,
    timeout: Option<Duration>,
) -> Result<Vec<StoredMark>, StoreError> {
    let began = Instant::now();
    let mut found = BTreeMap::new();
    for prefix in prefixes {
        loop {
            let error = match read_one(store, prefix.clone()).await {
                Ok(marks) => {
                    found.extend(marks);
                    break;
                }
                Err(error) => error,
            };
            let may_pass = matches!(error.kind(), ErrorKind::NotApplied | ErrorKind::InDoubt);
            let wait = retry.next_wait();
            if !may_pass || timeout.is_some_and(|timeout| began.elapsed() + wait > timeout) {
                return Err(error);
            }
            tracing::warn!(%error, "store cannot be read, trying again");
            tokio::time::sleep(wait).await;
        }
    }
    Ok(StoredMark::read_all(found).collect())
}

/// Reads marks in a task of its own: a store may have to complete a batch for it, and must not be dropped half done.
async fn read_one(store: &Arc<dyn Store>, prefix: String) -> Result<BTreeMap<String, String>, StoreError> {
    let store = Arc::clone(store);
    let reading = tokio::spawn(async move { store.marks(&prefix).await });
    let panicked = |error| StoreError::new(ErrorKind::NotApplied, "the store panicked").with_source(error);
    reading.await.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_mark_is_of_all_counters() {
        let text = r#"{"offset":6,"line":7,"is_open":true,"head":"a","tail":"b"}"#.to_owned();
        let stored = BTreeMap::from([("ingest/4/x/0".to_owned(), text)]);
        let mark = StoredMark::read_all(stored).next().unwrap();
        assert_eq!(mark.value.of("whatever"), Position { offset: 6, line: 7 });
        assert!(mark.is_old());
    }

    #[test]
    fn counter_that_is_new_begins_at_the_beginning() {
        let at = Position { offset: 6, line: 2 };
        let value =
            MarkValue { position: at, counted: [("a".to_owned(), at)].into(), ..MarkValue::default() };
        let stored = BTreeMap::from([(format!("{PREFIX}x/0"), value.to_text())]);
        let mark = StoredMark::read_all(stored).next().unwrap();
        assert_eq!((mark.value.of("a"), mark.value.of("b")), (at, Position::default()));
        assert_eq!(mark.value, value);
    }

    #[test]
    fn free_key_is_the_first_not_taken() {
        let mark = |number| StoredMark {
            key: format!("{PREFIX}{}/{number}", first_line_hash(b"a\n")),
            text: String::new(),
            value: MarkValue::default(),
        };
        let key = |marks: &[StoredMark]| free_key(b"a\nb\n", marks).rsplit_once('/').unwrap().1.to_owned();
        assert_eq!(key(&[]), "0");
        assert_eq!(key(&[mark(0), mark(2)]), "1");
    }
}
