//! Writes BSON in one pass into one buffer.
//!
//! A flush is tens of thousands of fields in hundreds of small documents. Building them as values and serialising
//! those costs more than the server's own work; writing bytes does not.

use countem_store::{ErrorKind, StoreError};
use mongodb::bson::RawDocumentBuf;

/// A document that is being written. Lengths are filled in when a document is closed.
#[derive(Debug)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

mod element {
    pub(super) const STRING: u8 = 0x02;
    pub(super) const DOCUMENT: u8 = 0x03;
    pub(super) const ARRAY: u8 = 0x04;
    pub(super) const BOOLEAN: u8 = 0x08;
    pub(super) const DATE: u8 = 0x09;
    pub(super) const REGEX: u8 = 0x0b;
    pub(super) const INT32: u8 = 0x10;
    pub(super) const INT64: u8 = 0x12;
}

impl Encoder {
    /// Writes a whole document.
    ///
    /// # Errors
    /// It is longer than a document can be.
    pub(crate) fn encode(
        capacity: usize,
        fill: impl FnOnce(&mut Self),
    ) -> Result<RawDocumentBuf, StoreError> {
        let mut encoder = Self { bytes: Vec::with_capacity(capacity) };
        encoder.enclose(fill);
        RawDocumentBuf::from_bytes(encoder.bytes).map_err(|error| {
            StoreError::new(ErrorKind::Refused, "cannot write a request for MongoDB").with_source(error)
        })
    }

    /// Writes a field that is a document.
    pub(crate) fn document(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        self.key(element::DOCUMENT, key);
        self.enclose(fill);
    }

    /// Writes a field that is a document and whose key `write_key` appends.
    pub(crate) fn document_at(&mut self, write_key: impl FnOnce(&mut Vec<u8>), fill: impl FnOnce(&mut Self)) {
        self.bytes.push(element::DOCUMENT);
        write_key(&mut self.bytes);
        self.bytes.push(0);
        self.enclose(fill);
    }

    /// Writes a field that is an array. Its items have the keys `0`, `1`, …
    pub(crate) fn array(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        self.key(element::ARRAY, key);
        self.enclose(fill);
    }

    /// Writes a field that is an array of `items`, each filled in as a document.
    pub(crate) fn documents<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.array(key, |array| {
            for (i, item) in items.into_iter().enumerate() {
                array.document(&i.to_string(), |document| fill(document, item));
            }
        });
    }

    /// Writes a field that is an array of strings.
    pub(crate) fn strings(&mut self, key: &str, items: impl IntoIterator<Item = impl AsRef<str>>) {
        self.array(key, |array| {
            for (i, item) in items.into_iter().enumerate() {
                array.string(&i.to_string(), item.as_ref());
            }
        });
    }

    /// Writes a field that is an array of regular expressions.
    pub(crate) fn patterns(&mut self, key: &str, items: impl IntoIterator<Item = String>) {
        self.array(key, |array| {
            for (i, item) in items.into_iter().enumerate() {
                array.pattern(&i.to_string(), &item);
            }
        });
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        self.key(element::STRING, key);
        self.length(value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn pattern(&mut self, key: &str, pattern: &str) {
        self.key(element::REGEX, key);
        self.bytes.extend_from_slice(pattern.as_bytes());
        // The second NUL ends the options, of which there are none.
        self.bytes.extend_from_slice(&[0, 0]);
    }

    pub(crate) fn int64(&mut self, key: &str, value: i64) {
        self.key(element::INT64, key);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes a field whose key `write_key` appends.
    pub(crate) fn int64_at(&mut self, write_key: impl FnOnce(&mut Vec<u8>), value: i64) {
        self.bytes.push(element::INT64);
        write_key(&mut self.bytes);
        self.bytes.push(0);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes a field 1, as in a projection, whose key `write_key` appends.
    pub(crate) fn included_at(&mut self, write_key: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.push(element::INT32);
        write_key(&mut self.bytes);
        self.bytes.push(0);
        self.bytes.extend_from_slice(&1_i32.to_le_bytes());
    }

    pub(crate) fn int32(&mut self, key: &str, value: i32) {
        self.key(element::INT32, key);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn boolean(&mut self, key: &str, value: bool) {
        self.key(element::BOOLEAN, key);
        self.bytes.push(value.into());
    }

    /// Writes a moment in milliseconds since 1970.
    pub(crate) fn date(&mut self, key: &str, milliseconds: i64) {
        self.key(element::DATE, key);
        self.bytes.extend_from_slice(&milliseconds.to_le_bytes());
    }

    fn key(&mut self, element: u8, key: &str) {
        debug_assert!(!key.contains('\0'), "a key with a NUL would end early");
        self.bytes.push(element);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(0);
    }

    fn enclose(&mut self, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        self.bytes.push(0);
        let length = self.bytes.len() - start;
        // A length that does not fit is left at zero, which reading the whole back refuses.
        if let Ok(length) = i32::try_from(length) {
            self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
    }

    fn length(&mut self, length: usize) {
        self.bytes.extend_from_slice(&i32::try_from(length).unwrap_or(0).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, DateTime, Document, Regex, doc};

    use super::*;

    #[test]
    fn what_is_written_is_what_the_driver_would_write() {
        let raw = Encoder::encode(0, |command| {
            command.string("update", "web ä");
            command.boolean("ordered", false);
            command.documents("updates", [1_i64, 2], |update, n| {
                update.document("q", |q| q.string("_id", "2026/1"));
                update.document("$inc", |inc| {
                    inc.int64_at(|key| key.extend_from_slice(b"c.a%2Eb"), n);
                    inc.int64("w", i64::MIN);
                });
            });
            command.strings("ids", ["a", "b"]);
            command.patterns("patterns", ["^a/".to_owned()]);
            command.document("projection", |p| p.included_at(|key| key.extend_from_slice(b"c.x")));
            command.int32("maxTimeMS", 7);
            command.date("at", 1_000);
            command.document("empty", |_| {});
        })
        .unwrap();
        let pattern = Regex { pattern: "^a/".try_into().unwrap(), options: "".try_into().unwrap() };
        let update = |n: i64| doc! { "q": { "_id": "2026/1" }, "$inc": { "c.a%2Eb": n, "w": i64::MIN } };
        let expected = doc! {
            "update": "web ä",
            "ordered": false,
            "updates": [update(1), update(2)],
            "ids": ["a", "b"],
            "patterns": [Bson::RegularExpression(pattern)],
            "projection": { "c.x": 1 },
            "maxTimeMS": 7,
            "at": DateTime::from_millis(1_000),
            "empty": {},
        };
        assert_eq!(Document::try_from(&raw).unwrap(), expected);
        assert_eq!(raw, RawDocumentBuf::try_from(&expected).unwrap());
    }
}
