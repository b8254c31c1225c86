//! Recognising a format by the first lines of a file.

use super::{Format, Kind};
use crate::{Reject, Span, Wanted};

/// Lines that are looked at.
const SAMPLE: usize = 20;

/// Formats with a shape of their own, the narrowest first.
const SHAPED: [Kind; 5] = [Kind::Combined, Kind::Common, Kind::Journald, Kind::Ndjson, Kind::Syslog];
/// Keys that every line of journald has.
const JOURNALD: [&str; 2] = ["__REALTIME_TIMESTAMP", "_BOOT_ID"];

pub(super) fn kind(sample: &[u8]) -> Option<Kind> {
    let text = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample);
    // A sample without any newline is one line.
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(text, |end| &text[..end]);
    let lines = whole.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).take(SAMPLE).collect();
    let (first, rest) = lines.split_first()?;
    if lines.iter().any(|line| line.starts_with(b"#Fields:")) {
        return Some(Kind::W3c);
    }
    if let Some(kind) = SHAPED.into_iter().find(|kind| has_shape(*kind, &lines)) {
        return Some(kind);
    }
    // Several columns, as many in each line.
    let columns = |separator: u8| {
        let count = |line: &[u8]| line.iter().filter(|&&byte| byte == separator).count();
        count(first) > 0 && rest.iter().all(|line| count(line) == count(first))
    };
    match () {
        () if columns(b'\t') => Some(Kind::Tsv),
        () if has_shape(Kind::Logfmt, &lines) => Some(Kind::Logfmt),
        () if columns(b',') => Some(Kind::Csv),
        () => None,
    }
}

/// Tells whether most lines can be read as `kind`, the first one included.
fn has_shape(kind: Kind, lines: &[&[u8]]) -> bool {
    let wanted: Wanted =
        if kind == Kind::Journald { JOURNALD.into_iter().collect() } else { Wanted::default() };
    let Ok(mut format) = Format::new(kind, false, &wanted) else { return false };
    let mut spans = vec![Span::MISSING; wanted.names().len()];
    let mut read = |line: &&&[u8]| {
        let found = format.read(line, &mut spans);
        // Two objects on a line are still objects.
        let is_shaped = found.is_ok() || matches!(found, Err(Reject::Joined(_)));
        is_shaped && !spans.contains(&Span::MISSING)
    };
    let first = lines.iter().take(1).filter(&mut read).count();
    first + lines.iter().skip(1).filter(&mut read).count() > lines.len() / 2 && first == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_tell_the_format() {
        let combined = r#"192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 12"#;
        for (sample, expected) in [
            (format!("{combined} \"-\" \"A\"\n"), Some(Kind::Combined)),
            (format!("{combined}\n"), Some(Kind::Common)),
            ("{\"a\":1}\n{\"a\":2}{\"a\":3}\n{\"a".to_owned(), Some(Kind::Ndjson)),
            ("{\"__REALTIME_TIMESTAMP\":\"1\",\"_BOOT_ID\":\"x\"}\n".to_owned(), Some(Kind::Journald)),
            ("Sep 28 01:34:02 web1 sshd[1]: up\n".to_owned(), Some(Kind::Syslog)),
            ("<34>1 - - - - - -\n".to_owned(), Some(Kind::Syslog)),
            ("level=info msg=\"a, b\"\nlevel=warn msg=x\n".to_owned(), Some(Kind::Logfmt)),
            ("#Version: 1.0\n#Fields: date time\n2015-08-23 10:00:00\n".to_owned(), Some(Kind::W3c)),
            ("a\tb\n1\t2\n".to_owned(), Some(Kind::Tsv)),
            ("a,b\n1,2\n".to_owned(), Some(Kind::Csv)),
            ("hello world\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(kind(sample.as_bytes()), expected, "{sample}");
        }
    }
}
