//! `countem export`

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::Result;
use clap::Args;
use countem_core::{Bucket, CollectionName, Schedules, jiff::Timestamp};
use countem_query::{TimeRange, Unreadable};
use countem_store::Store;
use countem_transfer::{Digest, Record, csv, ndjson, openmetrics};

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::{Format, say},
    progress::{Bar, Goal, Meters},
    store::{Effective, block_on},
    transfer::{new_file::NewFile, scan::Scan},
};

/// Write every stored counter, one line for each counter of each bucket
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Export {
    /// The collections; all of them by default
    #[arg(value_name = "COLLECTION")]
    collections: Vec<CollectionName>,
    /// Only buckets in this range, of the periods of whose whole buckets it is made up
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<TimeRange>,
    /// Write to this new file, which is there once it is complete
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

const AFTER: &str = "\
Examples:
  countem export > counters.csv
  countem export web --range 2015-05 -o ndjson --file may.ndjson
  countem export -o openmetrics > counters.txt

Formats: csv (the default), ndjson, openmetrics. Every stored bucket is written as it
is stored, fine and coarse ones; do not add up lines of different periods. Days and
coarser buckets are those of the store's zone, hours and finer ones of UTC. Pending
counts of running services are not in the store yet.

The digest of the counters is printed on standard error, and is in the last line of
NDJSON: `countem import` compares it. A counter without an exact value is a line with
an error, and the exit code is 6. OpenMetrics holds the counters of a bucket range in
memory, at most a million for one metric.";

impl Export {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let format = match global.output {
            Format::Table => Format::Csv,
            Format::Json => {
                return Err(
                    UsageError::new("an export is a stream: `-o ndjson`, `csv` or `openmetrics`").into()
                );
            }
            format => format,
        };
        let effective = Effective::load(global)?;
        effective.require_store()?;
        block_on(async {
            let store = effective.open_for_reading().await?;
            effective.say_differences(&*store, global.quiet).await?;
            let store = effective.with_pending(store).await?;
            let schedules =
                store.schedules().await?.map_or_else(|| Arc::clone(&effective.schedules), Arc::new);
            let names = self.names(&store).await?;
            let now = Timestamp::now();
            if !global.quiet {
                say_expired(&schedules, &names, now);
            }
            let scan = Scan::new(store, Arc::clone(&schedules), names, now).within(self.range);
            let meters = Arc::new(Meters::default());
            let mut out = Target::create(self.file.as_deref(), Arc::clone(&meters))?;
            // Lines on the same terminal are progress enough.
            let is_shown = self.file.is_none() && io::stdout().is_terminal();
            let bar = Bar::start(global.quiet || is_shown, &meters, Goal::Unknown, "counters exported");
            let digest = Digest::default();
            let written = Writing { format, schedules, now, digest, exit: Exit::Ok, meters };
            let (digest, exit) = written.all(scan, &mut out).await?;
            out.complete()?;
            drop(bar);
            if !global.quiet {
                say(format_args!("countem: exported {} counters, digest {digest}", digest.counters()));
                if format == Format::CsvSafe {
                    say(
                        "countem: the file is for spreadsheets: to import it, add `--csv-safe` to `countem import`",
                    );
                }
            }
            Ok(exit)
        })
    }

    async fn names(&self, store: &Arc<dyn Store>) -> Result<Vec<CollectionName>> {
        let stored = store.collections().await?;
        if let Some(name) = self.collections.iter().find(|name| !stored.contains(name)) {
            return Err(NotFound::new(format!(
                "there is no collection `{name}`: `countem collections` lists them"
            ))
            .into());
        }
        let is_wanted =
            |name: &CollectionName| self.collections.is_empty() || self.collections.contains(name);
        Ok(stored.into_iter().filter(is_wanted).collect())
    }
}

/// Says which buckets have expired and are not exported, once for collections that are alike.
fn say_expired(schedules: &Schedules, names: &[CollectionName], now: Timestamp) {
    let mut expired = BTreeMap::<_, (usize, &CollectionName)>::new();
    for name in names {
        let schedule = schedules.of(name.as_str());
        for period in schedule.ever_stored() {
            if let Some(first) = schedule.kept_from(period, now) {
                expired.entry((period, first)).or_insert((0, name)).0 += 1;
            }
        }
    }
    for ((period, first), (count, name)) in expired {
        let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        say(format_args!(
            "countem: {period} buckets of `{name}`{others} before {first} have expired and are not exported: a store that imports the rest needs the same `time.retention`"
        ));
    }
}

/// An export that is being written.
struct Writing {
    format: Format,
    schedules: Arc<Schedules>,
    now: Timestamp,
    digest: Digest,
    exit: Exit,
    meters: Arc<Meters>,
}

impl Writing {
    async fn all(mut self, mut scan: Scan, out: &mut impl Write) -> Result<(Digest, Exit)> {
        let zone = self.schedules.zone(self.now).clone();
        let mut text = String::new();
        match self.format {
            Format::OpenMetrics => text.push_str(openmetrics::HEADER),
            Format::Csv | Format::CsvSafe => text.push_str(csv::HEADER),
            _ => {}
        }
        // OpenMetrics wants the samples of a metric together.
        while self.format == Format::OpenMetrics
            && let Some((collection, metrics)) = scan.next_metrics().await?
        {
            for (metric, values) in &metrics {
                for (bucket, value) in values {
                    self.push(&mut text, collection.as_str(), *bucket, metric, value.as_ref().copied());
                }
                out.write_all(text.as_bytes())?;
                text.clear();
            }
        }
        while let Some(page) = scan.next().await? {
            for (bucket, counters) in &page.rows {
                for (metric, value) in counters {
                    self.push(&mut text, page.collection.as_str(), *bucket, metric, value);
                }
                out.write_all(text.as_bytes())?;
                text.clear();
            }
        }
        match self.format {
            Format::OpenMetrics => text.push_str(openmetrics::END),
            Format::Ndjson => {
                ndjson::write_end(&mut text, &ndjson::End::new(&self.digest, zone.iana_name()));
            }
            _ => {}
        }
        out.write_all(text.as_bytes())?;
        Ok((self.digest, self.exit))
    }

    fn push(
        &mut self,
        text: &mut String,
        collection: &str,
        bucket: Bucket,
        metric: &str,
        value: Result<i64, &Unreadable>,
    ) {
        self.meters.handle(1);
        let why = value.err().map(ToString::to_string).unwrap_or_default();
        match value {
            Ok(value) => self.digest.add(collection, bucket, metric, value),
            Err(_) => {
                say(format_args!("countem: `{metric}` of `{collection}` in {bucket} cannot be read: {why}"));
                self.exit = Exit::Partly;
            }
        }
        let record = Record { collection, bucket, metric, value: value.map_err(|_| &*why) };
        match self.format {
            Format::Csv => csv::write(text, &record, false),
            Format::CsvSafe => csv::write(text, &record, true),
            Format::OpenMetrics => {
                // Days begin in the zone of their time.
                let about = bucket.start_instant(self.schedules.zone(self.now));
                openmetrics::write(text, &record, self.schedules.zone(about));
            }
            _ => ndjson::write(text, &record),
        }
    }
}

/// Standard output, or a file that gets its name once it is complete.
struct Target {
    out: BufWriter<Box<dyn Write>>,
    file: Option<NewFile>,
    meters: Arc<Meters>,
}

impl Target {
    fn create(path: Option<&Path>, meters: Arc<Meters>) -> Result<Self> {
        let (file, out): (_, Box<dyn Write>) = match path {
            None => (None, Box::new(io::stdout())),
            Some(path) => {
                let file = NewFile::new(path, false)?;
                let out = file.writer()?;
                (Some(file), Box::new(out))
            }
        };
        Ok(Self { out: BufWriter::with_capacity(256 << 10, out), file, meters })
    }

    fn complete(mut self) -> Result<()> {
        self.out.flush()?;
        drop(self.out);
        self.file.map_or(Ok(()), NewFile::complete)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.meters.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
