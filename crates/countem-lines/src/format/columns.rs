//! Columns between tabs or commas, and the W3C extended format of IIS and CloudFront.

use memchr::{memchr, memchr_iter, memchr2};

use crate::{DefinitionError, Reject, Span, Wanted};

/// Finds columns by number or by name.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    layout: Layout,
    /// The column for each wanted field, counted from zero. Empty until the names are known.
    columns: Vec<usize>,
    names: Names,
    /// Number of columns that have names, unlimited where they have numbers only.
    named: usize,
    /// The first line, which files that were put behind each other have again.
    header: Vec<u8>,
    /// The unquoted columns of the current line.
    text: Vec<u8>,
    /// They are in `text`.
    is_unquoted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Between tabs, without quotes.
    Tsv,
    /// Between commas, with quotes (RFC 4180).
    Csv,
    /// Between spaces or tabs. Lines with `#` are directives, and `#Fields:` names the columns.
    W3c,
}

/// The origin of the names of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Columns have numbers only.
    Numbers,
    /// The first line of every file.
    Header,
    /// Directives, which may change the columns inside of a file.
    Directive,
}

/// Opening of the directive that names the columns.
pub(super) const FIELDS: &[u8] = b"#Fields:";
/// Openings of the directives of W3C extended log files.
pub(super) const DIRECTIVES: [&[u8]; 7] =
    [FIELDS, b"#Version:", b"#Software:", b"#Date:", b"#Start-Date:", b"#End-Date:", b"#Remark:"];

impl Columns {
    /// Prepares to find columns by number, counted from one.
    ///
    /// # Errors
    /// A [`DefinitionError`] when a field is no number.
    pub(super) fn numbered(layout: Layout, wanted: &Wanted) -> Result<Self, DefinitionError> {
        let mut columns = Vec::new();
        for name in wanted.names() {
            let number = column_number(name).ok_or_else(|| {
                let advice = "columns are numbers from `{1}`, or names with `--header`";
                DefinitionError::new(format!("there is no column `{{{name}}}`: {advice}"))
            })?;
            columns.push(number);
        }
        Ok(Self { columns, ..Self::new(layout, Names::Numbers) })
    }

    /// Prepares to read the names of the columns from the first line of every file.
    pub(super) fn with_header(layout: Layout) -> Self {
        Self::new(layout, Names::Header)
    }

    /// Prepares to read the names of the columns from directives.
    pub(super) fn with_directives() -> Self {
        Self::new(Layout::W3c, Names::Directive)
    }

    fn new(layout: Layout, names: Names) -> Self {
        let (columns, header, text) = (Vec::new(), Vec::new(), Vec::new());
        Self { layout, columns, names, named: usize::MAX, header, text, is_unquoted: false }
    }

    /// Tells whether a record may have several lines.
    pub(super) fn joins_lines(&self) -> bool {
        self.layout == Layout::Csv
    }

    /// Tells whether the first line of every file names the columns.
    pub(super) fn has_header(&self) -> bool {
        self.names == Names::Header
    }

    /// Reads the names of the columns. A wanted number that is no name is the number of a column.
    ///
    /// # Errors
    /// A [`DefinitionError`] when there is no such column.
    pub(super) fn read_header(&mut self, line: &[u8], wanted: &Wanted) -> Result<(), DefinitionError> {
        if DIRECTIVES.iter().any(|directive| line.starts_with(directive)) {
            // A file with directives names its columns there, whatever separates them.
            *self = Self::with_directives();
            self.directive(line, wanted);
            return Ok(());
        }
        let mut spans = Vec::new();
        let text = self.cut(line, |_, span| spans.push(span)).unwrap_or_default();
        let titles: Vec<_> =
            spans.iter().filter_map(|span| span.of(text)).map(String::from_utf8_lossy).collect();
        let titles: Vec<&str> = titles.iter().map(|title| title.trim()).collect();
        (self.columns, self.named) = (find(&titles, wanted)?, titles.len());
        self.header = line.to_vec();
        Ok(())
    }

    /// Finds the wanted columns and returns the bytes in which `spans` lie. Columns that a line lacks are missing.
    ///
    /// # Errors
    /// The line is a directive, its columns have no names yet, it has more of them, or a quoted column does not end.
    #[inline]
    pub(super) fn read<'a>(
        &'a mut self,
        line: &'a [u8],
        wanted: &Wanted,
        spans: &mut [Span],
    ) -> Result<&'a [u8], Reject> {
        if self.names == Names::Directive && line.first() == Some(&b'#') {
            return Err(self.directive(line, wanted));
        }
        if self.names == Names::Header && line == self.header {
            return Err(Reject::Directive);
        }
        if self.columns.len() < spans.len() {
            let why = "no `#Fields:` line comes before it, or it lacks a wanted field or has it twice";
            return Err(Reject::Shape(why));
        }
        spans.fill(Span::MISSING);
        // Borrowed apart from the rest.
        let (columns, named) = (std::mem::take(&mut self.columns), self.named);
        let (mut has_more, mut last) = (false, 0);
        let cut = self.cut(line, |column, found| {
            has_more |= column >= named && !found.is_empty();
            last = column;
            for (span, wanted) in spans.iter_mut().zip(&columns) {
                if *wanted == column {
                    *span = found;
                }
            }
        });
        let is_whole = cut.is_some();
        self.columns = columns;
        match is_whole {
            false => Err(Reject::Shape("a quoted column does not end")),
            // A separator inside of a value moves those behind it.
            true if has_more => Err(Reject::Shape("more columns than are named")),
            // A line that was cut off, maybe inside of its last value.
            true if named != usize::MAX && last + 1 < named => {
                Err(Reject::Shape("fewer columns than are named"))
            }
            true if self.is_unquoted => Ok(&self.text),
            true => Ok(line),
        }
    }

    fn directive(&mut self, line: &[u8], wanted: &Wanted) -> Reject {
        if let Some(names) = line.strip_prefix(FIELDS) {
            let names = String::from_utf8_lossy(names);
            let titles: Vec<_> = names.split_whitespace().collect();
            self.columns = find(&titles, wanted).unwrap_or_default();
            self.named = titles.len();
        }
        Reject::Directive
    }

    /// Calls `found` with the number and the span of each column; `None` when a quoted column does not end.
    #[inline]
    fn cut<'a>(&'a mut self, line: &'a [u8], mut found: impl FnMut(usize, Span)) -> Option<&'a [u8]> {
        let mut start = 0;
        self.is_unquoted = false;
        match self.layout {
            Layout::Tsv => {
                for (column, end) in memchr_iter(b'\t', line).chain([line.len()]).enumerate() {
                    found(column, Span::new(start, end));
                    start = end + 1;
                }
                Some(line)
            }
            Layout::W3c => {
                // CloudFront writes tabs, and spaces only escaped.
                let separator = if line.contains(&b'\t') { b'\t' } else { b' ' };
                if memchr(b'"', line).is_some() {
                    return self.cut_quoted(line, separator, found);
                }
                for (column, end) in memchr_iter(separator, line).chain([line.len()]).enumerate() {
                    found(column, Span::new(start, end));
                    start = end + 1;
                }
                Some(line)
            }
            Layout::Csv => self.cut_quoted(line, b',', found),
        }
    }

    /// Cuts a record of RFC 4180, or one like it; `None` when a quoted column does not end.
    fn cut_quoted(
        &mut self,
        record: &[u8],
        separator: u8,
        mut found: impl FnMut(usize, Span),
    ) -> Option<&[u8]> {
        self.text.clear();
        self.is_unquoted = true;
        let (mut rest, mut column) = (record, 0);
        loop {
            let start = self.text.len();
            if let Some(quoted) = rest.strip_prefix(b"\"") {
                rest = quoted;
                loop {
                    let quote = memchr(b'"', rest)?;
                    self.text.extend_from_slice(&rest[..quote]);
                    rest = &rest[quote + 1..];
                    if rest.first() != Some(&b'"') {
                        break;
                    }
                    self.text.push(b'"');
                    rest = &rest[1..];
                }
            }
            let end = memchr(separator, rest);
            self.text.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            found(column, Span::new(start, self.text.len()));
            let Some(end) = end else { return Some(&self.text) };
            rest = &rest[end + 1..];
            column += 1;
        }
    }
}

/// Returns the length of the record of RFC 4180 that `bytes` begins with, up to and with its newline; a newline in quotes does not
/// end it. `None` when its end is not among the bytes.
pub(super) fn record_len(bytes: &[u8]) -> Option<usize> {
    // NUL bytes of a hole and a byte order mark are no part of the record.
    let mut at = bytes.iter().position(|&byte| byte != 0)?;
    at += if bytes[at..].starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    loop {
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                at += memchr(b'"', &bytes[at..])? + 1;
                if bytes.get(at) != Some(&b'"') {
                    break;
                }
                at += 1;
            }
        }
        at += memchr2(b',', b'\n', &bytes[at..])? + 1;
        if bytes[at - 1] == b'\n' {
            return Some(at);
        }
    }
}

/// Returns the column of each wanted field.
fn find(titles: &[&str], wanted: &Wanted) -> Result<Vec<usize>, DefinitionError> {
    let column = |name: &String| {
        if titles.iter().filter(|title| *title == name).count() > 1 {
            return Err(DefinitionError::new(format!(
                "two columns are called `{name}`: name it by its number"
            )));
        }
        let named = titles.iter().position(|title| title == name);
        let numbered = || column_number(name).filter(|&number| number < titles.len());
        named.or_else(numbered).ok_or_else(|| DefinitionError::unknown_field(name, titles))
    };
    wanted.names().iter().map(column).collect()
}

fn column_number(name: &str) -> Option<usize> {
    let number: usize = name.parse().ok()?;
    number.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Wanted {
        names.iter().copied().collect()
    }

    /// Returns the wanted columns, `MISSING` for those that the line lacks.
    fn read(columns: &mut Columns, names: &[&str], line: &str) -> Result<Vec<String>, Reject> {
        let mut spans = vec![Span::MISSING; names.len()];
        let text = columns.read(line.as_bytes(), &wanted(names), &mut spans)?;
        let text =
            |span: &Span| span.of(text).map_or("MISSING", |text| str::from_utf8(text).unwrap()).to_owned();
        Ok(spans.iter().map(text).collect())
    }

    #[test]
    fn columns_are_found_by_number() {
        let names = ["3", "1"];
        let mut tsv = Columns::numbered(Layout::Tsv, &wanted(&names)).unwrap();
        for (line, expected) in
            [("a\tb\tc\td", ["c", "a"]), ("a\t\t", ["", "a"]), ("a", ["MISSING", "a"]), ("", ["MISSING", ""])]
        {
            assert_eq!(read(&mut tsv, &names, line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn columns_are_found_by_header_names() {
        let names = ["status", "2"];
        for (layout, header, line) in
            [(Layout::Tsv, "time\tpath\tstatus", "t\tp\ts"), (Layout::Csv, "time,\"path\",status", "t,p,s")]
        {
            let mut columns = Columns::with_header(layout);
            columns.read_header(header.as_bytes(), &wanted(&names)).unwrap();
            assert_eq!(read(&mut columns, &names, line).unwrap(), ["s", "p"]);
            let separator = if layout == Layout::Csv { "," } else { "\t" };
            assert!(read(&mut columns, &names, &format!("{line}{separator}")).is_ok());
            assert!(read(&mut columns, &names, &format!("{line}{separator}x")).is_err());
            let error = columns.read_header(b"stat", &wanted(&names)).unwrap_err().to_string();
            assert!(error.contains("`{status}`") && error.contains("{stat}"), "{error}");
        }
    }

    #[test]
    fn quoted_columns_are_unquoted() {
        let names = ["1", "2", "3"];
        let mut csv = Columns::numbered(Layout::Csv, &wanted(&names)).unwrap();
        for (line, expected) in [
            ("a,b,c", ["a", "b", "c"]),
            (r#""a,b","say ""hi""","""#, ["a,b", "say \"hi\"", ""]),
            (r#"a,b"c,d"#, ["a", "b\"c", "d"]),
            (",", ["", "", "MISSING"]),
        ] {
            let line = if line.ends_with(r#",""#) { format!("{line}\"") } else { line.to_owned() };
            assert_eq!(read(&mut csv, &names, &line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn record_may_have_several_lines() {
        let names = ["1", "2"];
        let mut csv = Columns::numbered(Layout::Csv, &wanted(&names)).unwrap();
        let text = "\0\0\u{feff}\"a\n\nb\",c\nx\"y,\"say \"\"hi\"\"\n\"\n\na,\"open\n";
        let (mut rest, mut records) = (text.as_bytes(), Vec::new());
        while let Some(len) = record_len(rest) {
            records.push(str::from_utf8(&rest[..len - 1]).unwrap());
            rest = &rest[len..];
        }
        assert_eq!(records, ["\0\0\u{feff}\"a\n\nb\",c", "x\"y,\"say \"\"hi\"\"\n\"", ""]);
        assert_eq!(read(&mut csv, &names, records[1]).unwrap(), ["x\"y", "say \"hi\"\n"]);
        assert!(read(&mut csv, &names, "a,\"open\n").is_err());
    }

    #[test]
    fn line_with_fewer_columns_than_names_is_refused() {
        let names = ["shop"];
        let mut csv = Columns::with_header(Layout::Csv);
        csv.read_header(b"shop,n", &wanted(&names)).unwrap();
        assert_eq!(read(&mut csv, &names, "a,1").unwrap(), ["a"]);
        assert_eq!(read(&mut csv, &names, "a,").unwrap(), ["a"]);
        assert!(matches!(read(&mut csv, &names, "ab"), Err(Reject::Shape(_))));
        assert_eq!(read(&mut csv, &names, "shop,n"), Err(Reject::Directive), "the header again");
        let error = csv.read_header(b"shop,n,shop", &wanted(&names)).unwrap_err().to_string();
        assert!(error.contains("two columns are called `shop`"), "{error}");
        csv.read_header(b"shop,n,shop", &wanted(&["3"])).unwrap();
    }

    #[test]
    fn header_may_be_a_directive() {
        let names = ["cs-method"];
        let mut tsv = Columns::with_header(Layout::Tsv);
        tsv.read_header(b"#Version: 1.0", &wanted(&names)).unwrap();
        assert_eq!(read(&mut tsv, &names, "#Fields: date cs-method"), Err(Reject::Directive));
        assert_eq!(read(&mut tsv, &names, "2019-12-04\tGET").unwrap(), ["GET"]);
    }

    #[test]
    fn directives_name_the_columns() {
        let names = ["cs-method", "date"];
        let mut w3c = Columns::with_directives();
        assert!(matches!(read(&mut w3c, &names, "2015-08-23 GET"), Err(Reject::Shape(_))));
        assert_eq!(read(&mut w3c, &names, "#Version: 1.0"), Err(Reject::Directive));
        assert_eq!(read(&mut w3c, &names, "#Fields: date time cs-method"), Err(Reject::Directive));
        assert_eq!(read(&mut w3c, &names, "2015-08-23 10:00:00 GET").unwrap(), ["GET", "2015-08-23"]);
        assert_eq!(read(&mut w3c, &names, "2015-08-23\t10:00:00\tGET").unwrap(), ["GET", "2015-08-23"]);
        assert_eq!(
            read(&mut w3c, &names, "2015-08-23 \"10 \"\"h\"\"\" \"A B\"").unwrap(),
            ["A B", "2015-08-23"]
        );
        assert!(matches!(read(&mut w3c, &names, "2015-08-23 10:00:00"), Err(Reject::Shape(_))));
        assert_eq!(read(&mut w3c, &names, "#Fields: cs-method date"), Err(Reject::Directive));
        assert_eq!(read(&mut w3c, &names, "PUT 2015-08-24").unwrap(), ["PUT", "2015-08-24"]);
        assert_eq!(read(&mut w3c, &names, "#Fields: date"), Err(Reject::Directive));
        assert!(matches!(read(&mut w3c, &names, "2015-08-24"), Err(Reject::Shape(_))));
    }

    #[test]
    fn without_a_header_a_name_is_no_column() {
        for bad in ["status", "0", "-1", ""] {
            assert!(Columns::numbered(Layout::Tsv, &wanted(&[bad])).is_err(), "{bad:?} was accepted");
        }
    }
}
