//! `countem copy`

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use countem_core::{CollectionName, Delta, Mark, Schedules, Table, hash::fnv64, jiff::Timestamp};
use countem_store::Store;
use countem_store_uri::{StoreUri, open_store_for_reading, open_store_with};
use countem_transfer::Digest;

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::say,
    progress::{Bar, Goal, Meters},
    store::{Effective, block_on, finish_correction},
    transfer::{
        marks::{COPIES, CopyMark},
        scan::{self, Page, Position, Scan},
        sender::Sender,
    },
};

/// Copy every counter of a store into an empty one
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Copy {
    /// The store to copy
    #[arg(long, value_name = "URI")]
    from: String,
    /// The store to fill: empty, or filled in part by this copy
    #[arg(long, value_name = "URI")]
    to: String,
}

const AFTER: &str = "\
Examples:
  countem copy --from sqlite://countem.db --to mongodb://localhost/countem

Zone and stored periods are copied first, then the counters, then the positions of
`ingest --once` and of imports. A copy that was interrupted continues where it ended; one
that is complete is not repeated, and fails where one of the stores was counted since. In
the end the digest of what was sent is compared with all that the target holds. The
quarantine is not copied.

A store that is counted meanwhile has other counters in the end: this is said, with exit
code 6. Stop its writers first, or copy a `countem backup` of it.";

/// A copy under way.
struct Copying {
    from: Arc<dyn Store>,
    to: Arc<dyn Store>,
    schedules: Arc<Schedules>,
    sender: Sender,
    key: String,
    /// The value of the mark in the target.
    stored: Option<String>,
    now: Timestamp,
    digest: Digest,
    /// Some counters of the source are not in the target.
    lacks: bool,
    meters: Arc<Meters>,
}

impl Copy {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        let uri = |text: &str| StoreUri::new(text).map_err(|error| UsageError::new(error.to_string()));
        let (from, to) = (uri(&self.from)?, uri(&self.to)?);
        if from.expose().strip_prefix("sqlite://").is_some_and(|path| !std::path::Path::new(path).exists()) {
            return Err(NotFound::new(format!("there is no store `{from}`")).into());
        }
        if to.scheme() == "memory" {
            return Err(UsageError::new("`memory://` ends with this command, and the copy with it").into());
        }
        block_on(async {
            let mongodb = effective.config.mongodb();
            let from = open_store_for_reading(&from, mongodb, None).await?;
            if from.schedules().await?.is_none() && from.collections().await?.is_empty() {
                let from = from.location();
                return Err(
                    NotFound::new(format!("there is no store `{from}`: nothing was counted there")).into()
                );
            }
            let to = open_store_with(&to, mongodb, None).await?;
            let from = finish_correction(from, &effective.schedules).await?;
            let to = finish_correction(to, &effective.schedules).await?;
            let recorded = from.schedules().await?;
            let schedules = recorded.map_or_else(|| Arc::clone(&effective.schedules), Arc::new);
            let key = format!("{COPIES}{:016x}", fnv64(&from.location()));
            let stored = to.marks(COPIES).await?.remove(&key);
            let sender = Sender::new(Arc::clone(&to), &effective.engine);
            let (now, digest, meters) = (Timestamp::now(), Digest::default(), Arc::default());
            let copying =
                Copying { from, to, schedules, sender, key, stored, now, digest, lacks: false, meters };
            copying.run(global).await
        })
    }
}

impl Copying {
    async fn run(mut self, global: &Global) -> Result<Exit> {
        let mut at = None;
        if let Some(text) = &self.stored {
            let value: CopyMark = serde_json::from_str(text)?;
            if value.done {
                return self.repeat(&value, global).await;
            }
            self.lacks = value.lacks;
            self.now = value.now.parse()?;
            self.digest = value.digest.parse().map_err(|why| anyhow::anyhow!("`{}`: {why}", value.digest))?;
            at = Some(Position {
                collection: CollectionName::new(&value.collection)?,
                bucket: value.bucket.parse()?,
                metric: value.metric,
            });
        } else if !self.to.collections().await?.is_empty() {
            let to = self.to.location();
            bail!("`{to}` has counters that are not of this copy: name an empty store as the target");
        }
        self.copy_schedules().await?;
        let mut scan = self.scan(&self.from).await?;
        if let Some(at) = &at {
            scan = scan.after(at.clone());
        }
        let bar = Bar::start(global.quiet, &self.meters, Goal::Uncounted, "counters copied and compared");
        while let Some(page) = scan.next().await? {
            at = page.end().or(at);
            self.copy_page(&page, at.as_ref()).await?;
        }
        self.compare().await?;
        let is_living = self.digest_of(&self.from).await? != self.digest;
        self.lacks |= is_living;
        self.copy_marks().await?;
        drop(bar);
        self.set_mark(Table::new(), at.as_ref(), true).await?;
        self.sender.finish().await;
        if !global.quiet {
            let (counters, digest) = (self.digest.counters(), self.digest);
            say(format_args!("countem: copied {counters} counters, digest {digest}"));
        }
        if is_living {
            say(format_args!(
                "countem: `{}` was counted while it was copied, so the copy lacks some of its counts: stop its writers, or copy a `countem backup` of it, into another empty store",
                self.from.location()
            ));
        }
        Ok(if self.lacks { Exit::Partly } else { Exit::Ok })
    }

    /// Compares source and target of a copy that is complete.
    async fn repeat(self, copy: &CopyMark, global: &Global) -> Result<Exit> {
        let bar = Bar::start(global.quiet, &self.meters, Goal::Uncounted, "counters compared");
        let (from, to) = (self.digest_of(&self.from).await?, self.digest_of(&self.to).await?);
        drop(bar);
        if from != to && !copy.lacks {
            let is_changed = |digest: Digest| digest.to_string() != copy.digest;
            let locations = (self.from.location(), self.to.location());
            let changed = match (is_changed(from), is_changed(to)) {
                (true, false) => format!("`{}` was", locations.0),
                (false, true) => format!("`{}` was", locations.1),
                _ => format!("`{}` and `{}` were", locations.0, locations.1),
            };
            bail!(
                "{changed} counted since the copy, and differ: the digest of the source is {from}, that of the target {to}, that of the copy {}; copy to an empty store",
                copy.digest
            );
        }
        if copy.lacks {
            say(
                "countem: this copy lacks counters of its source, as it said when it was made: copy to an empty store",
            );
            return Ok(Exit::Partly);
        }
        if !global.quiet {
            say(format_args!("countem: copied already, digest {to}"));
        }
        Ok(Exit::Ok)
    }

    /// Records the schedules of the source in the target, one change after the other.
    async fn copy_schedules(&self) -> Result<()> {
        let text = self.schedules.to_string();
        let mut recorded = self.to.schedules().await?;
        let have = recorded.as_ref().map_or(0, Schedules::revision);
        for revision in have + 1..=self.schedules.revision() {
            let lines: Vec<_> = text.lines().take(revision).collect();
            recorded = Some(self.to.record_schedules(&lines.join("\n").parse()?).await?);
        }
        if recorded.as_ref() != Some(&*self.schedules) {
            let to = self.to.location();
            bail!("`{to}` has another zone or other stored periods: name a new store as the target");
        }
        Ok(())
    }

    async fn scan(&self, store: &Arc<dyn Store>) -> Result<Scan> {
        let names = store.collections().await?;
        Ok(Scan::new(Arc::clone(store), Arc::clone(&self.schedules), names, self.now))
    }

    async fn digest_of(&self, store: &Arc<dyn Store>) -> Result<Digest> {
        scan::digest(self.scan(store).await?, &self.meters).await
    }

    async fn copy_page(&mut self, page: &Page, at: Option<&Position>) -> Result<()> {
        let collection = page.collection.as_str();
        for (bucket, counters) in &page.rows {
            for (metric, why) in counters.unreadable() {
                say(format_args!(
                    "countem: `{metric}` of `{collection}` in {bucket} is not copied, since it cannot be read: {why}"
                ));
                self.lacks = true;
            }
        }
        let mut table = Table::new();
        let (mut last, mut counters) = (None, page.counters().peekable());
        while let Some((bucket, metric, n)) = counters.next() {
            table.merge(Delta { collection, metric, bucket, n, increments: 1 })?;
            self.digest.add(collection, bucket, metric, n);
            self.meters.handle(1);
            last = Some((bucket, metric));
            if table.len() >= CHUNK && counters.peek().is_some() {
                let (collection, metric) = (page.collection.clone(), metric.to_owned());
                let position = Position { collection, bucket, metric };
                self.set_mark(std::mem::take(&mut table), Some(&position), false).await?;
            }
        }
        if last.is_some() { self.set_mark(table, at, false).await } else { Ok(()) }
    }

    /// Stores counters and moves the mark.
    async fn set_mark(&mut self, mut table: Table, at: Option<&Position>, done: bool) -> Result<()> {
        let text = |part: &dyn Fn(&Position) -> String| at.map(part).unwrap_or_default();
        let value = serde_json::to_string(&CopyMark {
            from: self.from.location(),
            now: self.now.to_string(),
            digest: self.digest.to_string(),
            collection: text(&|at| at.collection.to_string()),
            bucket: text(&|at| at.bucket.to_string()),
            metric: text(&|at| at.metric.clone()),
            done,
            lacks: self.lacks,
        })?;
        let mark = Mark { key: self.key.clone(), expected: self.stored.take(), value: Some(value.clone()) };
        self.sender.send(table.drain(), mark).await?;
        self.stored = Some(value);
        Ok(())
    }

    /// Compares what was sent with what the target holds.
    async fn compare(&self) -> Result<()> {
        let found = self.digest_of(&self.to).await?;
        if found != self.digest {
            bail!(
                "`{}` does not hold what was copied: its digest is {found}, that of the copy {}; it was counted by others or damaged meanwhile: copy into another empty store",
                self.to.location(),
                self.digest
            );
        }
        Ok(())
    }

    /// Copies the marks of files that were ingested and imported.
    async fn copy_marks(&mut self) -> Result<()> {
        let marks = |marks: BTreeMap<String, String>| {
            marks.into_iter().filter(|(key, _)| !key.starts_with(COPIES)).collect::<BTreeMap<_, _>>()
        };
        let there = marks(self.to.marks("").await?);
        for (key, value) in marks(self.from.marks("").await?) {
            let expected = there.get(&key).cloned();
            if expected.as_ref() != Some(&value) {
                let mark = Mark { key, expected, value: Some(value) };
                self.sender.send(Table::new().drain(), mark).await?;
            }
        }
        Ok(())
    }
}

/// Number of counters that are stored at once.
const CHUNK: usize = 10_000;
