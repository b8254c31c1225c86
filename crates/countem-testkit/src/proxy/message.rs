//! Whole messages of MongoDB's wire protocol.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// Length, id, id of the request that is answered, operation: four little-endian 32-bit numbers.
const HEADER: usize = 16;
/// Above the server's own limit of 48,000,000 bytes. Something longer is not this protocol.
const MAX_LENGTH: usize = 64 * 1024 * 1024;
/// The operation `OP_MSG`, which carries every command since MongoDB 3.6.
const OP_MSG: i32 = 2013;

/// One message as it travelled, header included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Returns the whole message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the name of the command, such as `update`, or `None` for a reply in an older form.
    ///
    /// Of a reply, which has no name, it returns its first field.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        if self.number(12) != OP_MSG {
            return None;
        }
        // Flags, then sections: kind 0 is the command's document, kind 1 a sized sequence of documents.
        let mut section = HEADER + 4;
        while *self.bytes.get(section)? == 1 {
            section += 1 + usize::try_from(self.number(section + 1)).ok()?;
        }
        // Behind the kind: the document's length and the type of its first field, then the field's name.
        let name = self.bytes.get(section + 6..)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        str::from_utf8(&name[..end]).ok()
    }

    /// Tells whether this is the command `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.command() == Some(name)
    }

    /// Tells whether `text` occurs anywhere in the message: a name, a value, a marker of the test.
    #[must_use]
    pub fn contains(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        text.is_empty() || self.bytes.windows(text.len()).any(|window| window == text)
    }

    pub(super) fn id(&self) -> i32 {
        self.number(4)
    }

    pub(super) fn answers(&self) -> i32 {
        self.number(8)
    }

    /// Returns the number at `offset`, or 0 behind the end.
    fn number(&self, offset: usize) -> i32 {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| i32::from_le_bytes(*bytes))
    }
}

/// Splits what arrives on a connection into messages.
pub(super) struct Reader {
    stream: OwnedReadHalf,
    /// The beginning of the next message.
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new(stream: OwnedReadHalf) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Returns the next message, or `None` when the other side has closed the connection between two messages.
    ///
    /// # Cancel safety
    /// A message that has arrived in part stays in the reader.
    pub(super) async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.split_first()? {
                return Ok(Some(message));
            }
            self.buffer.reserve(64 * 1024);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn split_first(&mut self) -> io::Result<Option<Message>> {
        let Some(length) = self.buffer.first_chunk() else { return Ok(None) };
        let length = usize::try_from(i32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if !(HEADER..=MAX_LENGTH).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a MongoDB message"));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        Ok(Some(Message { bytes: self.buffer.drain(..length).collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds an `OP_MSG` whose document is `{name: 1}`, behind `sequence` as a section of kind 1.
    fn op_msg(sequence: Option<&[u8]>, name: &str) -> Message {
        let mut body = vec![0; 4];
        if let Some(sequence) = sequence {
            body.push(1);
            body.extend(i32::try_from(sequence.len() + 4).unwrap().to_le_bytes());
            body.extend(sequence);
        }
        let mut fields = vec![0x10];
        fields.extend(name.as_bytes());
        fields.extend([0, 1, 0, 0, 0, 0]);
        body.push(0);
        body.extend(i32::try_from(fields.len() + 4).unwrap().to_le_bytes());
        body.extend(fields);
        let mut bytes = Vec::new();
        for number in [i32::try_from(HEADER + body.len()).unwrap(), 7, 6, OP_MSG] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(body);
        Message { bytes }
    }

    #[test]
    fn command_is_first_field_of_its_document() {
        assert_eq!(op_msg(None, "update").command(), Some("update"));
        assert_eq!(op_msg(Some(b"updates\0rest"), "update").command(), Some("update"));
        assert_eq!((op_msg(None, "x").id(), op_msg(None, "x").answers()), (7, 6));
    }

    #[test]
    fn truncated_message_has_no_command() {
        let whole = op_msg(Some(b"updates\0rest"), "update");
        // The last bytes are the field's value and the end of the document; its name needs neither.
        let name_ends = whole.bytes.len() - 5;
        for length in 0..name_ends {
            assert_eq!(Message { bytes: whole.bytes[..length].to_vec() }.command(), None, "{length} bytes");
        }
    }

    #[test]
    fn text_is_found_anywhere_in_the_message() {
        let message = op_msg(Some(b"marker"), "update");
        assert!(message.contains("marker") && message.contains("update"));
        assert!(!message.contains("insert"));
    }
}
