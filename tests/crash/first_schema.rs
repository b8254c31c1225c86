//! A journal as the first version of its tables had it, with counts that are in no store yet.
//!
//! Shows G9.

use std::{collections::BTreeMap, fs, path::Path};

use countem::journal::JournalReader;
use rusqlite::Connection;

use super::books::last;
use crate::support::CounterFile;

/// Written by the last countem that knew no other version, as `sqlite3 .dump` shows it: a stored batch, an unresolved one, pending
/// counts of two lanes, and one in quarantine.
const JOURNAL: &str = include_str!("first_schema.sql");

fn restore(journal: &Path) {
    fs::create_dir(journal).unwrap();
    Connection::open(journal.join("journal.db")).unwrap().execute_batch(JOURNAL).unwrap();
}

/// Goes on with a journal until nothing is pending in it.
fn go_on(file: &CounterFile, journal: &Path) {
    let report = last(file, journal).blocking().shutdown();
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
}

fn quarantined(journal: &Path) -> Vec<(String, i64)> {
    let entries = JournalReader::open(journal).unwrap().quarantined().unwrap();
    let mut counts: Vec<_> =
        entries.iter().map(|entry| (entry.quarantined.metric.to_string(), entry.quarantined.n)).collect();
    counts.sort();
    counts
}

#[test]
fn journal_of_the_first_version_is_delivered_once() {
    let file = CounterFile::new();
    let [journal, copy] = ["journal", "copy"].map(|name| file.folder().join(name));
    restore(&journal);
    restore(&copy);
    let mut expected = BTreeMap::new();
    for bucket in ["2026-11-20", "all"] {
        let web = [("GET 200.é", -3), ("frozen", 8), ("pending", 11)];
        for (collection, counters) in [("web", &web[..]), ("api", &[("pending", 13)])] {
            let counters = counters.iter().map(|(metric, n)| ((*metric).to_owned(), *n)).collect();
            expected.insert((collection.to_owned(), bucket.to_owned()), counters);
        }
    }
    for _ in 0..2 {
        go_on(&file, &journal);
        assert_eq!(file.rows(), expected);
    }
    let named = |counts: &[(&str, i64)]| -> Vec<_> {
        counts.iter().map(|(metric, n)| ((*metric).to_owned(), *n)).collect()
    };
    assert_eq!(quarantined(&journal), named(&[("held", 5)]));

    // The store recognises the unresolved batch of a copy, and what is pending there is quarantined.
    go_on(&file, &copy);
    assert_eq!(file.rows(), expected);
    let of_both_buckets = |metric, n| [(metric, n), (metric, n)];
    let pending = [of_both_buckets("pending", 11), of_both_buckets("pending", 13)].concat();
    let held = [&of_both_buckets("frozen", 1), &[("held", 5)][..], &pending].concat();
    assert_eq!(quarantined(&copy), named(&held));
}
