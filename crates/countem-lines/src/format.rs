//! Formats of lines.

mod combined;
mod ndjson;
mod regex;
mod tsv;

use self::{
    combined::{COMBINED, COMMON, Combined},
    ndjson::Ndjson,
    regex::Regex,
    tsv::Tsv,
};
use crate::{DefinitionError, Reject, Span, Wanted};

/// A format that is known by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Access logs of Apache and nginx with referer and agent.
    Combined,
    /// Access logs without referer and agent.
    Common,
    /// A JSON object in each line.
    Ndjson,
    /// Columns between tabs.
    Tsv,
}

impl Kind {
    /// Every kind with its name and what it reads.
    pub const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Combined, "combined", "Apache and nginx access logs with referer and agent"),
        (Self::Common, "common", "Access logs without referer and agent"),
        (Self::Ndjson, "ndjson", "One JSON object per line; fields are `{key}` or pointers `{/a/b}`"),
        (Self::Tsv, "tsv", "Columns between tabs; fields are `{1}`, `{2}` or names with `--header`"),
    ];
}

/// Finds the wanted fields of a line.
#[derive(Debug, Clone)]
pub struct Format(Layout);

#[derive(Debug, Clone)]
enum Layout {
    Combined(Combined),
    Ndjson(Ndjson),
    Tsv(Tsv),
    Regex(Regex),
}

impl Format {
    /// Prepares to find `wanted` in lines of `kind`. With `header`, the first line of every file names the columns.
    ///
    /// # Errors
    /// A [`DefinitionError`] that lists the available fields when the format cannot have one of them.
    pub fn new(kind: Kind, header: bool, wanted: &Wanted) -> Result<Self, DefinitionError> {
        if header && kind != Kind::Tsv {
            return Err(DefinitionError::new("`--header` goes with `--format tsv`").into());
        }
        Ok(Self(match kind {
            Kind::Combined => Layout::Combined(Combined::new(&COMBINED, wanted)?),
            Kind::Common => Layout::Combined(Combined::new(&COMMON, wanted)?),
            Kind::Ndjson => Layout::Ndjson(Ndjson::new(wanted)?),
            Kind::Tsv if header => Layout::Tsv(Tsv::with_header(wanted)),
            Kind::Tsv => Layout::Tsv(Tsv::numbered(wanted)?),
        }))
    }

    /// Prepares to find `wanted` among the groups of `pattern`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when the pattern is malformed or has no such group.
    pub fn regex(pattern: &str, wanted: &Wanted) -> Result<Self, DefinitionError> {
        Ok(Self(Layout::Regex(Regex::new(pattern, wanted)?)))
    }

    /// Returns whether `pattern` has a group called `name`.
    pub fn regex_has_group(pattern: &str, name: &str) -> bool {
        regex::has_group(pattern, name)
    }

    /// Returns the text that stands for a field which a line lacks, `None` where such a line is rejected.
    #[inline]
    pub fn absent(&self) -> Option<&'static str> {
        matches!(self.0, Layout::Combined(_)).then_some("-")
    }

    /// Returns whether the first line of every file names the columns.
    pub fn has_header(&self) -> bool {
        matches!(&self.0, Layout::Tsv(tsv) if tsv.has_header())
    }

    /// Reads the names of the columns from the first line of a file.
    ///
    /// # Errors
    /// A [`DefinitionError`] that lists the columns when a wanted one is not among them.
    pub fn read_header(&mut self, line: &[u8], wanted: &Wanted) -> Result<(), DefinitionError> {
        match &mut self.0 {
            Layout::Tsv(tsv) => tsv.read_header(line, wanted),
            _ => Ok(()),
        }
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
            Layout::Tsv(tsv) => tsv.read(line, spans).map(|()| line),
            Layout::Regex(regex) => regex.read(line, spans).map(|()| line),
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
        vec![
            (Format::new(Kind::Common, false, &log).unwrap(), log.clone()),
            (Format::new(Kind::Combined, false, &all).unwrap(), all),
            (Format::new(Kind::Ndjson, false, &json).unwrap(), json),
            (Format::new(Kind::Tsv, false, &columns).unwrap(), columns),
            (Format::regex("(?<x>a+)|b(c)?", &groups).unwrap(), groups),
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
            for good in [&log[..], br#"{"a":1,"b":{"c/d":"x\n\u00e9"},"time":[1,2]}"#] {
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
