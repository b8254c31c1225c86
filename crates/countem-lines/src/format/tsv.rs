//! Columns between tabs.

use memchr::memchr_iter;

use crate::{DefinitionError, Reject, Span, Wanted};

/// Finds columns by number or, after a header, by name.
#[derive(Debug, Clone)]
pub(super) struct Tsv {
    /// The column for each wanted field, counted from zero.
    columns: Vec<usize>,
    has_header: bool,
}

impl Tsv {
    /// Prepares to find columns by number, counted from one.
    ///
    /// # Errors
    /// A [`DefinitionError`] when a field is no number.
    pub(super) fn numbered(wanted: &Wanted) -> Result<Self, DefinitionError> {
        let mut columns = Vec::new();
        for name in wanted.names() {
            let number = column_number(name).ok_or_else(|| {
                let advice = "columns are numbers from `{1}`, or names with `--header`";
                DefinitionError::new(format!("there is no column `{{{name}}}`: {advice}"))
            })?;
            columns.push(number);
        }
        Ok(Self { columns, has_header: false })
    }

    /// Prepares to read the columns from the first line of every file.
    pub(super) fn with_header(wanted: &Wanted) -> Self {
        Self { columns: vec![usize::MAX; wanted.names().len()], has_header: true }
    }

    /// Returns whether the first line of every file names the columns.
    pub(super) fn has_header(&self) -> bool {
        self.has_header
    }

    /// Reads the names of the columns. A wanted number that is no name is the number of a column.
    ///
    /// # Errors
    /// A [`DefinitionError`] when there is no such column.
    pub(super) fn read_header(&mut self, line: &[u8], wanted: &Wanted) -> Result<(), DefinitionError> {
        let line = String::from_utf8_lossy(line);
        let titles: Vec<&str> = line.split('\t').collect();
        for (column, name) in self.columns.iter_mut().zip(wanted.names()) {
            let named = titles.iter().position(|title| title == name);
            let numbered = || column_number(name).filter(|&number| number < titles.len());
            *column = named.or_else(numbered).ok_or_else(|| DefinitionError::unknown_field(name, &titles))?;
        }
        Ok(())
    }

    /// Finds the wanted columns. Columns that a line lacks are missing.
    ///
    /// # Errors
    /// None: every line has at least one column.
    #[inline]
    pub(super) fn read(&self, line: &[u8], spans: &mut [Span]) -> Result<(), Reject> {
        spans.fill(Span::MISSING);
        let ends = memchr_iter(b'\t', line).chain([line.len()]);
        let mut start = 0;
        for (column, end) in ends.enumerate() {
            for (span, wanted) in spans.iter_mut().zip(&self.columns) {
                if *wanted == column {
                    *span = Span::new(start, end);
                }
            }
            start = end + 1;
        }
        Ok(())
    }
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

    fn read<'a>(tsv: &Tsv, line: &'a str) -> Vec<Option<&'a str>> {
        let mut spans = vec![Span::MISSING; tsv.columns.len()];
        tsv.read(line.as_bytes(), &mut spans).unwrap();
        spans.iter().map(|span| span.of(line.as_bytes()).map(|text| str::from_utf8(text).unwrap())).collect()
    }

    #[test]
    fn columns_are_found_by_number() {
        let tsv = Tsv::numbered(&wanted(&["3", "1"])).unwrap();
        assert_eq!(read(&tsv, "a\tb\tc\td"), [Some("c"), Some("a")]);
        assert_eq!(read(&tsv, "a\t\t"), [Some(""), Some("a")]);
        assert_eq!(read(&tsv, "a"), [None, Some("a")]);
        assert_eq!(read(&tsv, ""), [None, Some("")]);
    }

    #[test]
    fn columns_are_found_by_header_names() {
        let wanted = wanted(&["status", "2"]);
        let mut tsv = Tsv::with_header(&wanted);
        tsv.read_header(b"time\tpath\tstatus", &wanted).unwrap();
        assert_eq!(read(&tsv, "t\tp\ts"), [Some("s"), Some("p")]);
        let error = tsv.read_header(b"time\tstat", &wanted).unwrap_err().to_string();
        assert!(error.contains("`{status}`") && error.contains("{time} {stat}"), "{error}");
    }

    #[test]
    fn without_a_header_a_name_is_no_column() {
        for bad in ["status", "0", "-1", ""] {
            assert!(Tsv::numbered(&wanted(&[bad])).is_err(), "{bad:?} was accepted");
        }
    }
}
