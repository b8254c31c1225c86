//! Syslog lines, of RFC 5424 and of RFC 3164 with the variations that daemons write.
//!
//! ```text
//! <165>1 2003-10-11T22:14:15.003Z host app 4711 ID47 [sd@1 k="v"] message
//! <34>Oct 11 22:14:15 host app[4711]: message
//! 2022-09-28T01:34:02+02:00 host app: message
//! ```

use memchr::memchr;

use crate::{DefinitionError, Reject, Span, Wanted};

const FIELDS: [&str; 9] = ["pri", "facility", "severity", "time", "host", "app", "pid", "msgid", "message"];
const PRI: usize = 0;
const FACILITY: usize = 1;
const SEVERITY: usize = 2;
const TIME: usize = 3;
const HOST: usize = 4;
const APP: usize = 5;
const PID: usize = 6;
const MSGID: usize = 7;
const MESSAGE: usize = 8;

const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// Words behind a time that are zones rather than hosts.
const NO_HOSTS: [&[u8]; 6] = [b"UTC", b"GMT", b"Z", b"CET", b"CEST", b"EST"];
/// Length of `Oct 11 22:14:15`.
const BSD_TIME: usize = 15;

/// Finds the parts of syslog lines.
#[derive(Debug, Clone)]
pub(super) struct Syslog {
    /// The field for each wanted one.
    plan: Vec<usize>,
    /// The line, and the names of its facility and severity.
    text: Vec<u8>,
}

impl Syslog {
    /// Prepares to find `wanted`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when a field is not one of the format.
    pub(super) fn new(wanted: &Wanted) -> Result<Self, DefinitionError> {
        let field = |name: &String| {
            let found = FIELDS.iter().position(|field| field == name);
            found.ok_or_else(|| DefinitionError::unknown_field(name, &FIELDS))
        };
        Ok(Self { plan: wanted.names().iter().map(field).collect::<Result<_, _>>()?, text: Vec::new() })
    }

    /// Finds the wanted parts and returns the bytes in which `spans` lie.
    ///
    /// # Errors
    /// The line has another shape.
    pub(super) fn read(&mut self, line: &[u8], spans: &mut [Span]) -> Result<&[u8], Reject> {
        let mut fields = [Span::MISSING; FIELDS.len()];
        let mut cursor = Cursor { line, at: 0 };
        let priority = cursor.priority(&mut fields)?;
        let is_new = priority.is_some() && cursor.rest().starts_with(b"1 ");
        let found = if is_new { cursor.new_style(&mut fields) } else { cursor.old_style(&mut fields) };
        found.ok_or(Reject::Shape("not a syslog line"))?;
        self.text.clear();
        self.text.extend_from_slice(line);
        if let Some(priority) = priority {
            for (field, name) in [(FACILITY, FACILITIES[priority >> 3]), (SEVERITY, SEVERITIES[priority & 7])]
            {
                fields[field] = Span::new(self.text.len(), self.text.len() + name.len());
                self.text.extend_from_slice(name.as_bytes());
            }
        }
        for (span, field) in spans.iter_mut().zip(&self.plan) {
            *span = fields[*field];
        }
        Ok(&self.text)
    }
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        &self.line[self.at..]
    }

    /// Takes the bytes up to the next space, and that space.
    fn word(&mut self) -> Option<Span> {
        let len = memchr(b' ', self.rest())?;
        let span = Span::new(self.at, self.at + len);
        self.at += len + 1;
        (len > 0).then_some(span)
    }

    /// Takes `<34>`.
    fn priority(&mut self, fields: &mut [Span]) -> Result<Option<usize>, Reject> {
        if self.rest().first() != Some(&b'<') {
            return Ok(None);
        }
        let end = memchr(b'>', &self.rest()[..self.rest().len().min(5)]);
        let digits = end.map(|end| &self.line[1..end]).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let number = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
        match (end, number) {
            (Some(end), Some(number)) if number < FACILITIES.len() * SEVERITIES.len() => {
                fields[PRI] = Span::new(1, end);
                self.at = end + 1;
                Ok(Some(number))
            }
            _ => Err(Reject::Shape("not a syslog line: its priority is not one")),
        }
    }

    /// RFC 5424: a nil value, `-`, is a missing one.
    fn new_style(&mut self, fields: &mut [Span]) -> Option<()> {
        self.word()?;
        for field in [TIME, HOST, APP, PID, MSGID] {
            let word = self.word()?;
            if has_priority(word.of(self.line)?) {
                return None;
            }
            if word.of(self.line)? != b"-" {
                fields[field] = word;
            }
        }
        self.structured_data()?;
        // The standard marks texts in UTF-8 by it.
        self.at += if self.rest().starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        fields[MESSAGE] = Span::new(self.at, self.line.len());
        Some(())
    }

    fn structured_data(&mut self) -> Option<()> {
        if self.rest().starts_with(b"-") {
            self.at += 1;
        } else {
            while self.rest().first() == Some(&b'[') {
                let mut is_quoted = false;
                let mut bytes = self.rest().iter().enumerate().skip(1);
                let len = loop {
                    match bytes.next()? {
                        (_, b'\\') if is_quoted => drop(bytes.next()),
                        (_, b'"') => is_quoted = !is_quoted,
                        (at, b']') if !is_quoted => break at + 1,
                        _ => {}
                    }
                };
                self.at += len;
            }
        }
        match self.rest() {
            [] => Some(()),
            [b' ', ..] => {
                self.at += 1;
                Some(())
            }
            _ => None,
        }
    }

    /// RFC 3164, with its own times or those of RFC 3339.
    fn old_style(&mut self, fields: &mut [Span]) -> Option<()> {
        let rest = self.rest();
        let is_bsd = rest.len() > BSD_TIME
            && rest[..3].iter().all(u8::is_ascii_alphabetic)
            && rest[3] == b' '
            && rest[9] == b':'
            && rest[12] == b':'
            && rest[BSD_TIME] == b' ';
        if is_bsd {
            fields[TIME] = Span::new(self.at, self.at + BSD_TIME);
            self.at += BSD_TIME + 1;
        } else {
            let time = self.word()?;
            let text = time.of(self.line)?;
            // A date and a time in one word.
            (text.len() > 15 && text[..4].iter().all(u8::is_ascii_digit) && text[10] == b'T').then_some(())?;
            fields[TIME] = time;
        }
        let host = self.word()?;
        let name = host.of(self.line)?;
        if NO_HOSTS.contains(&name) || has_priority(name) {
            return None;
        }
        if name.ends_with(b":") {
            // Local programs leave out the host: this is the tag.
            self.at -= name.len() + 1;
        } else {
            fields[HOST] = host;
        }
        let tag_end = self.rest().iter().position(|byte| matches!(byte, b':' | b'[' | b' '))?;
        let tag = Span::new(self.at, self.at + tag_end);
        match self.rest().get(tag_end..)? {
            [b':', ..] => self.at += tag_end + 1,
            [b'[', after @ ..] => {
                let len = memchr(b']', after)
                    .filter(|len| !after[..*len].iter().any(|byte| b" [".contains(byte)))?;
                fields[PID] = Span::new(self.at + tag_end + 1, self.at + tag_end + 1 + len);
                self.at += tag_end + len + 2;
                if self.rest().first() == Some(&b':') {
                    self.at += 1;
                }
            }
            // A message without a tag.
            _ => {
                fields[MESSAGE] = Span::new(self.at, self.line.len());
                return Some(());
            }
        }
        fields[APP] = tag;
        if matches!(self.rest(), [b'<', digit, ..] if digit.is_ascii_digit()) {
            return None;
        }
        let begin = self.at + usize::from(self.rest().first() == Some(&b' '));
        fields[MESSAGE] = Span::new(begin, self.line.len());
        Some(())
    }
}

/// Tells whether a name has a priority inside: a lost newline has joined two records.
fn has_priority(name: &[u8]) -> bool {
    name.windows(2).any(|pair| pair[0] == b'<' && pair[1].is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<String> {
        let wanted: Wanted = FIELDS.into_iter().collect();
        let mut spans = [Span::MISSING; FIELDS.len()];
        let mut syslog = Syslog::new(&wanted).unwrap();
        let text = syslog.read(line.as_bytes(), &mut spans).ok()?;
        let text = |span: &Span| span.of(text).map_or("∅", |text| str::from_utf8(text).unwrap()).to_owned();
        Some(spans.iter().map(text).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn both_standards_are_read() {
        for (line, expected) in [
            (
                r#"<165>1 2003-10-11T22:14:15.003Z host app 4711 ID47 [a@1 k="v]"][b@2] hi there"#,
                "165|local4|notice|2003-10-11T22:14:15.003Z|host|app|4711|ID47|hi there",
            ),
            ("<34>1 - - a - - - \u{feff}up", "34|auth|crit|∅|∅|a|∅|∅|up"),
            ("<34>1 - - - - - -", "34|auth|crit|∅|∅|∅|∅|∅|"),
            (
                "<34>Oct 11 22:14:15 host su[12]: 'su root' failed",
                "34|auth|crit|Oct 11 22:14:15|host|su|12|∅|'su root' failed",
            ),
            ("Sep  8 01:34:02 web1 sshd: up", "∅|∅|∅|Sep  8 01:34:02|web1|sshd|∅|∅|up"),
            ("2022-09-28T01:34:02+02:00 web1 a/b[1] x", "∅|∅|∅|2022-09-28T01:34:02+02:00|web1|a/b|1|∅|x"),
            ("Sep 28 01:34:02 su[1]: x", "∅|∅|∅|Sep 28 01:34:02|∅|su|1|∅|x"),
            ("Sep 28 01:34:02 web1 no tag here", "∅|∅|∅|Sep 28 01:34:02|web1|∅|∅|∅|no tag here"),
        ] {
            assert_eq!(read(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "hello",
            "<999>Oct 11 22:14:15 h a: x",
            "<34",
            "<+34>Oct 11 22:14:15 h a: x",
            "<34>Oct 11 22:14:15 h a[1]:<34>Oct 11 22:14:15 h a: x",
            "<34>1 2003-10-11T22:14:15Z ho<34>1 2003-10-11T22:14:15Z host app - - - x",
            "<34>1 x",
            "<34>1 - - - - - [open",
            "Sep 28 01:34:02",
            "Sep 28 01:34:02 web1 sshd[12 open [x] y",
            "Sep 28 01:34:02 UTC web1 sshd: x",
            "Sep 28 01:34:02 web1.ex<34>Sep 28 01:34:02 web1 sshd: x",
            "Sep 28 01:34:02 h",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
