//! `countem import`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    exit::{Exit, UsageError},
    global::Global,
    output::{Listing, say},
    progress::{Bar, Goal, Meters},
    store::{ChangeSchedule, Effective, block_on},
    transfer::{
        marks::{IMPORTS, ImportMark, full_path},
        rows::{RowFlags, RowFormat, Rows, refused},
        sender::Sender,
        sums::{self, Found},
    },
};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use countem_core::{
    Bucket, BucketRange, CollectionName, Delta, Mark, Period, Schedule, Schedules, Table,
    jiff::{Timestamp, tz::TimeZone},
};
use countem_store::Store;
use countem_transfer::{Counter, Digest, Identity};

/// Add the counters of files, such as those of `export`, each content once
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Import {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Format of the files: csv, ndjson, graphite, goatcounter, scala [default: by their names]
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<RowFormat>,
    /// Columns of CSV files without a header, such as collection,date,metric,value
    #[arg(long, value_name = "NAMES")]
    columns: Option<String>,
    /// Collection of all rows, where the files do not say it
    #[arg(long, value_name = "NAME")]
    collection: Option<CollectionName>,
    /// Bucket of all rows of CSV files without this column, such as 2015-05-17
    #[arg(long, value_name = "ID")]
    bucket: Option<Bucket>,
    #[command(flatten)]
    change: ChangeSchedule,
}

const AFTER: &str = "\
Examples:
  countem import counters.ndjson
  countem import old.csv --columns date,metric,value --collection web
  countem import days.json --format scala --collection web

A CSV file has the columns collection, bucket (or date), metric and value, separated by
commas, semicolons or tabs; graphite is `metric.path value timestamp`, tags are labels;
goatcounter is its CSV export: hits by path, without those of bots; scala are documents
of the Scala countem as mongoexport writes them. `--csv-safe` reads what it has written.

Every file is read to its end before anything is stored, and a row that cannot be stored
refuses all. The same rows, in any order, are added once: an import that was interrupted
continues where it ended, and a repeated one adds nothing (`countem forget --imports`).

Rows of the finest period that the store keeps, and those with a timestamp, are added to
all periods. An export of several is stored as it is, by a store of the same periods; a
bucket of it that is not the sum of its finer ones refuses all. Days and coarser buckets
are those of the store's zone; NDJSON says the one that it was exported from.";

/// Number of rows that are stored at once. A mark of an interrupted import is a multiple of it.
const CHUNK: u64 = 10_000;

/// A file that was read to its end.
struct Plan {
    rows: Rows,
    count: u64,
    /// Rows that are left out.
    left_out: u64,
    /// Identity of the rows in their order.
    identity: Identity,
    /// Identity of the rows in any order.
    digest: Digest,
    /// Identity of the rows up to the end of each chunk.
    chunks: Vec<Identity>,
    /// The zone of their days, where the file does not say it.
    zone: Option<String>,
    /// The collections whose rows are added to all buckets that the store keeps.
    fans_out: BTreeSet<CollectionName>,
}

impl Import {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        block_on(async {
            let schedules = match effective.lacks_store() {
                true => None,
                false => effective.open_for_reading().await?.schedules().await?,
            };
            let schedules = match schedules {
                Some(recorded) => Arc::new(recorded),
                None => Arc::new(effective.wanted_schedules()?),
            };
            let meters = Arc::new(Meters::default());
            // A file is read to check it, to check its sums, and to store it.
            let sizes = self.files.iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len()));
            let bar = Bar::start(global.quiet, &meters, Goal::Bytes(3 * sizes.sum::<u64>()), "rows read");
            let mut plans = Vec::new();
            for path in &self.files {
                plans.push(self.plan(path, &schedules, global, &meters)?);
            }
            let (store, agreed) = effective.open_writer(&self.change).await?;
            if *agreed != *schedules && agreed.changed_at().is_some() {
                // Checked against the schedule before the change.
                for path in &self.files {
                    self.plan(path, &agreed, global, &meters)?;
                }
            }
            let mut sender = Sender::new(Arc::clone(&store), &effective.engine);
            let mut listing = Listing::new(&["file", "rows", "imported"]);
            for mut plan in plans {
                let (key, stored) = plan.find_mark(&*store).await?;
                let imported = plan.store(&agreed, &mut sender, &key, stored).await?;
                let name = plan.rows.name();
                if let Some(zone) = plan.zone.as_ref().filter(|_| !global.quiet) {
                    say(format_args!(
                        "countem: `{name}` does not say its zone: its days are taken as those of {zone}"
                    ));
                }
                if imported == 0 && !global.quiet {
                    match plan.count {
                        0 => say(format_args!("countem: `{name}` has no rows: there is nothing to import")),
                        _ => say(format_args!("countem: the rows of `{name}` are imported already")),
                    }
                }
                if plan.left_out > 0 && !global.quiet {
                    let hits = plan.left_out;
                    say(format_args!("countem: hits of bots in `{name}` that are left out: {hits}"));
                }
                let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
                listing.push([name.into(), number(plan.count).into(), number(imported).into()]);
            }
            sender.finish().await;
            drop(bar);
            listing.print_as(global.output, "imports")?;
            for counter in &sender.quarantined {
                let (metric, bucket, why) = (&counter.metric, counter.bucket, &counter.reason);
                say(format_args!(
                    "countem: `{metric}` of {bucket} could not be added ({why}): `countem quarantine` lists it"
                ));
            }
            Ok(if sender.quarantined.is_empty() { Exit::Ok } else { Exit::Partly })
        })
    }

    /// Reads a file to its end, and checks that all its rows can be stored.
    fn plan(
        &self,
        path: &Path,
        schedules: &Schedules,
        global: &Global,
        meters: &Arc<Meters>,
    ) -> Result<Plan> {
        let format = self.format.or_else(|| RowFormat::of_name(path)).ok_or_else(|| {
            UsageError::new(format!(
                "`{}` does not tell its format: add `--format csv`, `ndjson`, `graphite`, `goatcounter` or `scala`",
                path.display()
            ))
        })?;
        let flags = RowFlags {
            columns: self.columns.clone(),
            collection: self.collection.clone(),
            bucket: self.bucket,
            is_safe: global.csv_safe,
        };
        let mut rows = Rows::open(path, format, flags, Arc::clone(meters))?;
        let now = Timestamp::now();
        let (mut count, mut identity, mut chunks) = (0, Identity::default(), Vec::new());
        let mut periods = Found::new();
        while let Some((line, row)) = rows.next()? {
            let schedule = schedules.of(row.collection.as_str());
            let expired = |bucket: &Bucket| schedule.has_expired(*bucket, now);
            let expired = match rows.has_moments() {
                true => schedule.fan_out(row.bucket).find(expired),
                false => Some(row.bucket).filter(expired),
            };
            let is_counted = match rows.has_moments() {
                true => schedule.bucket_at(row.bucket.start_instant(&TimeZone::UTC)).is_ok(),
                // Other periods are refused below, in one word for all.
                false => {
                    !schedule.periods(now).contains(&row.bucket.period()) || schedule.counts_in(row.bucket)
                }
            };
            if !is_counted {
                let zone = zone_name(schedules.zone(now));
                let why = format!(
                    "no moment is counted in {} by the store, whose days are those of {zone}",
                    row.bucket
                );
                return Err(rows.refused(why));
            }
            if let Some(bucket) = expired {
                let why = format!("{bucket} has expired: the store keeps no {} as old", bucket.period());
                return Err(rows.refused(why));
            }
            count += 1;
            push(&mut identity, &row);
            if count % CHUNK == 0 {
                chunks.push(identity);
            }
            periods.entry(row.collection).or_default().entry(row.bucket.period()).or_insert(line);
        }
        chunks.push(identity);
        let mut fans_out = BTreeSet::new();
        for (collection, found) in &periods {
            if rows.has_moments()
                || fans_out_rows(rows.name(), collection, found, schedules.of(collection.as_str()), now)?
            {
                fans_out.insert(collection.clone());
            }
        }
        let is_civil = |found: &BTreeMap<Period, u64>| {
            found.keys().any(|period| period.is_civil() && *period != Period::All)
        };
        let zone = zone_name(schedules.zone(now));
        let has_days = !rows.has_moments() && periods.values().any(is_civil);
        if let Some(other) = rows.zone().filter(|other| *other != zone && has_days) {
            let why = format!(
                "the days are those of {other}, and the store counts those of {zone}: import into a new store, with `--set time.zone={other}`"
            );
            return Err(rows.refused(why));
        }
        let zone = (has_days && rows.zone().is_none()).then(|| zone.to_owned());
        let (left_out, digest) = (rows.left_out(), rows.digest());
        sums::check(&mut rows, &periods, schedules, now)?;
        let mut plan = Plan { rows, count, left_out, identity, digest, chunks, zone, fans_out };
        plan.check_chunks(schedules)?;
        Ok(plan)
    }
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("unknown")
}

/// Tells whether the rows are counted in all the buckets that the store keeps, because they are of its finest period. Those of all
/// its periods are stored as they are.
///
/// # Errors
/// They are of other periods, so that sums over different periods would differ.
fn fans_out_rows(
    name: &str,
    collection: &CollectionName,
    found: &BTreeMap<Period, u64>,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<bool> {
    let stored = schedule.periods(now);
    if found.keys().eq(stored) {
        return Ok(false);
    }
    // Which buckets hold a count depends on its moment where the schedule was changed.
    if found.keys().eq(stored.first()) && schedule.finest().count() == 1 {
        return Ok(true);
    }
    let list = |periods: &mut dyn Iterator<Item = &Period>| {
        periods.map(|period| period.name()).collect::<Vec<_>>().join(",")
    };
    let (has, keeps) = (list(&mut found.keys()), list(&mut stored.iter()));
    let odd = found.iter().find(|(period, _)| !stored.contains(period)).or(found.first_key_value());
    let line = odd.map_or(0, |(_, line)| *line);
    let why = format!(
        "`{collection}` has rows of {has}, and the store keeps {keeps}: import rows of {keeps} or of the finest alone, or into a new store, with `--set time.periods={has}`"
    );
    Err(refused(name, line, why))
}

fn push(identity: &mut Identity, row: &Counter) {
    identity.push(row.collection.as_str(), row.bucket, row.metric.as_str(), row.value);
}

impl Plan {
    /// Returns the key of the mark of these rows, and its value.
    ///
    /// # Errors
    /// The store cannot be read, or other rows of them are stored than the first ones.
    async fn find_mark(&self, store: &dyn Store) -> Result<(String, Option<String>)> {
        let key = format!("{IMPORTS}{}", self.digest);
        // That of earlier versions depends on the order.
        let old = format!("{IMPORTS}{}-{}", self.identity, self.count);
        for key in [&key, &old] {
            let Some(text) = store.marks(key).await?.remove(key) else { continue };
            let value: ImportMark = serde_json::from_str(&text)?;
            let chunk =
                value.rows.div_ceil(CHUNK).checked_sub(1).and_then(|chunk| usize::try_from(chunk).ok());
            let first = chunk.and_then(|chunk| self.chunks.get(chunk));
            let is_other =
                |first: &Identity| !value.identity.is_empty() && first.to_string() != value.identity;
            if value.rows < self.count && first.is_some_and(is_other) {
                bail!(
                    "`{}` has the rows of an import that was interrupted after {} of them, in another order: import `{}` again as it was, to its end",
                    self.rows.name(),
                    value.rows,
                    value.file
                );
            }
            return Ok((key.clone(), Some(text)));
        }
        Ok((key, None))
    }

    /// Checks that the rows can be added to all buckets that the store keeps, and that no sum of a chunk leaves the range of a value.
    fn check_chunks(&mut self, schedules: &Schedules) -> Result<()> {
        self.rows.rewind()?;
        let (mut count, mut table) = (0_u64, Table::new());
        while let Some((_, row)) = self.rows.next()? {
            fold(&mut table, &row, schedules, &self.fans_out).map_err(|why| self.rows.refused(why))?;
            count += 1;
            if count % CHUNK == 0 {
                table.clear();
            }
        }
        Ok(())
    }

    /// Stores the rows that are not stored yet, and returns their number.
    async fn store(
        &mut self,
        schedules: &Schedules,
        sender: &mut Sender,
        key: &str,
        mut stored: Option<String>,
    ) -> Result<u64> {
        let done = match &stored {
            None => 0,
            Some(text) => {
                let value: ImportMark = serde_json::from_str(text)?;
                value.rows
            }
        };
        self.rows.rewind()?;
        let (mut count, mut identity, mut table) = (0_u64, Identity::default(), Table::new());
        let mut is_over = self.count == 0 || done >= self.count;
        while !is_over {
            let row = self.rows.next()?;
            is_over = row.is_none();
            if let Some((_, row)) = &row {
                count += 1;
                push(&mut identity, row);
                if count > done {
                    fold(&mut table, row, schedules, &self.fans_out).map_err(|why| self.rows.refused(why))?;
                }
            }
            let is_chunk = count % CHUNK == 0 || is_over;
            if !is_chunk || count <= done || table.is_empty() {
                continue;
            }
            let chunk = usize::try_from((count - 1) / CHUNK).unwrap_or(usize::MAX);
            if self.chunks.get(chunk) != Some(&identity) {
                return Err(self.changed());
            }
            let (file, first) = (full_path(self.rows.path()), identity.to_string());
            let value =
                serde_json::to_string(&ImportMark { rows: count, of: self.count, file, identity: first })?;
            let mark = Mark { key: key.to_owned(), expected: stored.take(), value: Some(value.clone()) };
            sender.send(table.drain(), mark).await?;
            stored = Some(value);
        }
        if count < self.count && done < self.count {
            return Err(self.changed());
        }
        Ok(self.count - done.min(self.count))
    }

    fn changed(&self) -> anyhow::Error {
        let name = self.rows.name();
        anyhow!(
            "`{name}` was changed while it was imported, and a part of it is stored: restore the file and import it again"
        )
    }
}

/// Adds a row to its bucket, or to all buckets that the store keeps of a collection of `fans_out`.
fn fold(
    table: &mut Table,
    row: &Counter,
    schedules: &Schedules,
    fans_out: &BTreeSet<CollectionName>,
) -> Result<(), String> {
    let (collection, metric) = (row.collection.as_str(), row.metric.as_str());
    let delta = Delta { collection, metric, bucket: row.bucket, n: row.value, increments: 1 };
    let mut merge =
        |delta| table.merge(delta).map_err(|error| format!("`{metric}` of {}: {error}", row.bucket));
    if !fans_out.contains(&row.collection) {
        return merge(delta);
    }
    let schedule = schedules.of(collection);
    if row.bucket.period() != Period::Second {
        check_nesting(row.bucket, schedule)?;
    }
    delta.fan_out(schedule).try_for_each(merge)
}

/// Checks that all moments of a bucket of the finest period are counted in the same buckets of the others.
fn check_nesting(bucket: Bucket, schedule: &Schedule) -> Result<(), String> {
    let zone = schedule.last_zone();
    let coarser = schedule.ever_stored().into_iter().filter(|period| *period > bucket.period());
    for period in coarser {
        let spans = BucketRange::one(bucket).spans(zone);
        let ends = spans.iter().flat_map(|span| [span.start, span.end - 1]);
        let is_within = |second| {
            let moment = Timestamp::from_second(second).ok()?;
            (Bucket::containing(period, moment, zone).ok()? == bucket.rollup(period, zone)?).then_some(())
        };
        if period != Period::All && ends.map(is_within).any(|within| within.is_none()) {
            return Err(format!(
                "{bucket} lies in more than one {period} of {}: a row has to tell how much is of which, so import rows of all periods of the store, or finer ones",
                zone_name(zone)
            ));
        }
    }
    Ok(())
}
