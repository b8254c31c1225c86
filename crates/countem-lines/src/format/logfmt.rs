//! `key=value` pairs, as Heroku and Go programs write them.

use crate::{Reject, Span, Wanted};

/// Finds values by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Logfmt {
    /// The wanted values of the current line, unescaped.
    text: Vec<u8>,
}

const SHAPE: Reject = Reject::Shape("not a line of `key=value` pairs");

impl Logfmt {
    /// Finds the wanted values and returns the bytes in which `spans` lie. A key without a value has an empty one.
    ///
    /// # Errors
    /// The line has no pair, a quote is not closed, or a wanted key has two values.
    pub(super) fn read(&mut self, line: &[u8], wanted: &Wanted, spans: &mut [Span]) -> Result<&[u8], Reject> {
        spans.fill(Span::MISSING);
        self.text.clear();
        let (mut rest, mut pairs) = (line, 0);
        while let Some(begin) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
            rest = &rest[begin..];
            let key_len = rest
                .iter()
                .position(|&byte| byte == b'=' || byte.is_ascii_whitespace())
                .unwrap_or(rest.len());
            let (key, after) = rest.split_at(key_len);
            if key.is_empty() || key.contains(&b'"') {
                return Err(SHAPE);
            }
            let start = self.text.len();
            rest = match after.strip_prefix(b"=") {
                None => after,
                Some(value) => {
                    pairs += 1;
                    self.value(value)?
                }
            };
            let span = Span::new(start, self.text.len());
            match wanted.names().iter().position(|name| name.as_bytes() == key) {
                None => self.text.truncate(start),
                Some(field) if spans[field] == Span::MISSING => spans[field] = span,
                Some(field) if spans[field].of(&self.text) == span.of(&self.text) => {}
                Some(_) => return Err(Reject::Value("a wanted key is there twice, with different values")),
            }
        }
        if pairs == 0 { Err(SHAPE) } else { Ok(&self.text) }
    }

    /// Appends a value to the text, and returns what follows it.
    fn value<'a>(&mut self, value: &'a [u8]) -> Result<&'a [u8], Reject> {
        let Some(quoted) = value.strip_prefix(b"\"") else {
            let len = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
            self.text.extend_from_slice(&value[..len]);
            return Ok(&value[len..]);
        };
        let mut bytes = quoted.iter().enumerate();
        while let Some((at, &byte)) = bytes.next() {
            match byte {
                b'"' => {
                    let rest = &quoted[at + 1..];
                    return if rest.first().is_none_or(u8::is_ascii_whitespace) {
                        Ok(rest)
                    } else {
                        Err(SHAPE)
                    };
                }
                b'\\' => match bytes.next().map(|(_, escaped)| escaped) {
                    Some(b'n') => self.text.push(b'\n'),
                    Some(b't') => self.text.push(b'\t'),
                    Some(b'r') => self.text.push(b'\r'),
                    Some(other @ (b'"' | b'\\')) => self.text.push(*other),
                    Some(b'u') => {
                        let (char, len) = escaped_char(&quoted[at..]).unwrap_or(('\\', 1));
                        self.text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                        self.text.extend_from_slice(if len == 1 { b"u" } else { b"" });
                        bytes.by_ref().take(len.saturating_sub(2)).for_each(drop);
                    }
                    Some(other) => self.text.extend_from_slice(&[b'\\', *other]),
                    None => break,
                },
                byte => self.text.push(byte),
            }
        }
        Err(Reject::Cut)
    }
}

/// Returns the character of the escapes `\u00e4` or `\ud83e\udd80` at the beginning of `text`, and their length.
fn escaped_char(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, 6));
    }
    let char = char::decode_utf16([first, unit(6)?]).next()?.ok()?;
    Some((char, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<String>, Reject> {
        let wanted: Wanted = ["level", "msg", "dur"].into_iter().collect();
        let mut spans = [Span::MISSING; 3];
        let mut logfmt = Logfmt::default();
        let text = logfmt.read(line.as_bytes(), &wanted, &mut spans)?;
        let text =
            |span: &Span| span.of(text).map_or("MISSING", |text| str::from_utf8(text).unwrap()).to_owned();
        Ok(spans.iter().map(text).collect())
    }

    #[test]
    fn values_are_found_by_key() {
        for (line, expected) in [
            (r#"ts=1 level=info msg="it \"works\"" dur=1.5ms"#, ["info", "it \"works\"", "1.5ms"]),
            (r#"level="\u00e4\ud83e\udd80b" msg="\u12" dur="\ud83e""#, ["ä🦀b", r"\u12", r"\ud83e"]),
            ("level=warn msg= flag", ["warn", "", "MISSING"]),
            ("dur level=x", ["x", "MISSING", ""]),
            (r#"  level="a\\b"  x=1 level="a\\b" "#, ["a\\b", "MISSING", "MISSING"]),
        ] {
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for (line, why) in [
            ("plain text", SHAPE),
            (r#"level="open"#, Reject::Cut),
            (r#"level="a"b"#, SHAPE),
            ("=x", SHAPE),
            ("level=a level=b", Reject::Value("a wanted key is there twice, with different values")),
        ] {
            assert_eq!(read(line), Err(why), "{line}");
        }
    }
}
