//! Recognises a content by its bytes, wherever the file was moved.

use countem_core::hash::fnv128;
use serde::{Deserialize, Serialize};

/// Bytes of the beginning that distinguish a content from others.
pub(crate) const HEAD: usize = 64 << 10;

/// Bytes before a position that show that the content was not replaced.
const TAIL: usize = 1 << 10;

/// Maximum number of bytes of the first line by which marks are found.
const FIRST_LINE: usize = 1 << 10;

/// A place in a content, behind a whole line unless the content ended without a newline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Bytes of the uncompressed content.
    pub(crate) offset: u64,
    /// Lines.
    pub(crate) line: u64,
}

/// The bytes that identify a content up to a position, gathered while it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprint {
    head: Vec<u8>,
    tail: Vec<u8>,
    offset: u64,
    steps: Vec<Step>,
}

/// A line end inside a content, and the hash of the bytes before it. Each is at least twice as far as the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step(pub(crate) u64, pub(crate) String);

/// Hashes of a fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) head: String,
    pub(crate) tail: String,
    /// A shorter content is compared at those that it reaches.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

/// Returns a hash as it is stored.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("{:032x}", fnv128(bytes))
}

/// Returns the hash of the first line of the content that begins with `head`. It stays while the content grows.
pub(crate) fn first_line_hash(head: &[u8]) -> String {
    hex(first_line(head))
}

/// Returns whether the first line of the content that begins with `head` is whole.
pub(crate) fn has_first_line(head: &[u8]) -> bool {
    let first = first_line(head);
    first.len() == FIRST_LINE || first.ends_with(b"\n")
}

fn first_line(head: &[u8]) -> &[u8] {
    let head = &head[..head.len().min(FIRST_LINE)];
    memchr::memchr(b'\n', head).map_or(head, |newline| &head[..=newline])
}

/// Returns the number of bytes of the beginning that a fingerprint at `offset` covers.
pub(crate) fn head_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(HEAD)
}

/// Returns the number of bytes before `offset` that a fingerprint covers.
pub(crate) fn tail_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(TAIL)
}

impl Fingerprint {
    /// Continues at `offset`, with the beginning of the content, the bytes before the offset and the steps up to it.
    pub(crate) fn resume(head: &[u8], tail: &[u8], offset: u64, steps: Vec<Step>) -> Self {
        let head = head[..head.len().min(head_len(offset))].to_vec();
        Self { head, tail: tail.to_vec(), offset, steps }
    }

    /// Returns up to `len` of the last bytes, and their position.
    pub(crate) fn end(&self, len: usize) -> (u64, Vec<u8>) {
        let end = self.tail[self.tail.len().saturating_sub(len)..].to_vec();
        (self.offset - end.len() as u64, end)
    }

    /// Takes in the bytes of the content from `offset` on, except those that it has. A gap before them is a hole of NUL bytes.
    pub(crate) fn advance(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get(known..).filter(|bytes| !bytes.is_empty()) else { return };
        let gap = offset.saturating_sub(self.offset);
        if gap > 0 {
            let len = usize::try_from(gap).unwrap_or(usize::MAX);
            self.head.resize((self.head.len().saturating_add(len)).min(HEAD), 0);
            self.tail.resize(self.tail.len() + len.min(TAIL), 0);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
            self.offset += gap;
        }
        let mut rest = bytes;
        while let Some(len) = self.next_step(rest) {
            let (line, after) = rest.split_at(len);
            self.take(line);
            self.steps.push(Step(self.offset, hex(&self.tail)));
            rest = after;
        }
        self.take(rest);
    }

    /// Returns the number of `bytes` up to the next step, `None` if it is behind them.
    fn next_step(&self, bytes: &[u8]) -> Option<usize> {
        let next = self.steps.last().map_or(0, |step| 2 * step.0);
        let skipped = usize::try_from(next.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let newline = memchr::memchr(b'\n', bytes.get(skipped..)?)?;
        Some(skipped + newline + 1)
    }

    fn take(&mut self, bytes: &[u8]) {
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        let news = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + news.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(news);
        self.offset += bytes.len() as u64;
    }

    /// Returns the hashes.
    pub(crate) fn sums(&self) -> Sums {
        Sums { head: hex(&self.head), tail: hex(&self.tail), steps: self.steps.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 251 * 3).to_le_bytes()[0]).collect()
    }

    fn read(content: &[u8], step: usize) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        let mut offset = 0;
        for chunk in content.chunks(step) {
            fingerprint.advance(offset, chunk);
            offset += chunk.len() as u64;
        }
        fingerprint
    }

    #[test]
    fn first_line_stays_while_a_content_grows() {
        assert_eq!(first_line_hash(b"a\nb"), first_line_hash(b"a\n"));
        assert_ne!(first_line_hash(b"a\n"), first_line_hash(b"a"));
        assert!(has_first_line(b"\n") && !has_first_line(b"a") && !has_first_line(b""));
        assert!(has_first_line(&[0; FIRST_LINE]));
        assert_eq!(first_line_hash(&[0; 9000]), first_line_hash(&[0; FIRST_LINE]));
    }

    #[test]
    fn steps_are_line_ends_at_doubling_distances() {
        let content: String = (0..200_000).map(|line| format!("line {line}\n")).collect();
        let steps = read(content.as_bytes(), 1000).sums().steps;
        assert_eq!(steps[0], Step(7, hex(b"line 0\n")));
        for pair in steps.windows(2) {
            assert!((0..=12).contains(&(pair[1].0 - 2 * pair[0].0)), "{pair:?}");
            assert_eq!(content.as_bytes()[usize::try_from(pair[1].0).unwrap() - 1], b'\n');
        }
        assert!(2 * steps.last().unwrap().0 + 12 >= content.len() as u64);
    }

    #[test]
    fn hole_is_taken_in_as_nul_bytes() {
        for hole in [1, 100, TAIL, HEAD, 3 * HEAD] {
            let whole = [&b"a\n"[..], &vec![0; hole], &b"b\n"[..]].concat();
            let mut fingerprint = Fingerprint::default();
            fingerprint.advance(0, b"a\n");
            fingerprint.advance((2 + hole) as u64, b"b\n");
            assert_eq!(fingerprint.sums(), read(&whole, 1000).sums(), "{hole}");
        }
    }

    proptest! {
        #[test]
        fn fingerprint_does_not_depend_on_block_sizes(len in 1..9000_usize, a in 1..5000_usize, b in 1..5000_usize) {
            let whole = content(len);
            prop_assert_eq!(read(&whole, a).sums(), read(&whole, b).sums());
            prop_assert_eq!(read(&whole, a).sums().tail, hex(&whole[len - tail_len(len as u64)..]));
        }

        #[test]
        fn resumed_fingerprint_equals_an_uninterrupted_one(
            len in 1..9000_usize, at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
        ) {
            let whole = content(len);
            let at = at.index(len);
            let steps = read(&whole[..at], 100).sums().steps;
            let from = from.index(at + 1);
            let mut fingerprint = Fingerprint::resume(&whole, &whole[at.saturating_sub(TAIL)..at], at as u64, steps);
            // Some of the bytes are known.
            fingerprint.advance(from as u64, &whole[from..from + (len - from) / 2]);
            fingerprint.advance((from + (len - from) / 2) as u64, &whole[from + (len - from) / 2..]);
            prop_assert_eq!(fingerprint.sums(), read(&whole, 100).sums());
        }
    }
}
