//! Fields of a line: those that are wanted, and the bytes in which they are found.

use std::borrow::Cow;

/// Returns `bytes` as text, with `\xNN` for those that are no UTF-8, as names have them.
pub(crate) fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text.into()
}

/// Position of a field's text in the bytes that [`Format::read`](super::format::Format::read) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

/// The fields that templates, the time and the amount ask for, each once. A field is known by its index in this list.
#[derive(Debug, Default, Clone)]
pub struct Wanted {
    names: Vec<String>,
}

impl Span {
    /// The line has no such field.
    pub const MISSING: Self = Self { start: u32::MAX, end: u32::MAX };

    /// Returns the span of the bytes from `start` to before `end`. Lines are bounded far below 4 GiB.
    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let bound = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: bound(start), end: bound(end) }
    }

    /// Tells whether the field is there and has no bytes.
    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end && self != Self::MISSING
    }

    /// Returns the text of the field, `None` where it is missing.
    #[inline]
    pub fn of(self, text: &[u8]) -> Option<&[u8]> {
        text.get(self.start as usize..self.end as usize)
    }
}

impl Wanted {
    /// Returns the index of the field `name`, which is added if it is new.
    pub fn index_of(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Returns the names by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl<'a> FromIterator<&'a str> for Wanted {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut wanted = Self::default();
        for name in names {
            wanted.index_of(name);
        }
        wanted
    }
}
