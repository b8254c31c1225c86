//! Recognises a file by its content, so that it is counted once wherever it was moved.
//!
//! A name, a device and an inode do not say what a file is: logs are renamed, copied and compressed. What stays is how
//! the content begins. A mark in the store says how far a content was counted, under a key that is the fingerprint of
//! its beginning. The beginning is as long as the largest power of two that was counted, 64 KiB at most, so a file
//! that was short when it was counted is still recognised after it grew. The mark itself holds the fingerprints of all
//! that was counted of the beginning and of the bytes before the position: files that merely begin alike have marks
//! of their own beside each other, numbered from zero.

use std::fmt;

use countem_core::Mark;
use serde::{Deserialize, Serialize};

/// How much of the beginning tells a content from others.
pub(crate) const HEAD: usize = 64 << 10;

/// How much before a position tells that the content was not replaced.
const TAIL: usize = 1 << 10;

/// A hash that means the same in every version and on every machine: FNV-1a with 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hash(u128);

/// Where counting stands in a content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Bytes that were counted, of the uncompressed content.
    pub(crate) offset: u64,
    /// Lines that were counted.
    pub(crate) line: u64,
    /// The last line was counted without having been ended by a newline.
    #[serde(default)]
    pub(crate) is_open: bool,
}

/// Under which key a mark is kept: the beginning of the content, and which of those that begin like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    len: usize,
    hash: Hash,
    number: usize,
}

/// What is in a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    position: Position,
    head: String,
    tail: String,
}

/// A mark that may be that of the content at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) position: Position,
    pub(crate) place: Place,
    tail: String,
}

/// The parts of a content that identify it, gathered while it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// How far a content was counted, with all that a mark says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The place of the first of the contents that begin like this one.
    pub(crate) place: Place,
    record: Record,
}

impl Hash {
    fn of(bytes: &[u8]) -> Self {
        const OFFSET_BASIS: u128 = 0x6c62272e07bb014262b821756295c58d;
        const PRIME: u128 = 0x0000000001000000000000000000013b;
        Self(bytes.iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Place {
    /// Lists the places where the mark of a content that begins with `head` may be, the longest beginning first.
    pub(crate) fn all(head: &[u8]) -> impl Iterator<Item = Self> {
        let longest = head.len().min(HEAD);
        let lens = (0..=HEAD.ilog2()).rev().map(|power| 1_usize << power).filter(move |&len| len <= longest);
        lens.map(|len| Self { len, hash: Hash::of(&head[..len]), number: 0 })
    }

    /// Returns the place beside this one.
    pub(crate) fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }

    /// Tells whether two places differ by their number only.
    pub(crate) fn is_beside(self, other: Self) -> bool {
        (self.len, self.hash) == (other.len, other.hash)
    }

    /// Returns the key of the mark.
    pub(crate) fn key(self) -> String {
        format!("ingest/{}/{}/{}", self.len, self.hash, self.number)
    }
}

impl Candidate {
    /// Reads the mark at `place`; `None` when it is of a content that begins otherwise than `head`.
    pub(crate) fn read(value: &str, place: Place, head: &[u8]) -> Option<Self> {
        let Record { position, head: hash, tail } = serde_json::from_str(value).ok()?;
        let counted = head.get(..head_len(position.offset))?;
        (Hash::of(counted).to_string() == hash).then_some(Self { position, place, tail })
    }

    /// Returns how many bytes before the position [`is_of`](Self::is_of) looks at.
    pub(crate) fn tail_len(&self) -> usize {
        usize::try_from(self.position.offset).unwrap_or(usize::MAX).min(TAIL)
    }

    /// Tells whether the mark is that of the content that has `tail` before the position.
    pub(crate) fn is_of(&self, tail: &[u8]) -> bool {
        tail.len() == self.tail_len() && Hash::of(tail).to_string() == self.tail
    }
}

impl Identity {
    /// Resumes with the beginning of a content and the bytes before a position in it.
    pub(crate) fn resume(head: &[u8], tail: &[u8], position: Position) -> Self {
        Self { head: head[..head.len().min(head_len(position.offset))].to_vec(), tail: tail.to_vec() }
    }

    /// Takes in what was counted next.
    pub(crate) fn advance(&mut self, counted: &[u8]) {
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&counted[..missing.min(counted.len())]);
        let news = &counted[counted.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + news.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(news);
    }

    /// Returns what a mark at `position` says, `None` where nothing was counted yet.
    pub(crate) fn progress(&self, position: Position) -> Option<Progress> {
        let place = Place::all(&self.head).next()?;
        let (head, tail) = (Hash::of(&self.head).to_string(), Hash::of(&self.tail).to_string());
        Some(Progress { place, record: Record { position, head, tail } })
    }
}

impl Progress {
    /// Returns the mark to set at `place`.
    pub(crate) fn mark(&self, place: Place) -> Mark {
        let value = serde_json::to_string(&self.record).expect("numbers and texts are always JSON");
        Mark { key: place.key(), value }
    }
}

fn head_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(HEAD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The mark of `content` after `counted` bytes, taken in in steps.
    fn mark(content: &[u8], counted: usize, step: usize) -> (Mark, Place) {
        let mut identity = Identity::default();
        content[..counted].chunks(step).for_each(|chunk| identity.advance(chunk));
        let position = Position { offset: counted as u64, line: 7, is_open: true };
        let progress = identity.progress(position).unwrap();
        (progress.mark(progress.place), progress.place)
    }

    fn recognises(content: &[u8], mark: &Mark) -> Option<u64> {
        let head = &content[..content.len().min(HEAD)];
        let place = Place::all(head).find(|place| place.key() == mark.key)?;
        let candidate = Candidate::read(&mark.value, place, head)?;
        let offset = usize::try_from(candidate.position.offset).unwrap();
        let tail = content.get(offset - candidate.tail_len()..offset)?;
        candidate.is_of(tail).then_some(candidate.position.offset)
    }

    fn content(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 251 * seed).to_le_bytes()[0]).collect()
    }

    #[test]
    fn a_grown_file_is_recognised_and_a_replaced_one_is_not() {
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
    fn contents_that_begin_alike_are_beside_each_other() {
        let mut other = content(3000, 7);
        let (_, one) = mark(&other, 3000, 99);
        other[2999] ^= 1;
        let (mark, two) = mark(&other, 3000, 99);
        assert!(one.is_beside(two) && two.next().is_beside(one));
        assert_ne!(one.next().key(), one.key());
        assert_eq!(recognises(&content(3000, 7), &mark), None);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(Hash::of(b"").to_string(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(Hash::of(b"foobar").to_string(), "343e1662793c64bf6f0d3597ba446f18");
    }

    proptest! {
        #[test]
        fn how_a_content_was_cut_makes_no_difference(len in 1..9000_usize, a in 1..5000_usize, b in 1..5000_usize) {
            let whole = content(len, 3);
            prop_assert_eq!(mark(&whole, len, a), mark(&whole, len, b));
        }

        #[test]
        fn resuming_is_as_if_it_had_never_stopped(len in 1..9000_usize, at in any::<prop::sample::Index>()) {
            let whole = content(len, 3);
            let at = at.index(len);
            let position = Position { offset: at as u64, ..Position::default() };
            let mut identity = Identity::resume(&whole, &whole[at.saturating_sub(TAIL)..at], position);
            identity.advance(&whole[at..]);
            let position = Position { offset: len as u64, line: 7, is_open: true };
            let (mark, place) = mark(&whole, len, 100);
            prop_assert_eq!(identity.progress(position).unwrap().mark(place), mark);
        }
    }
}
