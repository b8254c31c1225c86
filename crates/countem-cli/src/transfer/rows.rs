//! The rows of a file to import.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek as _},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use countem_transfer::{
    Counter, Digest,
    csv::Columns,
    ndjson::{self, End, Line},
};

/// Maximum length of a line: no counter is longer.
const MAX_LINE: u64 = 64 << 10;

/// Format of a file to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// Comma-separated values
    Csv,
    /// One JSON object per line
    Ndjson,
}

/// Flags of the columns of a CSV file.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnFlags {
    pub(crate) columns: Option<String>,
    pub(crate) collection: Option<String>,
    pub(crate) bucket: Option<String>,
}

/// Reads the rows of a file, which can be read again.
pub(crate) struct Rows {
    name: String,
    file: BufReader<File>,
    format: RowFormat,
    flags: ColumnFlags,
    columns: Option<Columns>,
    digest: Digest,
    end: Option<End>,
    line: u64,
}

impl Rows {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or not twice.
    pub(crate) fn open(path: &Path, format: RowFormat, flags: ColumnFlags) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open `{name}`"))?;
        let metadata = file.metadata().with_context(|| format!("cannot read `{name}`"))?;
        if !metadata.is_file() {
            bail!(
                "`{name}` is no regular file, and an import reads its input twice: write it to a file first"
            );
        }
        if metadata.len() == 0 {
            bail!("`{name}` is empty (0 bytes): there is nothing to import, not even a header");
        }
        let file = BufReader::with_capacity(256 << 10, file);
        let mut rows =
            Self { name, file, format, flags, columns: None, digest: Digest::default(), end: None, line: 0 };
        rows.rewind()?;
        Ok(rows)
    }

    /// Returns the name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the zone of days that the file says, after its last row.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.end.as_ref()?.zone.as_deref()
    }

    /// Goes back to the first row.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        self.file.rewind().with_context(|| format!("cannot read `{}`", self.name))?;
        (self.digest, self.end, self.line) = (Digest::default(), None, 0);
        let ColumnFlags { columns, collection, bucket } = self.flags.clone();
        self.columns = match columns {
            Some(columns) => Some(Columns::new(&columns, collection, bucket)?),
            None => None,
        };
        Ok(())
    }

    /// Returns the next row and the number of its line, `None` after the last one.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no row: place and reason in one line.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Counter)>> {
        while let Some(line) = self.next_line()? {
            if self.end.is_some() {
                return Err(self.refused("there is a line after the digest, which is the last one"));
            }
            let read = match (self.format, &self.columns) {
                (RowFormat::Csv, None) => {
                    let ColumnFlags { collection, bucket, .. } = self.flags.clone();
                    let columns = Columns::new(&line, collection, bucket);
                    self.columns = Some(columns.map_err(|error| self.refused(error))?);
                    continue;
                }
                (RowFormat::Csv, Some(columns)) => columns.read(&line).map(Line::Counter),
                (RowFormat::Ndjson, _) => ndjson::read(&line),
            };
            match read.map_err(|error| self.refused(error))? {
                Line::Counter(row) => {
                    self.digest.add(row.collection.as_str(), row.bucket, row.metric.as_str(), row.value);
                    return Ok(Some((self.line, row)));
                }
                Line::End(end) if end.digest != self.digest.to_string() => {
                    let why = "the lines above are not those that were exported: their digest is";
                    return Err(self.refused(format_args!("{why} {}, not {}", self.digest, end.digest)));
                }
                Line::End(end) => self.end = Some(end),
            }
        }
        if self.format == RowFormat::Ndjson && self.end.is_none() {
            let why = "the file ends without the line of the digest, so it may be cut off: export it again";
            return Err(self.refused(why));
        }
        Ok(None)
    }

    /// Returns the next line that is not empty, without its end.
    fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            let mut line = Vec::new();
            let read = self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read `{}`", self.name))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if line.len() as u64 == MAX_LINE {
                return Err(self.refused("the line is longer than 64 KiB"));
            }
            let mut text = String::from_utf8(line).map_err(|_| self.refused("the line is not UTF-8"))?;
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
            if self.line == 1 && text.starts_with('\u{feff}') {
                text.remove(0);
            }
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    /// Returns the error of the present line.
    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> anyhow::Error {
        refused(&self.name, self.line, why)
    }
}

/// Returns the error of a line.
pub(crate) fn refused(name: &str, line: u64, why: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{name}:{line}: {why}; nothing was imported")
}
