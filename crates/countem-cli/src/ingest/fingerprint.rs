//! Recognises a file by its content, so that its lines are counted once wherever the file was moved.
//!
//! Name, device and inode do not identify a log: it is renamed, copied and compressed. Its beginning stays. A mark in the
//! store holds the position up to which a content was counted, under a key that holds the hash of the beginning. The hashed beginning is as
//! long as the largest power of two that was counted, 64 KiB at most, so a file that was short when it was counted is
//! still recognised after it grew. The value of the mark holds the hashes of the whole counted beginning and of the
//! bytes before the position. Contents that begin alike have keys that differ in their number, from zero.

use countem_core::{Mark, hash::fnv128};
use serde::{Deserialize, Serialize};

/// Bytes of the beginning that distinguish a content from others.
pub(crate) const HEAD: usize = 64 << 10;

/// Bytes before a position that show that the content was not replaced.
const TAIL: usize = 1 << 10;

/// The counted part of a content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Counted bytes of the uncompressed content.
    pub(crate) offset: u64,
    /// Counted lines.
    pub(crate) line: u64,
    /// The last line was counted although no newline had ended it.
    #[serde(default)]
    pub(crate) is_open: bool,
}

/// Key of a mark: the beginning of the content, and a number that is unique among contents that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkKey {
    len: usize,
    hash: u128,
    number: usize,
}

/// Value of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MarkValue {
    #[serde(flatten)]
    position: Position,
    head: String,
    tail: String,
}

/// A stored mark of a content with the same beginning; [`is_of`](Self::is_of) compares the bytes before its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundMark {
    pub(crate) position: Position,
    pub(crate) key: MarkKey,
    tail: String,
}

/// The parts of a content that identify it, gathered while it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprint {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// A mark that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewMark {
    /// Key of the first of the contents that begin alike.
    pub(crate) first_key: MarkKey,
    value: MarkValue,
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

impl MarkKey {
    /// Lists the first key of every beginning of a content that starts with `head`, the longest beginning first.
    pub(crate) fn all(head: &[u8]) -> impl Iterator<Item = Self> {
        let longest = head.len().min(HEAD);
        let lens = (0..=HEAD.ilog2()).rev().map(|power| 1_usize << power).filter(move |&len| len <= longest);
        lens.map(|len| Self { len, hash: fnv128(&head[..len]), number: 0 })
    }

    /// Returns the key of the next content that begins alike.
    pub(crate) fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }

    /// Returns whether two keys are of the same beginning.
    pub(crate) fn begins_like(self, other: Self) -> bool {
        (self.len, self.hash) == (other.len, other.hash)
    }

    /// Returns the key as it is stored.
    pub(crate) fn to_text(self) -> String {
        format!("ingest/{}/{}/{}", self.len, hex(self.hash), self.number)
    }
}

impl FoundMark {
    /// Reads the mark under `key`; `None` when its content does not begin with `head`.
    pub(crate) fn read(value: &str, key: MarkKey, head: &[u8]) -> Option<Self> {
        let MarkValue { position, head: hash, tail } = serde_json::from_str(value).ok()?;
        let counted = head.get(..head_len(position.offset))?;
        (hex(fnv128(counted)) == hash).then_some(Self { position, key, tail })
    }

    /// Returns the number of bytes before the position that [`is_of`](Self::is_of) compares.
    pub(crate) fn tail_len(&self) -> usize {
        usize::try_from(self.position.offset).unwrap_or(usize::MAX).min(TAIL)
    }

    /// Returns whether the mark is of the content that has `tail` before the position.
    pub(crate) fn is_of(&self, tail: &[u8]) -> bool {
        tail.len() == self.tail_len() && hex(fnv128(tail)) == self.tail
    }
}

impl Fingerprint {
    /// Continues at a position, with the beginning of the content and the bytes before the position.
    pub(crate) fn resume(head: &[u8], tail: &[u8], position: Position) -> Self {
        Self { head: head[..head.len().min(head_len(position.offset))].to_vec(), tail: tail.to_vec() }
    }

    /// Takes in the bytes that were counted next.
    pub(crate) fn advance(&mut self, counted: &[u8]) {
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&counted[..missing.min(counted.len())]);
        let news = &counted[counted.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + news.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(news);
    }

    /// Returns the mark for `position`, `None` where nothing was counted yet.
    pub(crate) fn mark_at(&self, position: Position) -> Option<NewMark> {
        let first_key = MarkKey::all(&self.head).next()?;
        let (head, tail) = (hex(fnv128(&self.head)), hex(fnv128(&self.tail)));
        Some(NewMark { first_key, value: MarkValue { position, head, tail } })
    }
}

impl NewMark {
    /// Returns the mark as it is stored under `key`.
    pub(crate) fn under(&self, key: MarkKey) -> Mark {
        let value = serde_json::to_string(&self.value).expect("numbers and texts are always JSON");
        Mark { key: key.to_text(), value }
    }
}

fn head_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(HEAD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the mark of `content` after `counted` bytes that are taken in step by step.
    fn mark(content: &[u8], counted: usize, step: usize) -> (Mark, MarkKey) {
        let mut fingerprint = Fingerprint::default();
        content[..counted].chunks(step).for_each(|chunk| fingerprint.advance(chunk));
        let position = Position { offset: counted as u64, line: 7, is_open: true };
        let mark = fingerprint.mark_at(position).unwrap();
        (mark.under(mark.first_key), mark.first_key)
    }

    fn recognises(content: &[u8], mark: &Mark) -> Option<u64> {
        let head = &content[..content.len().min(HEAD)];
        let key = MarkKey::all(head).find(|key| key.to_text() == mark.key)?;
        let found = FoundMark::read(&mark.value, key, head)?;
        let offset = usize::try_from(found.position.offset).unwrap();
        let tail = content.get(offset - found.tail_len()..offset)?;
        found.is_of(tail).then_some(found.position.offset)
    }

    fn content(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 251 * seed).to_le_bytes()[0]).collect()
    }

    #[test]
    fn grown_file_is_recognised_and_replaced_is_not() {
        for counted in [1, 2, 3, 100, 4096, HEAD - 1, HEAD, HEAD + 1, 3 * HEAD] {
            let whole = content(4 * HEAD, 7);
            let (mark, _) = mark(&whole, counted, 1000);
            for len in [counted, counted + 1, counted + 5000] {
                assert_eq!(recognises(&whole[..len], &mark), Some(counted as u64), "{counted} of {len}");
            }
            assert_eq!(recognises(&whole[..counted - 1], &mark), None, "truncated before {counted}");
            for damaged in [0, counted / 2, counted - 1] {
                let mut other = whole.clone();
                other[damaged] ^= 1;
                let is_looked_at = damaged < HEAD || damaged + TAIL >= counted;
                assert_eq!(recognises(&other, &mark).is_none(), is_looked_at, "byte {damaged} of {counted}");
            }
        }
    }

    #[test]
    fn contents_that_begin_alike_have_own_keys() {
        let mut other = content(3000, 7);
        let (_, one) = mark(&other, 3000, 99);
        other[2999] ^= 1;
        let (mark, two) = mark(&other, 3000, 99);
        assert!(one.begins_like(two) && two.next().begins_like(one));
        assert_ne!(one.next().to_text(), one.to_text());
        assert_eq!(recognises(&content(3000, 7), &mark), None);
    }

    #[test]
    fn stored_keys_and_values_do_not_change() {
        let (mark, _) = mark(b"foobar", 6, 6);
        assert_eq!(mark.key, "ingest/4/696a39196d757277b806e974e013b7ef/0");
        let hash = "343e1662793c64bf6f0d3597ba446f18";
        let value = format!(r#"{{"offset":6,"line":7,"is_open":true,"head":"{hash}","tail":"{hash}"}}"#);
        assert_eq!(mark.value, value);
    }

    proptest! {
        #[test]
        fn mark_does_not_depend_on_block_sizes(len in 1..9000_usize, a in 1..5000_usize, b in 1..5000_usize) {
            let whole = content(len, 3);
            prop_assert_eq!(mark(&whole, len, a), mark(&whole, len, b));
        }

        #[test]
        fn resumed_fingerprint_equals_an_uninterrupted_one(len in 1..9000_usize, at in any::<prop::sample::Index>()) {
            let whole = content(len, 3);
            let at = at.index(len);
            let position = Position { offset: at as u64, ..Position::default() };
            let mut fingerprint = Fingerprint::resume(&whole, &whole[at.saturating_sub(TAIL)..at], position);
            fingerprint.advance(&whole[at..]);
            let position = Position { offset: len as u64, line: 7, is_open: true };
            let (mark, key) = mark(&whole, len, 100);
            prop_assert_eq!(fingerprint.mark_at(position).unwrap().under(key), mark);
        }
    }
}
