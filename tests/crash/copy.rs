//! A data directory that is copied and used by two nodes at once.
//!
//! Shows G14.

use std::{fs, path::Path, process::Command, time::Duration};

use countem::{
    Collector, Durability,
    engine::EngineConfig,
    journal::{JournalConfig, JournalReader, Summary},
};

use super::{
    books::{Books, Scene, Stored, deliver, last},
    fail_points::{FailPoint, die_at},
    kill::let_retired_grow_old,
    node::{Line, Node, Start},
};
use crate::support::CounterFile;

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn summary(journal: &Path) -> Summary {
    JournalReader::open(journal).unwrap().summary().unwrap()
}

/// Counts with two nodes at the same time, on the original and the copy, and lets both end well.
fn count_with_both(scene: &dyn Scene, journals: [&Path; 2], books: &mut Books) {
    const TASKS: usize = 4;
    let names = ["original", "copy"];
    let nodes = journals.into_iter().zip(names).map(|(journal, name)| {
        let start =
            Start::new(&scene.uri(), journal).with("prefix", name).with("tasks", TASKS).with("flush", 5);
        let mut node = start.with("operations", 100).start();
        node.wait_for("its start", |line| *line == Line::Started);
        node
    });
    let nodes: Vec<_> = nodes.collect();
    for node in nodes {
        books.enter(node.finish(), TASKS);
    }
}

/// A process that dies with frozen batches of which the store has some leaves them in the original and in the copy. Both
/// send them, and both count on.
#[test]
fn copied_directory_neither_loses_nor_doubles() {
    for point in [
        FailPoint::Store("before"),
        FailPoint::Store("after"),
        FailPoint::Journal("freeze.after"),
        FailPoint::Journal("record.after"),
    ] {
        let (file, mut books) = (CounterFile::new(), Books::default());
        let [original, copied] = ["original", "copy"].map(|name| file.folder().join(name));
        die_at(point, 3, &file.uri(), &original, "before", &mut books);
        copy(&original, &copied);
        count_with_both(&file, [&original, &copied], &mut books);

        let writers = [&original, &copied].map(|dir| summary(dir).writer);
        assert_ne!(writers[0].node(), writers[1].node(), "two nodes, two identities");
        for journal in [&original, &copied] {
            deliver(&last(&file, journal));
        }
        books.check(&Stored::of(&file));
        assert_eq!((books.unsure(), books.refused()), (0, 0), "nothing was wrong with the journals");
    }
}

/// Pending deltas have no identity yet, so only one of the two nodes may count them. The copy quarantines them.
#[test]
fn original_alone_counts_pending_of_copied_directory() {
    const TASKS: usize = 4;
    let (file, mut books) = (CounterFile::new(), Books::default());
    let [original, copied] = ["original", "copy"].map(|name| file.folder().join(name));
    let start = Start::new(&file.uri(), &original).with("prefix", "before").with("tasks", TASKS);
    let mut node = start.with("flush", 3_600_000).start();
    node.wait_for_acknowledgements(100);
    books.enter(node.kill(), TASKS);
    assert_eq!(summary(&original).frozen.batches, 0, "all of it is pending");
    copy(&original, &copied);
    count_with_both(&file, [&original, &copied], &mut books);
    let kept = summary(&copied).quarantined.counters;
    // Both stored periods of every operation, and of the shared counter.
    assert!(kept >= 2 * 101, "{kept} counters are quarantined");
    books.check(&Stored::of(&file));
}

/// Puts files back in place: the file of the journal stays the same one, so nothing but its content tells.
fn restore(backup: &Path, journal: &Path) {
    for entry in fs::read_dir(journal).unwrap() {
        let file = entry.unwrap().path();
        if !backup.join(file.file_name().unwrap()).exists() {
            fs::remove_file(file).unwrap();
        }
    }
    copy(backup, journal);
}

/// An older journal that is put back in place has an epoch that was used since: its next batches must not be taken for those
/// that the store has of that time.
#[test]
fn restored_journal_counts_under_fresh_writer() {
    restore_the_journal_of_an_ended_process(&CounterFile::new());
}

pub(super) fn restore_the_journal_of_an_ended_process(scene: &dyn Scene) {
    const TASKS: usize = 4;
    let [journal, backup] = ["journal", "backup"].map(|name| scene.folder().join(name));
    let start = |name| Start::new(&scene.uri(), &journal).with("prefix", name).with("tasks", TASKS);
    let ended = start("first").with("operations", 50).start().finish();
    copy(&journal, &backup);
    let mut second = start("second").with("flush", 5).start();
    second.wait_for_acknowledgements(1000);
    let mut lost = Books::default();
    lost.enter(second.kill(), TASKS);
    restore(&backup, &journal);

    let mut books = Books::default();
    books.enter(ended, TASKS);
    books.enter(start("third").with("operations", 300).with("flush", 5).start().finish(), TASKS);
    scene.deliver(&journal);
    let stored = scene.stored();
    assert!(books.lost(&stored).is_empty(), "acknowledged and lost: {:?}", books.lost(&stored));
    let twice: Vec<_> = stored.own.iter().filter(|(_, value)| *value != Ok(1)).collect();
    assert!(twice.is_empty(), "counted more than once: {twice:?}");
    assert!(lost.lost(&stored).len() < lost.acknowledged(), "the second process had stored some");
}

/// Waits until every thread of a process has stopped: the signal is sent before that.
fn wait_until_stopped(process: u32) {
    let is_stopped = || {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        threads.flatten().all(|thread| {
            // `1234 (name) T …`; a thread that has just ended has no file.
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    };
    while !is_stopped() {
        std::thread::yield_now();
    }
}

/// Counts that were pending when a running process was backed up are in the store by the time the backup is put back.
#[test]
fn pending_of_restored_backup_is_counted_once() {
    restore_the_journal_of_a_running_process(&CounterFile::new());
}

pub(super) fn restore_the_journal_of_a_running_process(scene: &dyn Scene) {
    const TASKS: usize = 4;
    let [journal, backup] = ["journal", "backup"].map(|name| scene.folder().join(name));
    let start = |name| Start::new(&scene.uri(), &journal).with("prefix", name).with("tasks", TASKS);
    let mut node = start("first").with("flush", 1500).start();
    node.wait_for_acknowledgements(100);
    let signal = |signal: &str, node: &Node| {
        let sent = Command::new("kill").args([signal, &node.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP", &node);
    wait_until_stopped(node.id());
    copy(&journal, &backup);
    assert!(summary(&backup).pending.increments > 0, "something is pending");
    signal("-CONT", &node);
    let before = summary(&journal).resolved.batches;
    node.wait_for("a flush", |_| summary(&journal).resolved.batches > before + 1);
    let mut books = Books::default();
    let lines = node.kill();
    restore(&backup, &journal);
    scene.deliver(&journal);
    books.enter(lines, TASKS);
    let stored = scene.stored();
    let twice: Vec<_> = stored.own.iter().filter(|(_, value)| *value != Ok(1)).collect();
    assert!(twice.is_empty(), "counted more than once: {twice:?}");
    assert!(stored.own.get("first.0.0").is_ok_and(|value| value == Some(1)));
}

/// On a file system without birth times a copy looks like its original; only the store can tell.
#[test]
fn copy_without_birth_times_neither_loses_nor_doubles() {
    start_a_copy_without_birth_times(&CounterFile::new());
}

pub(super) fn start_a_copy_without_birth_times(scene: &dyn Scene) {
    const TASKS: usize = 4;
    let mut books = Books::default();
    let [original, copied] = ["original", "copy"].map(|name| scene.folder().join(name));
    let start = |journal, name| {
        let start = Start::new(&scene.uri(), journal).with("prefix", name).with("tasks", TASKS);
        start.failing("born", "return(error)")
    };
    let mut node = start(&original, "before").with("flush", 3_600_000).start();
    node.wait_for_acknowledgements(100);
    books.enter(node.kill(), TASKS);
    copy(&original, &copied);
    let nodes = [(&original, "original"), (&copied, "copy")].map(|(journal, name)| {
        let mut node = start(journal, name).with("flush", 5).with("operations", 300).start();
        node.wait_for("its start", |line| *line == Line::Started);
        node
    });
    for node in nodes {
        books.enter(node.finish(), TASKS);
    }
    let summaries = [&original, &copied].map(|journal| summary(journal));
    assert_ne!(summaries[0].writer.node(), summaries[1].writer.node(), "the second one took a new identity");
    let quarantined = summaries.map(|summary| summary.quarantined.counters);
    assert!(quarantined.iter().any(|counters| *counters >= 2 * 101), "{quarantined:?}");
    books.check(&scene.stored());
}

/// A backup holds a batch that the original resolved before the store forgot it: sent again, it would count twice.
#[test]
fn old_batch_of_forgotten_writer_is_quarantined() {
    let (file, mut books) = (CounterFile::new(), Books::default());
    let [journal, backup] = ["journal", "backup"].map(|name| file.folder().join(name));
    die_at(FailPoint::Store("before"), 1, &file.uri(), &journal, "first", &mut books);
    assert!(summary(&journal).frozen.batches > 0);
    copy(&journal, &backup);
    let start = |journal: &Path| {
        // The store forgets a writer as soon as it has ended.
        let options = JournalConfig { resolved_retention: Duration::ZERO, ..JournalConfig::new(journal) };
        let durability = Durability::journal(options);
        let config = EngineConfig { durability, ..EngineConfig::default() };
        Collector::builder().engine_config(config).store(file.uri()).start_blocking().unwrap()
    };
    deliver(&start(&journal));
    let original = Stored::of(&file);
    books.check(&original);

    let frozen = summary(&backup).frozen.increments;
    let restored = start(&backup);
    let report = restored.blocking().shutdown();
    assert!(report.quarantined >= frozen && report.is_balanced(), "{report:?}");
    assert_eq!(report.applied, 0, "{report:?}");
    let quarantined = JournalReader::open(&backup).unwrap().quarantined().unwrap();
    assert!(quarantined.iter().any(|entry| entry.quarantined.reason.contains("so old")), "{quarantined:?}");
    let stored = Stored::of(&file);
    assert_eq!((stored.own, stored.shared), (original.own, original.shared));
}

/// The rows of a writer go two days after its end. A backup of its journal still holds a batch that it had resolved.
#[test]
fn old_batch_of_pruned_writer_is_quarantined() {
    let (file, mut books) = (CounterFile::new(), Books::default());
    let [journal, backup, other] = ["journal", "backup", "other"].map(|name| file.folder().join(name));
    die_at(FailPoint::Store("after"), 1, &file.uri(), &journal, "first", &mut books);
    copy(&journal, &backup);
    deliver(&last(&file, &journal));
    let original = Stored::of(&file);
    books.check(&original);
    let_retired_grow_old(&file);
    // Its start prunes what is old.
    deliver(&last(&file, &other));

    let report = last(&file, &backup).blocking().shutdown();
    assert!(report.quarantined > 0 && report.is_balanced(), "{report:?}");
    let after = Stored::of(&file);
    assert_eq!((after.own, after.shared), (original.own, original.shared));
}
