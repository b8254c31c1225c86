//! The rows of a file to import.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use countem_core::{Bucket, CollectionName};
use countem_transfer::{
    Counter, Digest,
    csv::{Columns, ColumnsError},
    goatcounter::Hits,
    graphite,
    ndjson::{self, End, Line},
    scala::Splitter,
};

use crate::{
    exit::UsageError,
    input::{Input, Source, cannot_read},
    progress::Meters,
};

/// Maximum length of a line: no counter is longer.
const MAX_LINE: usize = 64 << 10;

/// Format of a file to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// Comma-separated values
    Csv,
    /// One JSON object per line
    Ndjson,
    /// Lines of Graphite: metric.path value timestamp
    Graphite,
    /// CSV export of GoatCounter: one row per hit
    #[value(name = "goatcounter")]
    GoatCounter,
    /// Documents of the Scala countem, as mongoexport writes them
    Scala,
}

impl RowFormat {
    /// Returns the format that the name of a file tells.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let extension = |path: &Path| path.extension()?.to_str().map(str::to_ascii_lowercase);
        match (extension(path)?.as_str(), path.file_stem()) {
            ("gz" | "zst" | "bz2", Some(stem)) => Self::of_name(Path::new(stem)),
            ("csv" | "tsv", _) => Some(Self::Csv),
            ("ndjson" | "jsonl", _) => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Tells whether a row has a moment, which counts in all buckets that the store keeps.
    fn has_moments(self) -> bool {
        matches!(self, Self::Graphite | Self::GoatCounter)
    }
}

/// Flags of the command line about the rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowFlags {
    pub(crate) columns: Option<String>,
    pub(crate) collection: Option<CollectionName>,
    pub(crate) bucket: Option<Bucket>,
    /// CSV was written with `--csv-safe`.
    pub(crate) is_safe: bool,
}

impl RowFlags {
    fn columns(&self, header: &str) -> Result<Columns, ColumnsError> {
        let collection = self.collection.as_ref().map(ToString::to_string);
        let columns = Columns::new(header, collection, self.bucket.map(|bucket| bucket.to_string()))?;
        Ok(columns.safe(self.is_safe))
    }
}

/// Reads the rows of a file, which can be read again.
pub(crate) struct Rows {
    path: PathBuf,
    name: String,
    file: BufReader<Source>,
    format: RowFormat,
    flags: RowFlags,
    reader: Reader,
    digest: Digest,
    end: Option<End>,
    /// Number of the line that was read last.
    line: u64,
    /// Number of the line on which the present row begins.
    row: u64,
    /// Counters of the present document that were not returned.
    pending: VecDeque<Counter>,
    days: BTreeSet<Bucket>,
    left_out: u64,
    meters: Arc<Meters>,
}

/// State of a format.
enum Reader {
    Csv(Option<Columns>),
    Ndjson,
    Graphite(CollectionName),
    GoatCounter(CollectionName, Option<Hits>),
    Scala(CollectionName, Splitter),
}

impl Reader {
    fn new(format: RowFormat, flags: &RowFlags) -> Result<Self> {
        let is_csv = format == RowFormat::Csv;
        if !is_csv && (flags.columns.is_some() || flags.bucket.is_some() || flags.is_safe) {
            return Err(UsageError::new("`--columns`, `--bucket` and `--csv-safe` are for CSV files").into());
        }
        let columns = flags.columns.as_ref().map(|columns| flags.columns(columns)).transpose()?;
        match (format, flags.collection.clone()) {
            (RowFormat::Csv, _) => Ok(Self::Csv(columns)),
            (RowFormat::Ndjson, None) => Ok(Self::Ndjson),
            (RowFormat::Ndjson, Some(_)) => {
                Err(UsageError::new("every line of NDJSON names its collection: leave out `--collection`")
                    .into())
            }
            (RowFormat::Graphite, Some(name)) => Ok(Self::Graphite(name)),
            (RowFormat::GoatCounter, Some(name)) => Ok(Self::GoatCounter(name, None)),
            (RowFormat::Scala, Some(name)) => Ok(Self::Scala(name, Splitter::default())),
            (_, None) => Err(UsageError::new("the file names no collection: add `--collection NAME`").into()),
        }
    }
}

impl Rows {
    /// Opens a file, plain or compressed. `meters` count what is read of it.
    ///
    /// # Errors
    /// It cannot be read, or not twice.
    pub(crate) fn open(path: &Path, format: RowFormat, flags: RowFlags, meters: Arc<Meters>) -> Result<Self> {
        let name = path.display().to_string();
        if name == "-" {
            return Err(UsageError::new(
                "`-` is standard input, and an import reads its input several times: write it to a file first",
            )
            .into());
        }
        let metadata = path.metadata().map_err(|error| cannot_read(path, error))?;
        if !metadata.is_file() {
            bail!(
                "`{name}` is no regular file, and an import reads its input twice: write it to a file first"
            );
        }
        if metadata.len() == 0 {
            bail!("`{name}` is empty (0 bytes): there is nothing to import, not even a header");
        }
        let reader = Reader::new(format, &flags)?;
        let source = Input::File(path.to_owned()).open(&meters.bytes)?;
        let mut rows = Self {
            path: path.to_owned(),
            name,
            file: BufReader::with_capacity(256 << 10, source),
            format,
            flags,
            reader,
            digest: Digest::default(),
            end: None,
            line: 0,
            row: 0,
            pending: VecDeque::new(),
            days: BTreeSet::new(),
            left_out: 0,
            meters,
        };
        rows.rewind()?;
        Ok(rows)
    }

    /// Returns the name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether the buckets of the rows are the seconds of moments, which count in all buckets that the store keeps.
    pub(crate) fn has_moments(&self) -> bool {
        self.format.has_moments()
    }

    /// Returns the digest of the rows so far.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the zone of days that the file says, after its last row.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.end.as_ref()?.zone.as_deref()
    }

    /// Returns the number of rows so far that were left out, which are hits of bots.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Goes back to the first row.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        let buffered = self.file.buffer().len();
        self.file.consume(buffered);
        self.file.get_mut().go_to(0, 0).with_context(|| format!("cannot read `{}`", self.name))?;
        (self.digest, self.end, self.line, self.row) = (Digest::default(), None, 0, 0);
        (self.days, self.left_out) = (BTreeSet::new(), 0);
        self.pending.clear();
        self.reader = Reader::new(self.format, &self.flags)?;
        Ok(())
    }

    /// Returns the next row and the number of its line, `None` after the last one.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no row: place and reason in one line.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Counter)>> {
        while self.pending.is_empty() && self.read_more()? {}
        let Some(row) = self.pending.pop_front() else { return Ok(None) };
        self.digest.add(row.collection.as_str(), row.bucket, row.metric.as_str(), row.value);
        self.meters.handle(1);
        Ok(Some((self.row, row)))
    }

    /// Reads a line or a document; false after the last one.
    fn read_more(&mut self) -> Result<bool> {
        if let Reader::Scala(..) = self.reader {
            return self.read_document();
        }
        let Some(line) = self.next_line()? else {
            if self.format == RowFormat::Ndjson && self.end.is_none() {
                let why =
                    "the file ends without the line of the digest, so it may be cut off: export it again";
                return Err(self.refused(why));
            }
            if let Reader::Csv(None) | Reader::GoatCounter(_, None) = self.reader {
                bail!("`{}` is empty: there is nothing to import, not even a header", self.name);
            }
            return Ok(false);
        };
        if self.end.is_some() {
            return Err(self.refused("there is a line after the digest, which is the last one"));
        }
        let read = match &mut self.reader {
            Reader::Csv(columns @ None) => {
                let read = self.flags.columns(&line);
                *columns = Some(read.map_err(|error| refused(&self.name, self.row, error))?);
                return Ok(true);
            }
            Reader::GoatCounter(collection, hits @ None) => {
                let read = Hits::new(&line, collection.clone());
                *hits = Some(read.map_err(|error| refused(&self.name, self.row, error))?);
                return Ok(true);
            }
            Reader::Csv(Some(columns)) => columns.read(&line).map(|row| Some(Line::Counter(row))),
            Reader::GoatCounter(_, Some(hits)) => hits.read(&line).map(|hit| hit.map(Line::Counter)),
            Reader::Graphite(collection) => {
                graphite::read(&line, collection).map(|row| Some(Line::Counter(row)))
            }
            Reader::Ndjson | Reader::Scala(..) => ndjson::read(&line).map(Some),
        };
        match read.map_err(|error| self.refused(error))? {
            Some(Line::Counter(row)) => self.pending.push_back(row),
            Some(Line::End(end)) if end.digest != self.digest.to_string() => {
                let why = "the lines above are not those that were exported: their digest is";
                return Err(self.refused(format_args!("{why} {}, not {}", self.digest, end.digest)));
            }
            Some(Line::End(end)) => self.end = Some(end),
            None => self.left_out += 1,
        }
        Ok(true)
    }

    /// Reads a document; false after the last one.
    fn read_document(&mut self) -> Result<bool> {
        let Reader::Scala(collection, splitter) = &mut self.reader else { return Ok(false) };
        let refused = |line, why| refused(&self.name, line, why);
        let document = loop {
            let bytes = self.file.fill_buf().with_context(|| format!("cannot read `{}`", self.name))?;
            if bytes.is_empty() {
                return splitter.finish().map(|()| false).map_err(|why| refused(splitter.line(), why));
            }
            let (used, document) = splitter.push(bytes).map_err(|why| refused(splitter.line(), why))?;
            self.file.consume(used);
            if let Some(document) = document {
                break document;
            }
        };
        self.row = document.line();
        let (day, counters) = document.read(collection).map_err(|(line, why)| refused(line, why))?;
        if !self.days.insert(day) {
            return Err(
                self.refused(format_args!("there is a document of {day} above: import them one by one"))
            );
        }
        self.pending.extend(counters);
        Ok(true)
    }

    /// Returns the next line that is not empty, without its end; with the lines after it where a quoted field of a hit goes on there.
    fn next_line(&mut self) -> Result<Option<String>> {
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            let read = self.file.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line);
            let read = read.with_context(|| format!("cannot read `{}`", self.name))?;
            if read == 0 {
                return Ok((!text.is_empty()).then_some(text));
            }
            self.line += 1;
            if text.is_empty() {
                self.row = self.line;
            }
            if text.len() + line.len() >= MAX_LINE {
                return Err(self.refused("the line is longer than 64 KiB"));
            }
            let mut line = String::from_utf8(line).map_err(|_| self.refused("the line is not UTF-8"))?;
            line.truncate(line.trim_end_matches(['\n', '\r']).len());
            if self.line == 1 && line.starts_with('\u{feff}') {
                line.remove(0);
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&line);
            let is_open = self.format == RowFormat::GoatCounter && text.matches('"').count() % 2 == 1;
            if !text.is_empty() && !is_open {
                return Ok(Some(text));
            }
        }
    }

    /// Returns the error of the present row.
    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> anyhow::Error {
        refused(&self.name, self.row, why)
    }
}

/// Returns the error of a line.
pub(crate) fn refused(name: &str, line: u64, why: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{name}:{line}: {why}; nothing was imported")
}
