//! JSON as it is written by programs that do not follow the standard.

/// Words that stand for numbers which JSON does not have.
const WORDS: [&[u8]; 4] = [b"NaN", b"Infinity", b"-Infinity", b"-NaN"];

/// Returns `line` as the standard asks for, or `None` when nothing in it has a clear meaning beyond the standard.
///
/// `NaN` and `Infinity` become texts. `\xNN` becomes the byte that it means. A half of a surrogate pair becomes the
/// replacement character. A control character is escaped. A byte that is no UTF-8 becomes the text `\xNN`.
pub(super) fn repaired(line: &[u8]) -> Option<Vec<u8>> {
    let mut repair = Repair { rest: line, out: Vec::with_capacity(line.len() + 16), is_changed: false };
    while let Some((&byte, after)) = repair.rest.split_first() {
        match byte {
            b'"' => repair.string()?,
            b'N' | b'I' | b'-' => repair.word(),
            _ => {
                repair.out.push(byte);
                repair.rest = after;
            }
        }
    }
    repair.is_changed.then_some(repair.out)
}

struct Repair<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
    is_changed: bool,
}

impl Repair<'_> {
    fn take(&mut self, len: usize) {
        let (taken, rest) = self.rest.split_at(len);
        self.out.extend_from_slice(taken);
        self.rest = rest;
    }

    fn replace(&mut self, len: usize, with: &str) {
        self.out.extend_from_slice(with.as_bytes());
        self.rest = &self.rest[len..];
        self.is_changed = true;
    }

    /// A word outside of texts that begins with `N`, `I` or a minus.
    fn word(&mut self) {
        let len = self.rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        let word = &self.rest[..len.max(1)];
        match WORDS.contains(&word) {
            true => self.replace(word.len(), &format!("\"{}\"", String::from_utf8_lossy(word))),
            false => self.take(word.len()),
        }
    }

    /// A text from quote to quote.
    fn string(&mut self) -> Option<()> {
        self.take(1);
        loop {
            match *self.rest {
                [b'"', ..] => {
                    self.take(1);
                    return Some(());
                }
                [b'\\', b'x', high, low, ..] => {
                    let byte = hex(high)? << 4 | hex(low)?;
                    match byte < 0x80 {
                        true => self.replace(4, &format!("\\u{byte:04x}")),
                        false => self.escaped_bytes(),
                    }
                }
                [b'\\', b'u', ..] => self.unicode_escape()?,
                [b'\\', _, ..] => self.take(2),
                [byte, ..] if byte < 0x20 => self.replace(1, &format!("\\u{byte:04x}")),
                [byte, ..] if byte < 0x80 => self.take(1),
                [byte, ..] => match char_len(self.rest) {
                    Some(len) => self.take(len),
                    None => self.replace(1, &format!("\\\\x{byte:02x}")),
                },
                [] => return None,
            }
        }
    }

    /// Bytes beyond ASCII, each written as `\xNN`, which make characters of UTF-8.
    fn escaped_bytes(&mut self) {
        let pieces = self.rest.chunks_exact(4);
        let byte = |piece: &[u8]| match *piece {
            [b'\\', b'x', high, low] => Some(hex(high)? << 4 | hex(low)?).filter(|byte| *byte >= 0x80),
            _ => None,
        };
        let bytes: Vec<u8> = pieces.map_while(byte).collect();
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|byte| format!("\\\\x{byte:02x}")));
        }
        self.replace(4 * bytes.len(), &text);
    }

    fn unicode_escape(&mut self) -> Option<()> {
        let unit = |text: &[u8]| -> Option<u16> {
            let [b'\\', b'u', a, b, c, d] = *text.get(..6)? else { return None };
            [a, b, c, d].into_iter().try_fold(0, |sum, digit| Some(sum << 4 | u16::from(hex(digit)?)))
        };
        let first = unit(self.rest)?;
        let second = self.rest.get(6..).and_then(unit);
        match (first, second) {
            (0xd800..0xdc00, Some(0xdc00..0xe000)) => self.take(12),
            (0xd800..0xe000, _) => self.replace(6, "\\ufffd"),
            _ => self.take(6),
        }
        Some(())
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Returns the length of the character that `bytes` begins with, `None` when they are no UTF-8.
fn char_len(bytes: &[u8]) -> Option<usize> {
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?;
    chunk.valid().chars().next().map(char::len_utf8)
}
