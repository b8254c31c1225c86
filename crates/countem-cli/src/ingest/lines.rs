//! Cuts a stream of bytes into blocks of whole lines.

use std::io::{self, Read};

use countem_lines::Format;
use memchr::memrchr;

/// Maximum length of a line in bytes. A longer one is handed out in pieces, so that no input can fill the memory.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// Number of the last bytes that are remembered.
const RECENT: usize = 256;

/// Bytes read at once: many enough to make the cost of a call vanish, few enough for the processor's cache.
const BLOCK: usize = 256 << 10;

/// Cuts one stream. The position in the stream is that of whole lines handed out.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// The buffer holds the stream's bytes up to here.
    filled: usize,
    /// There is no newline before here.
    searched: usize,
    /// Position in the stream of the buffer's first byte.
    offset: u64,
    /// The last bytes before the buffer.
    recent: Vec<u8>,
    /// Records end where their quotes allow it, and not at every newline.
    joins: bool,
}

/// Consecutive bytes of a stream: whole lines, each with its newline; the last line, where it has none; or a piece of a
/// line, longer than [`MAX_LINE`], whose other pieces follow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The bytes are the first `len` of these.
    pub(crate) memory: Vec<u8>,
    len: usize,
    /// Position of the first byte in the stream.
    pub(crate) offset: u64,
}

impl Block {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Lines {
    /// Begins to cut a stream whose next byte is at position `offset`.
    pub(crate) fn new(offset: u64) -> Self {
        Self { buffer: Vec::new(), filled: 0, searched: 0, offset, recent: Vec::new(), joins: false }
    }

    /// Cuts between records, which may have several lines, if it `joins` them.
    pub(crate) fn joining(self, joins: bool) -> Self {
        Self { joins, ..self }
    }

    /// Returns the position in the stream up to which it was read.
    pub(crate) fn seen(&self) -> u64 {
        self.offset + self.filled as u64
    }

    /// Returns whether a part of a line was read, and not handed out.
    pub(crate) fn has_rest(&self) -> bool {
        self.filled > 0
    }

    /// Returns the last bytes before [`seen`](Self::seen), and their position.
    pub(crate) fn recent(&self) -> (u64, Vec<u8>) {
        let mut recent = self.recent.clone();
        recent.extend_from_slice(&self.buffer[self.filled.saturating_sub(RECENT)..self.filled]);
        let recent = recent.split_off(recent.len().saturating_sub(RECENT));
        (self.seen() - recent.len() as u64, recent)
    }

    /// Reads until there is a block, `None` when the stream has no more for now. `spare` is memory to use again.
    ///
    /// # Errors
    /// The stream cannot be read, or joined lines make a record longer than [`MAX_LINE`]. Bytes read before are kept, and the next
    /// call continues.
    pub(crate) fn next(&mut self, stream: &mut impl Read, spare: Vec<u8>) -> io::Result<Option<Block>> {
        loop {
            if self.joins {
                let end = self.end_of_records();
                if end > 0 {
                    return Ok(Some(self.hand_out(end, spare)));
                }
                if self.filled > MAX_LINE {
                    let why = "does not end within 1 MiB: is a quote not closed?";
                    return Err(io::Error::other(format!("the record at byte {} {why}", self.offset)));
                }
            } else if let Some(newline) = memrchr(b'\n', &self.buffer[self.searched..self.filled]) {
                return Ok(Some(self.hand_out(self.searched + newline + 1, spare)));
            } else if self.filled > MAX_LINE {
                return Ok(Some(self.hand_out(self.filled, spare)));
            }
            self.searched = self.filled;
            match stream.read(self.free()) {
                Ok(0) => return Ok(None),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the last line of an ended stream if it has no newline.
    pub(crate) fn finish(&mut self) -> Option<Block> {
        (self.filled > 0).then(|| self.hand_out(self.filled, Vec::new()))
    }

    /// Returns the end of the last record that is whole, and not too long.
    fn end_of_records(&self) -> usize {
        let (mut end, bytes) = (0, &self.buffer[..self.filled]);
        while let Some(len) = Format::record_len(&bytes[end..]).filter(|len| *len <= MAX_LINE) {
            end += len;
        }
        end
    }

    /// The free part of the buffer, at least one byte.
    fn free(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            let grown = (self.buffer.len() * 2).clamp(BLOCK, MAX_LINE + BLOCK);
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.filled..]
    }

    fn hand_out(&mut self, len: usize, spare: Vec<u8>) -> Block {
        let rest = self.filled - len;
        let mut next = spare;
        if next.len() < rest.max(BLOCK) {
            next.resize(rest.max(BLOCK), 0);
        }
        next[..rest].copy_from_slice(&self.buffer[len..self.filled]);
        self.recent.extend_from_slice(&self.buffer[len.saturating_sub(RECENT)..len]);
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        let memory = std::mem::replace(&mut self.buffer, next);
        let block = Block { memory, len, offset: self.offset };
        self.filled = rest;
        self.searched = rest;
        self.offset += len as u64;
        block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives at most `step` bytes at a time.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = self.step.min(out.len()).min(self.bytes.len());
            let (now, later) = self.bytes.split_at(len);
            out[..len].copy_from_slice(now);
            self.bytes = later;
            Ok(len)
        }
    }

    /// The blocks that come out, one after the other.
    fn cut(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut stream = Trickle { bytes, step };
        let mut lines = Lines::new(0);
        let (mut out, mut spare, mut offset) = (Vec::new(), Vec::new(), 0);
        loop {
            let more = lines.next(&mut stream, spare).unwrap();
            let Some(block) = more.or_else(|| lines.finish()) else { break };
            assert_eq!(block.offset, offset);
            offset += block.bytes().len() as u64;
            out.push(block.bytes().to_vec());
            spare = block.memory;
        }
        assert_eq!(lines.seen(), bytes.len() as u64);
        let at = bytes.len().saturating_sub(RECENT);
        assert_eq!(lines.recent(), (at as u64, bytes[at..].to_vec()));
        out
    }

    #[test]
    fn overlong_line_comes_in_pieces_between_whole_lines() {
        let mut bytes = b"first\n".to_vec();
        bytes.resize(bytes.len() + 5 * MAX_LINE, b'x');
        bytes.extend_from_slice(b"\nlast\nopen");
        for step in [64 << 10, 1 << 20, usize::MAX] {
            let blocks = cut(&bytes, step);
            assert_eq!(blocks.concat(), bytes);
            assert!(blocks.iter().all(|block| block.len() <= MAX_LINE + BLOCK));
            let pieces: Vec<_> = blocks.iter().filter(|block| !block.ends_with(b"\n")).collect();
            assert!(pieces.len() > 4);
            assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() > MAX_LINE));
            assert_eq!(pieces.last().unwrap().as_slice(), b"open");
        }
    }

    #[test]
    fn late_bytes_end_an_open_line() {
        let mut lines = Lines::new(10);
        assert_eq!(lines.next(&mut &b"a"[..], Vec::new()).unwrap(), None);
        assert_eq!(lines.seen(), 11);
        let block = lines.next(&mut &b"b\nc"[..], Vec::new()).unwrap().unwrap();
        assert_eq!((block.bytes(), block.offset, lines.seen()), (&b"ab\n"[..], 10, 14));
        let block = lines.finish().unwrap();
        assert_eq!((block.bytes(), block.offset, lines.seen()), (&b"c"[..], 13, 14));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn endless_record_is_an_error() {
        let mut bytes = b"a\n\"open\n".to_vec();
        bytes.resize(bytes.len() + 2 * MAX_LINE, b'\n');
        let (mut lines, mut stream) = (Lines::new(0).joining(true), &bytes[..]);
        assert_eq!(lines.next(&mut stream, Vec::new()).unwrap().unwrap().bytes(), b"a\n");
        for _ in 0..2 {
            let error = lines.next(&mut stream, Vec::new()).unwrap_err().to_string();
            assert!(error.contains("byte 2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn records_are_cut_alike_in_any_steps(text in "[a,\"\n]{0,200}", step in 1..50_usize) {
            let cut = |step| {
                let mut stream = Trickle { bytes: text.as_bytes(), step };
                let (mut lines, mut records) = (Lines::new(0).joining(true), Vec::new());
                while let Some(block) = lines.next(&mut stream, Vec::new()).unwrap() {
                    let mut rest = block.bytes();
                    while let Some(len) = Format::record_len(rest) {
                        records.push(rest[..len].to_vec());
                        rest = &rest[len..];
                    }
                    assert!(rest.is_empty());
                }
                (records, lines.finish().map(|block| block.bytes().to_vec()))
            };
            prop_assert_eq!(cut(step), cut(usize::MAX));
        }

        #[test]
        fn every_byte_comes_out_once_in_whole_lines(text in "[a\n]{0,300}", step in 1..50_usize) {
            let blocks = cut(text.as_bytes(), step);
            let whole = blocks.len() - usize::from(!text.is_empty() && !text.ends_with('\n'));
            prop_assert!(blocks[..whole].iter().all(|block| block.ends_with(b"\n")));
            prop_assert_eq!(blocks.concat(), text.into_bytes());
        }
    }
}
