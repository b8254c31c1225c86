//! The same on a replica set.
//!
//! Shows G9.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use countem::{Collector, store::Counters};
use countem_testkit::{ReplicaSet, require_mongod};
use mongodb::{
    Client,
    bson::{DateTime, Document, doc},
    options::ReadConcern,
};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{
    books::{Books, Scene, Stored},
    copy::{
        copy, restore_the_journal_of_a_running_process, restore_the_journal_of_an_ended_process,
        start_a_copy_without_birth_times,
    },
    disk::fill_the_disk_beside_a_healthy_store,
    fail_points::{FAIL_POINTS, FailPoint, die_at, nth},
    kill::{kill_once, kills, random},
};

/// Reads all counters of a day, past countem, as a majority of the members has them.
pub(super) async fn stored(uri: &str) -> Result<Stored> {
    let client = Client::with_uri_str(uri).await?;
    let database = client.default_database().unwrap_or_else(|| client.database("countem"));
    let (mut day, mut all) = (Counters::new(), Counters::new());
    for name in ["own-0", "own-1", "own-2", "shared"] {
        let collection = database.collection::<Document>(name);
        let mut documents = collection.find(Document::new()).read_concern(ReadConcern::majority()).await?;
        while documents.advance().await? {
            let document = documents.deserialize_current()?;
            let counters = if document.get_str("_id")?.starts_with("all/") { &mut all } else { &mut day };
            for (field, value) in document.get_document("c")? {
                counters.add(&field.replace("%2E", "."), value.as_i64().unwrap());
            }
        }
    }
    assert_eq!(day, all, "an increment was stored in one of its periods alone");
    Ok(Stored::from(day))
}

/// Lets a last process deliver what the journal has.
async fn deliver(uri: &str, journal: &Path) -> Result<()> {
    let collector = Collector::builder().store(uri).journal(journal).start().await?;
    let report = collector.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    Ok(())
}

/// A replica set of one member, and a folder for journals.
struct Member {
    set: ReplicaSet,
    folder: TempDir,
    runtime: Handle,
}

impl Scene for Member {
    fn uri(&self) -> String {
        self.set.uri()
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn stored(&self) -> Stored {
        self.runtime.block_on(stored(&self.set.uri())).unwrap()
    }
}

/// Plays a scene that is the same on every store.
async fn play(scene: fn(&dyn Scene)) -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (set, folder) = (ReplicaSet::start(1).await?, tempfile::tempdir()?);
    let member = Member { set, folder, runtime: Handle::current() };
    Ok(tokio::task::spawn_blocking(move || scene(&member)).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_journal_counts_under_fresh_writer() -> Result<()> {
    play(restore_the_journal_of_an_ended_process).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_of_restored_backup_is_counted_once() -> Result<()> {
    play(restore_the_journal_of_a_running_process).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_without_birth_times_neither_loses_nor_doubles() -> Result<()> {
    play(start_a_copy_without_birth_times).await
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_takes_what_the_journal_cannot() -> Result<()> {
    play(fill_the_disk_beside_a_healthy_store).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_increment_survives_kill_9_exactly_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let folder = tempfile::tempdir()?;
    let (journal, mut random, mut books) = (folder.path().join("journal"), random(), Books::default());
    for round in 0..kills(50, 10) {
        if round % 5 == 4 {
            // The batches that the killed process left in doubt meet another primary.
            set.wait_for_primary().await?;
            set.step_down(2).await?;
        }
        tokio::task::block_in_place(|| kill_once(&set.uri(), &journal, &mut random, round, &mut books));
    }
    set.wait_for_primary().await?;
    deliver(&set.uri(), &journal).await?;
    assert!(books.acknowledged() > 0);
    books.check(&stored(&set.uri()).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_may_die_anywhere_also_while_recovering() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let folder = tempfile::tempdir()?;
    let (journal, mut random, mut books) = (folder.path().join("journal"), random(), Books::default());
    for (round, first) in FAIL_POINTS.into_iter().enumerate() {
        // The second one dies where the first one would have come by next, or at the same point.
        for (again, second) in [(0, first), (1, FAIL_POINTS[(round + 1) % FAIL_POINTS.len()])] {
            let name = format!("{first:?}.{again}");
            let nth = nth(first, &mut random);
            tokio::task::block_in_place(|| {
                die_at(first, nth, &set.uri(), &journal, &format!("{name}.a"), &mut books);
                die_at(second, 1, &set.uri(), &journal, &format!("{name}.b"), &mut books);
            });
        }
    }
    deliver(&set.uri(), &journal).await?;
    books.check(&stored(&set.uri()).await?);
    Ok(())
}

/// Moves the retirements that the register knows of two days into the past.
async fn let_retired_grow_old(uri: &str) -> Result<()> {
    let writers = Client::with_uri_str(uri).await?.database("countem").collection("_countem_writers");
    let long_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 49 * 3600 * 1000);
    let mut found = writers.find(Document::new()).await?;
    while found.advance().await? {
        let writer: Document = found.deserialize_current()?;
        let Ok(retired) = writer.get_document("retired") else { continue };
        for (start, _) in retired {
            let update = doc! { "$set": { format!("retired.{start}"): long_ago } };
            writers.update_one(doc! { "_id": writer.get_str("_id")? }, update).await?;
        }
    }
    Ok(())
}

/// Returns the writers with a watermark in a document of the bucket `all`.
async fn watermarked(uri: &str) -> Result<BTreeSet<String>> {
    let database = Client::with_uri_str(uri).await?.database("countem");
    let mut writers = BTreeSet::new();
    for name in ["own-0", "own-1", "own-2", "shared"] {
        let long_lived = doc! { "_id": { "$regex": "^all/" } };
        let mut documents = database.collection::<Document>(name).find(long_lived).await?;
        while documents.advance().await? {
            writers.extend(documents.deserialize_current()?.get_document("w")?.keys().cloned());
        }
    }
    Ok(writers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writers_leave_watermarks_of_two_days() -> Result<()> {
    /// Kills in the time after which a retired writer is pruned.
    const IN_TWO_DAYS: usize = 6;
    if !require_mongod() {
        return Ok(());
    }
    let (set, folder) = (ReplicaSet::start(1).await?, tempfile::tempdir()?);
    let (journal, mut random, mut books) = (folder.path().join("journal"), random(), Books::default());
    let (mut seen, mut max) = (BTreeSet::new(), 0);
    for round in 0..60 {
        tokio::task::block_in_place(|| kill_once(&set.uri(), &journal, &mut random, round, &mut books));
        let writers = watermarked(&set.uri()).await?;
        max = max.max(writers.len());
        seen.extend(writers);
        if round % IN_TWO_DAYS == IN_TWO_DAYS - 1 {
            // A killed process need not have lived long enough to retire those before it.
            deliver(&set.uri(), &journal).await?;
            let_retired_grow_old(&set.uri()).await?;
        }
    }
    deliver(&set.uri(), &journal).await?;
    books.check(&stored(&set.uri()).await?);
    assert!(seen.len() > 20, "{} writers have counted", seen.len());
    // Those of the last two days, and those before them that the next delivery prunes.
    assert!(max <= 2 * (IN_TWO_DAYS + 1), "{max} of {} writers", seen.len());

    let_retired_grow_old(&set.uri()).await?;
    deliver(&set.uri(), &folder.path().join("other")).await?;
    assert_eq!(watermarked(&set.uri()).await?, BTreeSet::new(), "all of them have ended");
    books.check(&stored(&set.uri()).await?);
    Ok(())
}

/// The watermarks of a writer are pruned from long-lived documents 48 hours after its end. A backup of its journal still holds a
/// batch that it had resolved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_batch_of_pruned_writer_is_quarantined() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(1).await?;
    let (folder, mut books) = (tempfile::tempdir()?, Books::default());
    let [journal, backup, other] = ["journal", "backup", "other"].map(|name| folder.path().join(name));
    tokio::task::block_in_place(|| {
        die_at(FailPoint::Store("after"), 1, &set.uri(), &journal, "first", &mut books);
    });
    copy(&journal, &backup);
    deliver(&set.uri(), &journal).await?;
    let original = stored(&set.uri()).await?;
    books.check(&original);

    let_retired_grow_old(&set.uri()).await?;
    // Its end prunes what is old.
    deliver(&set.uri(), &other).await?;

    let collector = Collector::builder().store(set.uri()).journal(&backup).start().await?;
    let report = collector.shutdown().await;
    assert!(report.quarantined > 0 && report.is_balanced(), "{report:?}");
    let after = stored(&set.uri()).await?;
    assert_eq!((after.own, after.shared), (original.own, original.shared));
    Ok(())
}
