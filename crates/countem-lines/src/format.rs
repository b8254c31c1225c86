//! Formats of lines.

mod columns;
mod combined;
mod detect;
mod logfmt;
mod ndjson;
mod pattern;
mod regex;
mod syslog;

use self::{
    columns::{Columns, Layout as ColumnLayout},
    combined::{COMBINED, COMMON, Combined},
    logfmt::Logfmt,
    ndjson::Ndjson,
    regex::Regex,
    syslog::Syslog,
};
use crate::{DefinitionError, Reject, Span, TimeFormat, Wanted};

/// A format that is known by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Access logs of Apache and nginx with referer and agent.
    Combined,
    /// Access logs without referer and agent.
    Common,
    /// A JSON object in each line.
    Ndjson,
    /// JSON as `journalctl -o json` writes it.
    Journald,
    /// Pairs of keys and values.
    Logfmt,
    /// RFC 5424 and RFC 3164.
    Syslog,
    /// W3C extended: IIS and CloudFront.
    W3c,
    /// Columns between commas.
    Csv,
    /// Columns between tabs.
    Tsv,
}

impl Kind {
    /// Every kind with its name and what it reads.
    pub const ALL: [(Self, &'static str, &'static str); 9] = [
        (Self::Combined, "combined", "Apache and nginx access logs with referer and agent"),
        (Self::Common, "common", "Access logs without referer and agent"),
        (Self::Ndjson, "ndjson", "One JSON object per line; fields are `{key}` or pointers `{/a/b}`"),
        (Self::Journald, "journald", "The same as `journalctl -o json` writes it"),
        (Self::Logfmt, "logfmt", "`key=value` pairs; fields are keys"),
        (
            Self::Syslog,
            "syslog",
            "RFC 5424 and RFC 3164; fields are pri facility severity time host app pid msgid message",
        ),
        (Self::W3c, "w3c", "W3C extended, of IIS and CloudFront; fields are those of the `#Fields:` line"),
        (Self::Csv, "csv", "Columns between commas; fields are `{1}`, `{2}` or names with `--header`"),
        (Self::Tsv, "tsv", "Columns between tabs; fields are `{1}`, `{2}` or names with `--header`"),
    ];

    /// Returns the name, as `--format` has it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// Returns the kind of which all lines of `sample` are, `None` where that is not clear. An incomplete last line is ignored.
    pub fn detect(sample: &[u8]) -> Option<Self> {
        detect::kind(sample)
    }

    /// Returns the fields that hold the time of a line, and its notation, where the format fixes them.
    pub fn time(self) -> Option<(&'static str, TimeFormat)> {
        match self {
            Self::Combined | Self::Common => Some(("time", TimeFormat::Clf)),
            Self::Journald => Some(("__REALTIME_TIMESTAMP", TimeFormat::Unix { digits: 6 })),
            Self::Syslog => Some(("time", TimeFormat::Auto)),
            Self::W3c => Some(("date time", TimeFormat::Auto)),
            Self::Ndjson | Self::Logfmt | Self::Csv | Self::Tsv => None,
        }
    }

    /// Tells whether the standard of the format says that times are in UTC.
    pub fn is_in_utc(self) -> bool {
        self == Self::W3c
    }
}

/// Finds the wanted fields of a line.
#[derive(Debug, Clone)]
pub struct Format(Layout);

#[derive(Debug, Clone)]
enum Layout {
    Combined(Combined),
    Ndjson(Ndjson),
    Logfmt(Logfmt, Wanted),
    Syslog(Syslog),
    Columns(Columns, Wanted),
    Regex(Regex),
    /// A regular expression made of a server's format string.
    Pattern(Regex),
}

impl Format {
    /// Prepares to find `wanted` in lines of `kind`. With `header`, the first line of every file names the columns.
    ///
    /// # Errors
    /// A [`DefinitionError`] that lists the available fields when the format cannot have one of them.
    pub fn new(kind: Kind, header: bool, wanted: &Wanted) -> Result<Self, DefinitionError> {
        let columns = match kind {
            Kind::Csv => Some(ColumnLayout::Csv),
            Kind::Tsv => Some(ColumnLayout::Tsv),
            _ => None,
        };
        // The names of W3C columns always come with the file.
        if header && columns.is_none() && kind != Kind::W3c {
            return Err(DefinitionError::new("`--header` goes with `--format csv` and `tsv`"));
        }
        Ok(Self(match (kind, columns) {
            (_, Some(layout)) if header => Layout::Columns(Columns::with_header(layout), wanted.clone()),
            (_, Some(layout)) => Layout::Columns(Columns::numbered(layout, wanted)?, wanted.clone()),
            (Kind::Combined, _) => Layout::Combined(Combined::new(&COMBINED, wanted)?),
            (Kind::Common, _) => Layout::Combined(Combined::new(&COMMON, wanted)?),
            (Kind::Logfmt, _) => Layout::Logfmt(Logfmt::default(), wanted.clone()),
            (Kind::Syslog, _) => Layout::Syslog(Syslog::new(wanted)?),
            (Kind::W3c, _) => Layout::Columns(Columns::with_directives(), wanted.clone()),
            _ => Layout::Ndjson(Ndjson::new(wanted)?),
        }))
    }

    /// Prepares to find `wanted` among the groups of `pattern`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when the pattern is malformed or has no such group.
    pub fn regex(pattern: &str, wanted: &Wanted) -> Result<Self, DefinitionError> {
        Ok(Self(Layout::Regex(Regex::new(pattern, wanted)?)))
    }

    /// Prepares to find `wanted` in lines that a server writes with the format string `text`: nginx's `log_format` or Apache's
    /// `LogFormat`. The fields have the names of the combined format, others those of their variables.
    ///
    /// # Errors
    /// A [`DefinitionError`] when the text is no format string, or has no such field.
    pub fn server(text: &str, wanted: &Wanted) -> Result<Self, DefinitionError> {
        let pattern = pattern::pattern(text)?;
        if let Some(name) = wanted.names().iter().find(|name| pattern.doubled.contains(name)) {
            let why = format!("two of its variables are `{name}`: take one of them out, or use `--regex`");
            return Err(DefinitionError::new(format!("cannot understand `--log-format {text}`: {why}")));
        }
        let regex = Regex::new(&pattern.regex, wanted)?;
        Ok(Self(Layout::Pattern(regex.refusing("not in the format of `--log-format`"))))
    }

    /// Returns whether `pattern` has a group called `name`.
    pub fn regex_has_group(pattern: &str, name: &str) -> bool {
        regex::has_group(pattern, name)
    }

    /// Returns the notation of the time in lines that are written with the format string `text`, `None` where it has no time.
    pub fn server_time(text: &str) -> Option<TimeFormat> {
        let pattern = pattern::pattern(text).ok()?;
        regex::has_group(&pattern.regex, "time")
            .then(|| pattern::time_format(text).unwrap_or(TimeFormat::Auto))
    }

    /// Returns the text that stands for a field which a line lacks, `None` where a template that needs it is skipped.
    #[inline]
    pub fn absent(&self) -> Option<&'static str> {
        matches!(self.0, Layout::Combined(_) | Layout::Pattern(_)).then_some("-")
    }

    /// Returns whether a record may have several lines.
    #[inline]
    pub fn joins_lines(&self) -> bool {
        matches!(&self.0, Layout::Columns(columns, _) if columns.joins_lines())
    }

    /// Returns the length of the record that `bytes` begins with, in a format that [`joins_lines`](Self::joins_lines), up to and with
    /// its newline; `None` when its end is not among the bytes.
    pub fn record_len(bytes: &[u8]) -> Option<usize> {
        columns::record_len(bytes)
    }

    /// Returns whether the first line of every file names the columns.
    pub fn has_header(&self) -> bool {
        matches!(&self.0, Layout::Columns(columns, _) if columns.has_header())
    }

    /// Reads the names of the columns from the first line of a file.
    ///
    /// # Errors
    /// A [`DefinitionError`] that lists the columns when a wanted one is not among them.
    pub fn read_header(&mut self, line: &[u8], wanted: &Wanted) -> Result<(), DefinitionError> {
        match &mut self.0 {
            Layout::Columns(columns, _) => columns.read_header(line, wanted),
            _ => Ok(()),
        }
    }

    /// Tells whether `line` is a directive that names fields.
    pub fn names_fields(line: &[u8]) -> bool {
        line.starts_with(columns::FIELDS)
    }

    /// Tells whether `line` is a directive of a W3C extended log file, whose times are in UTC. It is a record of no format.
    #[inline]
    pub fn is_directive(line: &[u8]) -> bool {
        line.first() == Some(&b'#') && columns::DIRECTIVES.iter().any(|directive| line.starts_with(directive))
    }

    /// Reads a directive that came before the lines.
    pub fn read_directive(&mut self, line: &[u8]) {
        // Its result says only that it is no record.
        self.read(line, &mut []).ok();
    }

    /// Finds the wanted fields of `line` and returns the bytes in which `spans` lie.
    ///
    /// # Errors
    /// The line does not have the shape of the format.
    #[inline]
    pub fn read<'a>(&'a mut self, line: &'a [u8], spans: &mut [Span]) -> Result<&'a [u8], Reject> {
        match &mut self.0 {
            Layout::Combined(combined) => combined.read(line, spans).map(|()| line),
            Layout::Ndjson(ndjson) => ndjson.read(line, spans),
            Layout::Logfmt(logfmt, wanted) => logfmt.read(line, wanted, spans),
            Layout::Syslog(syslog) => syslog.read(line, spans),
            Layout::Columns(columns, wanted) => columns.read(line, wanted, spans),
            Layout::Regex(regex) => regex.read_text(line, spans),
            Layout::Pattern(regex) => regex.read(line, spans).map(|()| line),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every format with a field or two.
    fn formats() -> Vec<(Format, Wanted)> {
        let wanted = |names: &[&str]| names.iter().copied().collect::<Wanted>();
        let log = wanted(&["time", "host", "user", "method", "path", "query", "protocol", "status", "bytes"]);
        let all = wanted(&["request", "referer", "agent", "path", "time"]);
        let json = wanted(&["a", "/b/0", "/b/c~1d", "time"]);
        let columns = wanted(&["1", "3"]);
        let groups = wanted(&["x", "1"]);
        let system = wanted(&["severity", "time", "app", "pid", "message"]);
        let server = wanted(&["x", "time", "path"]);
        vec![
            (Format::new(Kind::Common, false, &log).unwrap(), log.clone()),
            (Format::new(Kind::Combined, false, &all).unwrap(), all),
            (Format::new(Kind::Ndjson, false, &json).unwrap(), json.clone()),
            (Format::new(Kind::Tsv, false, &columns).unwrap(), columns.clone()),
            (Format::new(Kind::Csv, false, &columns).unwrap(), columns.clone()),
            (Format::new(Kind::Logfmt, false, &json).unwrap(), json),
            (Format::new(Kind::Syslog, false, &system).unwrap(), system),
            (Format::new(Kind::W3c, false, &columns).unwrap(), columns),
            (Format::regex("(?<x>a+)|b(c)?", &groups).unwrap(), groups),
            (Format::server("$x [$time_local] \"$request\"", &server).unwrap(), server),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_format_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            for (mut format, wanted) in formats() {
                let mut spans = vec![Span::MISSING; wanted.names().len()];
                if let Ok(text) = format.read(&line, &mut spans) {
                    let text = text.to_vec();
                    spans.iter().for_each(|span| { span.of(&text); });
                }
            }
        }

        #[test]
        fn no_damage_to_a_line_makes_formats_panic(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let log = br#"::1 - jo doe [17/May/2015:10:05:03 +0200] "GET /a?b HTTP/1.1" 200 12 "a \" b" "c""#;
            let json = br#"{"a":1,"b":{"c/d":"x\n\u00e9"},"time":[1,2]}"#;
            let syslog = br#"<165>1 2003-10-11T22:14:15.003Z host app 4711 ID47 [a@1 k="v]"] a=1 time="x\"" "#;
            for good in [&log[..], json, syslog, b"<34>Oct 11 22:14:15 host su[12]: x", b"a,\"b\"\"\",c"] {
                let mut line = good.to_vec();
                let at = at.index(line.len());
                line[at] = byte;
                line.truncate(cut.index(line.len() + 1));
                for (mut format, wanted) in formats() {
                    let mut spans = vec![Span::MISSING; wanted.names().len()];
                    if let Ok(text) = format.read(&line, &mut spans) {
                        let text = text.to_vec();
                        spans.iter().for_each(|span| { span.of(&text); });
                    }
                }
            }
        }
    }
}
