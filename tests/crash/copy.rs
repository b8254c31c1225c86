//! A data directory that is copied and used by two nodes at once.
//!
//! Shows G14.

use std::{fs, path::Path};

use countem::journal::{JournalReader, Summary};

use super::{
    books::{Books, Stored, deliver, last},
    fail_points::{FailPoint, die_at},
    node::{Line, Start},
};
use crate::support::CounterFile;

fn copy(from: &Path, to: &Path) {
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
fn count_with_both(file: &CounterFile, journals: [&Path; 2], books: &mut Books) {
    const TASKS: usize = 4;
    let names = ["original", "copy"];
    let nodes = journals.into_iter().zip(names).map(|(journal, name)| {
        let start =
            Start::new(&file.uri(), journal).with("prefix", name).with("tasks", TASKS).with("flush", 5);
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
