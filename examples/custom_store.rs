//! A store of your own: one text file of JSON lines, each line one batch.
//!
//! ```sh
//! cargo run -p countem-examples --example custom_store
//! ```
//!
//! It shows the four duties of a store: recognise a batch that it has seen before, remember it in the same atomic step
//! that adds its counts, refuse it when its mark is not where it expects it, and quarantine alone a delta that cannot be
//! added. The conformance suite checks them.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use countem::{
    Bucket, CollectionName, Collector,
    store::{
        Applied, Batch, BatchId, Counters, ErrorKind, Quarantined, RowQuery, Rows, Store, StoreError, Writer,
        async_trait, conformance::LAWS, overlay,
    },
};
use serde::{Deserialize, Serialize};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    // Tests call `conformance!` instead, which makes each law a test of its own.
    for law in LAWS {
        println!("law: {}", law.name());
        law.check(&LinesStore::open(folder.path().join(law.name()))?).await;
    }
    println!("the store keeps all {} laws\n", LAWS.len());

    let path = folder.path().join("counts.jsonl");
    for run in 1..=2 {
        let collector = Collector::builder().custom_store(LinesStore::open(&path)?).start().await?;
        collector.increment("app-events", "starts", 1);
        collector.increment("app-events", "bytes", 1000 * run);
        println!("run {run} reads {:?}", collector.get_counters("app-events", None).await?);
        let report = collector.shutdown().await;
        println!("run {run}: {report}");
        if !report.is_complete() {
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("\nthe file:\n{}", fs::read_to_string(&path)?);
    Ok(ExitCode::SUCCESS)
}

/// Keeps counters in one text file, which one process at a time may have open.
#[derive(Debug)]
struct LinesStore {
    path: PathBuf,
    /// `None` after a failure: the content of the file is unknown until the next call reads it again.
    lines: Arc<Mutex<Option<Lines>>>,
}

/// The open file, and the state that follows from its lines.
#[derive(Debug)]
struct Lines {
    file: File,
    counters: BTreeMap<(String, Bucket), Counters>,
    /// Newest batch of every lane, with its quarantined deltas. A lane sends its batches in order, each until it is resolved,
    /// so older ones need not be remembered.
    applied: HashMap<(Writer, u16), (u64, Vec<Quarantined>)>,
    marks: HashMap<String, String>,
}

/// One line. It is in the file as a whole or not at all, and with it the identity, the counts and the mark of a batch.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Batch {
        writer: String,
        lane: u16,
        seq: u64,
        mark: Option<(String, Option<String>)>,
        deltas: Vec<LineDelta>,
    },
    Forgotten {
        writer: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct LineDelta {
    collection: String,
    bucket: String,
    metric: String,
    n: i64,
    increments: u64,
}

impl LinesStore {
    fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let lines = Lines::open(&path).map_err(|error| failure(ErrorKind::Refused, "open", &path, error))?;
        Ok(Self { path, lines: Arc::new(Mutex::new(Some(lines))) })
    }

    /// Runs a request on the open file, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Lines) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, shared) = (self.path.clone(), Arc::clone(&self.lines));
        let asked = tokio::task::spawn_blocking(move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let mut lines = match shared.take() {
                Some(lines) => lines,
                // Nothing was done yet, so the outcome is known.
                None => Lines::open(&path).map_err(|e| failure(ErrorKind::NotApplied, "open", &path, e))?,
            };
            // A line that failed may be in the file, wholly or in part: the outcome is in doubt.
            let answer = ask(&mut lines).map_err(|e| failure(ErrorKind::InDoubt, "write to", &path, e))?;
            *shared = Some(lines);
            Ok(answer)
        });
        asked.await.unwrap_or_else(|panicked| {
            Err(StoreError::new(ErrorKind::InDoubt, "a call of the store panicked").with_source(panicked))
        })
    }
}

fn failure(kind: ErrorKind, attempt: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(kind, format!("cannot {attempt} `{}`", path.display())).with_source(error)
}

#[async_trait]
impl Store for LinesStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let (id, mark, line) = (batch.id().clone(), batch.mark().cloned(), Line::of(batch));
        let applied = self.ask(move |lines| match (lines.already_applied(&id), mark) {
            (Some(applied), _) => Ok(Ok(applied)),
            (None, Some(mark)) if lines.marks.get(&mark.key) != mark.expected.as_ref() => Ok(Err(mark.key)),
            (None, _) => lines.append(line).map(Ok),
        });
        applied.await?.map_err(|key| StoreError::conflict(&key))
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        let line = Line::Forgotten { writer: writer.to_string() };
        self.ask(move |lines| lines.append(line).map(|_| ())).await
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        let (asked, id) = (query.clone(), in_flight.map(|batch| batch.id().clone()));
        let (mut rows, is_applied) = self
            .ask(move |lines| {
                Ok((lines.read(&asked), id.is_some_and(|id| lines.already_applied(&id).is_some())))
            })
            .await?;
        // The caller does not know whether its last batch is in the file. The store does.
        if let Some(batch) = in_flight.filter(|_| !is_applied) {
            overlay(&mut rows, query, batch.deltas());
        }
        Ok(rows)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.ask(|lines| {
            let names = lines.counters.keys().map(|(name, _)| CollectionName::new(name));
            let mut names: Vec<_> = names.collect::<Result<_, _>>().map_err(io::Error::other)?;
            names.dedup();
            Ok(names)
        })
        .await
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(move |lines| {
            let marks = lines.marks.iter().filter(|(key, _)| key.starts_with(&prefix));
            Ok(marks.map(|(key, value)| (key.clone(), value.clone())).collect())
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.ask(|lines| lines.file.sync_all()).await
    }

    fn location(&self) -> String {
        format!("lines://{}", self.path.display())
    }
}

impl Lines {
    /// Opens the file and plays its lines. A last line without an end was cut off while it was written: its batch was never
    /// acknowledged, so it is removed and will be sent again. Any other line that does not parse is an error.
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // Two processes that append would not see each other's batches. A collector that was shut down closes its store a
        // moment later, so this waits.
        file.lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = str::from_utf8(&bytes[..whole]).map_err(io::Error::other)?;
        let (counters, applied, marks) = Default::default();
        let mut lines = Self { file, counters, applied, marks };
        for (at, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line).map_err(io::Error::from).and_then(|line| lines.play(line));
            line.map_err(|error| io::Error::other(format!("line {} is no line of counts: {error}", at + 1)))?;
        }
        lines.file.set_len(whole as u64)?;
        // Answers depend on these lines from now on, so they have to be durable.
        lines.file.sync_all()?;
        Ok(lines)
    }

    /// Writes a line, and plays it once it is on the disk.
    fn append(&mut self, line: Line) -> io::Result<Applied> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.play(line)
    }

    /// Plays a line. Lines in the same order always have the same result, quarantine included.
    fn play(&mut self, line: Line) -> io::Result<Applied> {
        let mut quarantined = Vec::new();
        match line {
            Line::Forgotten { writer } => self.applied.retain(|(known, _), _| known.as_str() != writer),
            Line::Batch { writer, lane, seq, mark, deltas } => {
                for LineDelta { collection, bucket, metric, n, increments } in deltas {
                    let bucket: Bucket = bucket.parse().map_err(io::Error::other)?;
                    let counters = self.counters.entry((collection.clone(), bucket)).or_default();
                    if counters.add(&metric, n).is_none() {
                        let reason = format!("{} plus {n} exceeds i64", counters[&*metric]);
                        quarantined.push(Quarantined { collection, metric, bucket, n, increments, reason });
                    }
                }
                match mark {
                    Some((key, Some(value))) => drop(self.marks.insert(key, value)),
                    Some((key, None)) => drop(self.marks.remove(&key)),
                    None => {}
                }
                let writer = writer.parse().map_err(io::Error::other)?;
                self.applied.insert((writer, lane), (seq, quarantined.clone()));
            }
        }
        Ok(Applied { quarantined })
    }

    /// Returns the outcome of a batch that is in the file already, itself or as a newer one of its lane.
    fn already_applied(&self, id: &BatchId) -> Option<Applied> {
        let (seq, quarantined) = self.applied.get(&(id.writer.clone(), id.lane))?;
        match id.seq.cmp(seq) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Equal => Some(Applied { quarantined: quarantined.clone() }),
            std::cmp::Ordering::Less => Some(Applied::default()),
        }
    }

    fn read(&self, query: &RowQuery) -> Rows {
        let is_selected = |collection: &str, bucket| {
            collection == query.collection.as_str() && query.range.contains(bucket)
        };
        let mut rows = Rows::new();
        for ((_, bucket), counters) in
            self.counters.iter().filter(|((name, bucket), _)| is_selected(name, *bucket))
        {
            let selected = counters.readable().filter(|(metric, _)| query.selects(metric));
            let selected: Counters = selected.take(query.limit()).collect();
            if !selected.is_empty() {
                rows.insert(*bucket, selected);
            }
        }
        rows
    }
}

impl Line {
    fn of(batch: &Batch) -> Self {
        let deltas = batch.deltas().map(|delta| LineDelta {
            collection: delta.collection.to_owned(),
            bucket: delta.bucket.to_string(),
            metric: delta.metric.to_owned(),
            n: delta.n,
            increments: delta.increments,
        });
        Self::Batch {
            writer: batch.id().writer.to_string(),
            lane: batch.id().lane,
            seq: batch.id().seq,
            mark: batch.mark().map(|mark| (mark.key.clone(), mark.value.clone())),
            deltas: deltas.collect(),
        }
    }
}
