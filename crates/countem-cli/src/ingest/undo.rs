//! Takes back what `--once` has counted of a file.
//!
//! A mark does not tell what was added; the content does, read again from the same position to the same one. That both readings
//! count the same is known by the sum in the mark, whatever has changed since: the file, the flags, the zone, this program.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use countem_core::{Bucket, Delta, Deltas, Mark, MetricName, Table, jiff::Timestamp};
use countem_engine::{Corrections, Retry};
use countem_store::{ErrorKind, Held, Store};

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    ingest::{
        count::Recount,
        feed::{Start, try_lock},
        fingerprint::Position,
        identity::{Claim, Identity, read_head},
        marks::{self, FileId, StoredMark, UndoState},
        plan::{Moment, Plan},
    },
    input::{Input, Source},
    output::{Listing, say},
    store::Effective,
    transfer::sender::Sender,
};

/// Number of stored counters that are changed at once.
const CHUNK: usize = 10_000;

/// Time for which the store may be away while marks are read.
const STORE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Takes back what the counters of `plan` have counted of `inputs`, one after the other, and prints how much that was.
///
/// # Errors
/// A file is not what was counted, or not by these counters: nothing of it is changed. Or the store failed, and the same call
/// continues.
pub(crate) async fn run(
    plan: &Plan,
    inputs: &[Input],
    effective: &Effective,
    store: Arc<dyn Store>,
    author: &str,
    global: &Global,
) -> Result<Exit> {
    if plan.moment == Moment::Now {
        let why = "`--undo` cannot tell when a line was counted with `--now`: correct the counters by hand";
        return Err(UsageError::new(why).into());
    }
    let mut sender = Sender::new(Arc::clone(&store), &effective.engine);
    let mut listing = Listing::new(&["file", "counts", "counters"]);
    for input in inputs {
        let name = input.name();
        let undo = Undo {
            plan,
            store: &store,
            corrections: Corrections::new(Arc::clone(&store), Arc::clone(&effective.schedules)),
            author,
            retry: Retry::new(effective.engine.retry_first, effective.engine.retry_longest),
        };
        let (counts, counters) = undo.file(input, &mut sender).await?;
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        listing.push([(*name).into(), number(counts).into(), number(counters as u64).into()]);
    }
    sender.finish().await;
    listing.print_as(global.output, "undone")?;
    for counter in &sender.quarantined {
        let (metric, bucket, why) = (&counter.metric, counter.bucket, &counter.reason);
        say(format_args!(
            "countem: `{metric}` of {bucket} could not be taken back ({why}): `countem quarantine` lists it"
        ));
    }
    Ok(if sender.quarantined.is_empty() { Exit::Ok } else { Exit::Partly })
}

struct Undo<'a> {
    plan: &'a Plan,
    store: &'a Arc<dyn Store>,
    corrections: Corrections,
    author: &'a str,
    retry: Retry,
}

impl Undo<'_> {
    /// Takes back the counts of one file, and returns their number and that of the stored counters that they were in.
    async fn file(&self, input: &Input, sender: &mut Sender) -> Result<(u64, usize)> {
        let name = input.name();
        let Input::File(path) = input else { bail!(UsageError::new("`--undo` needs a file")) };
        if !path.exists() {
            let why = "its lines alone tell what was counted. Restore it, or correct the counters by hand";
            return Err(NotFound::new(format!("there is no file `{name}`, and {why}")).into());
        }
        let mut source = input.open(&Arc::default())?;
        let head = read_head(&mut source)?;
        let mut claim = self.claim(path, &mut source, &head).await?;
        self.check_quarantine().await?;
        let counters: BTreeSet<_> = self.plan.counters.iter().cloned().collect();
        if claim.value.undo.as_ref().is_some_and(|undo| undo.counters != counters) {
            let begun = claim.value.undo.iter().flat_map(|undo| &undo.counters).map(String::as_str);
            let begun = begun.collect::<Vec<_>>().join("`, `");
            let why =
                format!("taking back the counts of `{name}` has begun for `{begun}`: finish that first");
            return Err(UsageError::new(why).into());
        }
        let mut table = Table::new();
        for counter in &counters {
            self.recount(counter, &claim, &mut source, &head, &mut table)?;
        }
        let totals = (table.deltas().totals().increments, table.len());
        self.send(&mut claim, &table, counters, sender).await?;
        Ok(totals)
    }

    /// Locks the file at `path` and finds its mark.
    async fn claim(&self, path: &Path, source: &mut Source, head: &[u8]) -> Result<Claim> {
        let name = path.display();
        let file = source
            .file()
            .ok_or_else(|| UsageError::new(format!("`{name}` is no file that can be read again")))?;
        let file = file.try_clone()?;
        if !try_lock(&file) {
            bail!("`{name}` is being counted by an `ingest --once`: stop that first");
        }
        let marks =
            marks::read(self.store, &marks::all_prefixes(), self.retry.clone(), Some(STORE_TIMEOUT)).await?;
        let id = FileId::new(path, &file.metadata()?);
        let own = |mark: &StoredMark| mark.value.file.is_same(&id) || mark.value.file.path == id.path;
        let known = marks.iter().find(|mark| own(mark)).map(|mark| mark.value.position.offset);
        let identity = Identity::find(source, &id, head, &marks, &[])?;
        match (identity, known) {
            (found @ Identity::Known(_), _) => {
                let claim = found.into_claim(id, head, &marks, Arc::new(file));
                let claim = claim.map_err(|_| anyhow!("`{name}` is left out"))?;
                if claim.stored.is_none() {
                    bail!("{}", unknown_sum(path));
                }
                Ok(claim)
            }
            (_, Some(offset)) => Err(anyhow!(
                "`{name}` is not what was counted: its first {offset} bytes were changed, cut or replaced. Name the file that has them now (a moved or compressed one will do), or correct the counters by hand"
            )),
            (_, None) => Err(NotFound::new(format!(
                "nothing is remembered of `{name}`: `countem marks` lists what is"
            ))
            .into()),
        }
    }

    /// Checks that everything that was counted is in its counter.
    async fn check_quarantine(&self) -> Result<()> {
        let held = match self.store.quarantined().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            held => held?,
        };
        let mut collections = self.plan.templates.iter().map(|template| template.collection().as_str());
        let mut concerned =
            |held: &Held| collections.any(|collection| collection == held.quarantined.collection);
        match held.into_iter().find(|held| concerned(held)) {
            None => Ok(()),
            Some(held) => Err(anyhow!(
                "counts of `{}` are in quarantine, and may be of this file: `countem quarantine retry` or `drop` them first",
                held.quarantined.collection
            )),
        }
    }

    /// Counts once more what `counter` has counted, and takes it off from the stored buckets in `table`.
    fn recount(
        &self,
        counter: &str,
        claim: &Claim,
        source: &mut Source,
        head: &[u8],
        table: &mut Table,
    ) -> Result<()> {
        let name = claim.value.file.path.as_path();
        let value = &claim.value;
        let added = match value.added.get(counter) {
            Some(added) => added,
            None if value.counted.contains_key(counter) || value.others.is_some() => {
                bail!("{}", unknown_sum(name))
            }
            None => {
                let counted: Vec<_> = value.counted.keys().map(|counter| format!("`{counter}`")).collect();
                let why = format!(
                    "`{}` was not counted by `{counter}`, but by {}",
                    name.display(),
                    counted.join(", ")
                );
                return Err(NotFound::new(why).into());
            }
        };
        let at = self.plan.counters.iter().position(|known| known == counter).unwrap_or_default();
        let plan = Plan {
            counters: vec![counter.to_owned()],
            templates: vec![self.plan.templates[at].clone()],
            ..self.plan.clone()
        };
        let cannot_read = || format!("cannot read `{}`", name.display());
        let from = Position { offset: added.from, line: 0 };
        let start = Start::at(name.to_string_lossy().into(), source, head, from).with_context(cannot_read)?;
        let end = value.of(counter).offset;
        let recount = Recount::read(&plan, &start, source, end).with_context(cannot_read)?;
        if recount.sum != added.sum {
            bail!(
                "the lines of `{}` count otherwise now than they were counted: repeat the flags for their times (`--time-field`, `--time-format`, `--input-zone`, `--year`). Else the file was changed, buckets have expired, or the zone of the store was changed: correct the counters by hand. Nothing was changed",
                name.display()
            );
        }
        let now = Timestamp::now();
        for counted in recount.table.iter() {
            let n =
                counted.n.checked_neg().with_context(|| format!("cannot take back `{}`", counted.metric))?;
            let negative = Delta { n, ..counted };
            for delta in negative.fan_out_kept(plan.schedules.of(counted.collection), now) {
                table.merge(delta).map_err(|error| anyhow!("cannot add up `{}`: {error}", delta.metric))?;
            }
        }
        Ok(())
    }

    /// Stores the deltas of `table`, in as many steps as they need, removes the counters that came to zero, and forgets the file.
    async fn send(
        &self,
        claim: &mut Claim,
        table: &Table,
        counters: BTreeSet<String>,
        sender: &mut Sender,
    ) -> Result<()> {
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_unstable_by_key(place);
        let mut id = Corrections::new_id();
        if let Some(UndoState { last: (collection, bucket, metric), id: begun, .. }) = &claim.value.undo {
            id.clone_from(begun);
            let bucket: Bucket = bucket.parse()?;
            let last = (collection.as_str(), bucket, metric.as_str());
            rows.drain(..rows.partition_point(|row| place(row) <= last));
        }
        for chunk in rows.chunks(CHUNK) {
            let mut deltas = Table::new();
            for row in chunk {
                deltas.merge(*row).map_err(|error| anyhow!("cannot add up `{}`: {error}", row.metric))?;
            }
            claim.value.undo = chunk.last().map(|row| UndoState {
                counters: counters.clone(),
                last: (row.collection.to_owned(), row.bucket.to_string(), row.metric.to_owned()),
                id: id.clone(),
            });
            move_mark(claim, Some(claim.value.to_text()), deltas.drain(), sender).await?;
        }
        self.remove_zeros(table).await?;
        self.log(&id, claim, table).await?;
        claim.value.undo = None;
        claim.value.counted.retain(|counter, _| !counters.contains(counter));
        claim.value.added.retain(|counter, _| !counters.contains(counter));
        let is_empty = claim.value.counted.is_empty() && claim.value.others.is_none();
        let value = (!is_empty).then(|| claim.value.to_text());
        move_mark(claim, value, Deltas::default(), sender).await
    }

    /// Notes in the log of corrections, once for each collection, that the counts were taken back.
    async fn log(&self, id: &str, claim: &Claim, table: &Table) -> Result<()> {
        let collections: BTreeSet<_> =
            self.plan.templates.iter().map(|template| template.collection()).collect();
        let file = claim.value.file.path.to_string_lossy();
        for (at, collection) in collections.into_iter().enumerate() {
            let of_collection = |row: &Delta<'_>| row.collection == collection.as_str();
            let counters = table.iter().filter(of_collection).count() as u64;
            let id = if at == 0 { id.to_owned() } else { format!("{id}-{at}") };
            self.corrections.log_undo(&id, collection, &file, counters, self.author).await?;
        }
        Ok(())
    }

    /// Removes the counters that came to zero.
    async fn remove_zeros(&self, table: &Table) -> Result<()> {
        for template in &self.plan.templates {
            let collection = template.collection();
            let rows = table.iter().filter(|row| row.collection == collection.as_str());
            let rows = rows.map(|row| Ok((row.bucket, MetricName::new(row.metric)?)));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            for rows in rows.chunks(CHUNK) {
                self.store.remove_zeros(collection, rows).await?;
            }
        }
        Ok(())
    }
}

/// Stores `deltas` in one step with the next value of the mark.
async fn move_mark(
    claim: &mut Claim,
    value: Option<String>,
    deltas: Deltas,
    sender: &mut Sender,
) -> Result<()> {
    let mark = Mark { key: claim.key.clone(), expected: claim.stored.take(), value: value.clone() };
    sender.send(deltas, mark).await?;
    claim.stored = value;
    Ok(())
}

/// Returns the order in which counters are changed.
fn place<'a>(row: &Delta<'a>) -> (&'a str, Bucket, &'a str) {
    (row.collection, row.bucket, row.metric)
}

fn unknown_sum(path: &Path) -> String {
    format!(
        "`{}` was counted by an earlier countem, which did not note what it added: correct the counters by hand, and `countem forget` the file",
        path.display()
    )
}
