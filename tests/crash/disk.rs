//! A disk that has no room for the journal: acknowledgements stop, the process says so, and afterwards all is exact.
//!
//! Shows G12 and G13.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    books::{Books, Stored, deliver, last},
    node::{Line, Node, Start},
};
use crate::support::CounterFile;

const TASKS: usize = 4;

fn start(file: &CounterFile, journal: &Path) -> Start {
    Start::new(&file.uri(), journal).with("tasks", TASKS).with("flush", 50)
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
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "countem-test"]).arg(&folder);
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
fn full_disk_stops_acknowledgements_until_there_is_room() {
    let file = CounterFile::new();
    let Some(disk) = SmallDisk::mount(file.folder().join("disk")) else {
        eprintln!("!!! only an administrator can make a small disk: filling one was NOT TESTED");
        return;
    };
    let journal = disk.folder.join("journal");
    let node = start(&file, &journal).start();
    let lines = run_out_of_room(node, || disk.fill(), || fs::remove_file(disk.ballast()).unwrap());
    fs::remove_file(disk.ballast()).unwrap();
    let books = check(&file, &journal, lines);
    assert!(books.unsure() + books.refused() > 0, "no operation was refused or unsure");
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
