//! A disk that has no room for the journal: acknowledgements stop, the process says so, and afterwards all is exact.
//!
//! Shows G12 and G13.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use countem::Collector;

use super::{
    books::{Books, Scene, Stored, deliver, last},
    node::{Line, Node, Start},
};
use crate::support::CounterFile;

const TASKS: usize = 4;

fn start(scene: &dyn Scene, journal: &Path) -> Start {
    Start::new(&scene.uri(), journal).with("tasks", TASKS).with("flush", 50)
}

fn is_told_of_a_problem(line: &Line) -> bool {
    matches!(line, Line::Health(health) if health == "full" || health == "unavailable")
}

/// Takes the room away until the process complains, and gives it back until it counts on; several times. In the end it is
/// killed while it has no room. Returns all that it has said.
fn run_out_of_room(mut node: Node, mut take_room: impl FnMut(), mut give_room: impl FnMut()) -> Vec<Line> {
    for _ in 0..4 {
        node.wait_for_acknowledgements(20);
        take_room();
        node.wait_for("the complaint", is_told_of_a_problem);
        give_room();
        node.wait_for("its recovery", |line| *line == Line::Health("ready".to_owned()));
    }
    node.wait_for_acknowledgements(20);
    take_room();
    node.wait_for("the complaint", is_told_of_a_problem);
    node.kill()
}

/// Checks that the store gets exactly what it has to get. Returns the books.
fn check(file: &CounterFile, journal: &Path, lines: Vec<Line>) -> Books {
    let mut books = Books::default();
    books.enter(lines, TASKS);
    println!("{} acknowledged, {} not, {} refused", books.acknowledged(), books.unsure(), books.refused());
    deliver(&last(file, journal));
    books.check(&Stored::of(file));
    books
}

/// Sets how large files of a process may become. The file of the store is meant, too: it is the same disk.
fn limit_files(process: u32, bytes: &str) {
    let arguments = ["--pid", &process.to_string(), &format!("--fsize={bytes}:unlimited")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn failing_disk_stops_acknowledgements_until_it_works() {
    let file = CounterFile::new();
    let journal = file.folder().join("journal");
    let node = start(&file, &journal).ignoring_file_limit().start();
    let process = node.id();
    // Less than any file has already: nothing can be written at all.
    let lines = run_out_of_room(node, || limit_files(process, "4096"), || limit_files(process, "unlimited"));
    check(&file, &journal, lines);
}

/// A file system of a few megabytes in memory; gone with the test.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Returns `None` where this process may not mount anything.
    fn mount(folder: PathBuf, megabytes: u32) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        let size = format!("size={megabytes}m");
        mount.args(["-t", "tmpfs", "-o", &size, "countem-test"]).arg(&folder);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Writes until there is no room.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 1024]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing else could be done about a failure.
        Command::new("umount").arg("--lazy").arg(&self.folder).status().ok();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_loses_and_doubles_nothing() {
    let file = CounterFile::new();
    let Some(disk) = SmallDisk::mount(file.folder().join("disk"), 4) else {
        eprintln!("!!! only an administrator can make a small disk: filling one was NOT TESTED");
        return;
    };
    let journal = disk.folder.join("journal");
    let mut node = start(&file, &journal).start();
    for _ in 0..4 {
        node.wait_for_acknowledgements(20);
        disk.fill();
        // By the journal, as long as it finds room in its own file, and then by the store.
        node.wait_for_acknowledgements(200);
        fs::remove_file(disk.ballast()).unwrap();
    }
    disk.fill();
    node.wait_for_acknowledgements(200);
    let lines = node.kill();
    fs::remove_file(disk.ballast()).unwrap();
    let books = check(&file, &journal, lines);
    assert_eq!(books.refused(), 0);
}

/// The bound that is configured: while the store is away the journal fills, and intake is refused until it is back.
#[test]
fn full_journal_refuses_until_store_is_back() {
    let file = CounterFile::new();
    deliver(&last(&file, &file.folder().join("other")));
    let journal = file.folder().join("journal");
    let mut node = start(&file, &journal).with("max_bytes", 300_000).with("flush", 5).start();
    let mut away = Some(file.lock());
    node.wait_for("the bound", |line| *line == Line::Health("full".to_owned()));
    node.wait_for("a refusal", |line| matches!(line, Line::Refused(_)));
    drop(away.take());
    node.wait_for("its recovery", |line| *line == Line::Health("ready".to_owned()));
    node.wait_for_acknowledgements(50);
    check(&file, &journal, node.kill());
}

/// An acknowledgement that waits for the disk does not wait for the store's next attempt, too.
#[test]
fn acknowledgements_go_on_as_soon_as_disk_does() {
    let file = CounterFile::new();
    let journal = file.folder().join("journal");
    // The storage actors try again in an hour.
    let start = start(&file, &journal).with("retry_first", 3_600_000).with("retry", 3_600_000);
    let mut node = start.failing("freeze.before", "1*return(error)").start();
    node.wait_for_acknowledgements(500);
    check(&file, &journal, node.kill());
}

/// Counters whose names come only once, as of users or sessions: every batch is as large as what was counted.
fn count_names(collector: &Collector, from: u64, names: u64) -> u64 {
    let name = |number| format!("a name that is as long as names are {number:08}");
    let accepted =
        (from..from + names).filter(|number| collector.try_increment("names", &name(*number), 1).is_ok());
    accepted.count() as u64
}

/// Stored batches are kept for a while, and must not fill the disk of the journal.
#[cfg(target_os = "linux")]
#[test]
fn history_gives_way_before_anything_is_refused() {
    const NAMES: u64 = 2_000;
    let file = CounterFile::new();
    let Some(disk) = SmallDisk::mount(file.folder().join("disk"), 12) else {
        eprintln!("!!! only an administrator can make a small disk: filling one was NOT TESTED");
        return;
    };
    let journal = disk.folder.join("journal");
    let collector = last(&file, &journal);
    let mut accepted = 0;
    for round in 0..100 {
        accepted += count_names(&collector, round * NAMES, NAMES);
        collector.blocking().flush().unwrap();
    }
    let stats = collector.stats();
    assert_eq!((accepted, stats.refused.values().sum::<u64>()), (100 * NAMES, 0));
    assert!(stats.journal.is_some_and(|journal| journal.health.is_ready()));
    deliver(&collector);
    assert_eq!(names_in(&file), accepted);
}

/// Returns the number of names that were counted, whatever periods are stored beside all time.
fn names_in(file: &CounterFile) -> u64 {
    let all_time = file.rows().into_iter().filter(|((_, bucket), _)| bucket == "all");
    all_time.map(|(_, counters)| counters.len() as u64).sum()
}

/// More is pending than the disk of the journal holds; the store is healthy. Everything is accepted, stored and acknowledged, and
/// a process that is killed meanwhile neither loses what was acknowledged nor doubles anything.
#[cfg(target_os = "linux")]
#[test]
fn store_takes_what_the_journal_cannot() {
    fill_the_disk_beside_a_healthy_store(&CounterFile::new());
}

pub(super) fn fill_the_disk_beside_a_healthy_store(scene: &dyn Scene) {
    let Some(disk) = SmallDisk::mount(scene.folder().join("disk"), 4) else {
        eprintln!("!!! only an administrator can make a small disk: filling one was NOT TESTED");
        return;
    };
    let journal = disk.folder.join("journal");
    let mut node = start(scene, &journal).start();
    node.wait_for_acknowledgements(50);
    disk.fill();
    node.wait_for_acknowledgements(500);
    let mut books = Books::default();
    books.enter(node.kill(), TASKS);
    // Not even a start needs room.
    let mut node = start(scene, &journal).with("prefix", "full").start();
    node.wait_for_acknowledgements(100);
    books.enter(node.kill(), TASKS);
    assert_eq!(books.refused(), 0);
    fs::remove_file(disk.ballast()).unwrap();
    scene.deliver(&journal);
    books.check(&scene.stored());
}

/// An end with a full disk and a store that is away: what is dropped is gone for good, what is journaled comes back.
#[cfg(target_os = "linux")]
#[test]
fn dropped_increments_never_come_back() {
    let file = CounterFile::new();
    let Some(disk) = SmallDisk::mount(file.folder().join("disk"), 4) else {
        eprintln!("!!! only an administrator can make a small disk: filling one was NOT TESTED");
        return;
    };
    let journal = disk.folder.join("journal");
    deliver(&last(&file, &file.folder().join("other")));
    let collector =
        file.builder().journal(&journal).shutdown_deadline(Duration::from_secs(8)).start_blocking().unwrap();
    let mut accepted = count_names(&collector, 0, 3_000);
    collector.blocking().durable().unwrap();
    let away = file.lock();
    disk.fill();
    // More than what the reserve and the log of the journal have room for.
    accepted += count_names(&collector, 3_000, 20_000);
    let report = collector.blocking().shutdown();
    assert!(report.is_balanced() && report.journaled >= 3_000, "{report:?}");
    // In doubt, if the store was asked just before the deadline.
    assert!(report.dropped + report.in_doubt > 0, "{report:?}");
    assert_eq!((report.accepted, report.applied), (accepted, 0), "{report:?}");
    drop(away);
    fs::remove_file(disk.ballast()).unwrap();
    let next = last(&file, &journal);
    deliver(&next);
    let stored = names_in(&file);
    let certain = report.journaled..=report.journaled + report.in_doubt;
    assert!(certain.contains(&stored), "{stored} came back: {report:?}");
}
