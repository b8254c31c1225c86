//! The acknowledgements of processes, compared with the contents of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use countem::{Collector, Period, store::Counters};

use super::node::Line;
use crate::support::CounterFile;

/// Operations by what their processes said of them.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Acknowledged: stored exactly once.
    acknowledged: BTreeSet<String>,
    /// Counted, but not durable when that was said.
    unsure: BTreeSet<String>,
    /// Never counted under its own name.
    refused: BTreeSet<String>,
    /// Maximum number of increments of `shared` without an acknowledgement.
    spare: usize,
}

/// Contents of the store, by counter.
pub(super) struct Stored {
    pub(super) own: Counters,
    pub(super) shared: i64,
}

impl Books {
    /// Enters what a process with so many tasks has said until it was killed or ended by itself.
    pub(super) fn enter(&mut self, lines: impl IntoIterator<Item = Line>, tasks: usize) {
        for line in lines {
            let (list, own) = match line {
                Line::Acknowledged(own) => (&mut self.acknowledged, own),
                Line::Unsure(own) => {
                    self.spare += 1;
                    (&mut self.unsure, own)
                }
                Line::Half(own) => {
                    self.spare += 1;
                    (&mut self.refused, own)
                }
                Line::Refused(own) => (&mut self.refused, own),
                _ => continue,
            };
            assert!(list.insert(own), "an operation is told about once");
        }
        // Each task had at most one operation of which it could say nothing any more.
        self.spare += tasks;
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Returns how many operations were counted and not acknowledged.
    pub(super) fn unsure(&self) -> usize {
        self.unsure.len()
    }

    /// Returns how many operations were refused, wholly or in part.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Returns the operations that were acknowledged and are not stored.
    pub(super) fn lost(&self, stored: &Stored) -> Vec<&String> {
        self.acknowledged.iter().filter(|own| stored.own.get(own) == Ok(None)).collect()
    }

    /// Checks that every acknowledged operation is stored exactly once and every other one at most once.
    #[track_caller]
    pub(super) fn check(&self, stored: &Stored) {
        let twice: Vec<_> = stored.own.iter().filter(|(_, value)| *value != Ok(1)).collect();
        assert!(twice.is_empty(), "counted more than once: {twice:?}");
        let lost = self.lost(stored);
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let invented: Vec<_> = self.refused.iter().filter(|own| stored.own.get(own) != Ok(None)).collect();
        assert!(invented.is_empty(), "refused and counted: {invented:?}");
        // Every operation is one increment of the shared counter and one of its own, and only those without an
        // acknowledgement may have come halfway.
        let (acknowledged, spare) = (self.acknowledged.len() as i64, self.spare as i64);
        let operations = stored.own.len() as i64;
        for (what, value) in [("operations", operations), ("shared", stored.shared)] {
            let range = acknowledged..=acknowledged + spare;
            assert!(range.contains(&value), "{what}: {value} stored, {range:?} expected");
        }
    }

    /// Checks the counters of operations alone, but for those whose name begins with `other`.
    #[track_caller]
    pub(super) fn check_own(&self, own: &Counters, other: &str) {
        let acknowledged = self.acknowledged.iter().filter(|own| !own.starts_with(other));
        let lost: Vec<_> = acknowledged.filter(|acknowledged| own.get(acknowledged) == Ok(None)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(own.values().all(|value| value == Ok(1)), "counted more than once");
    }
}

impl Stored {
    /// Reads a file, past countem. Also checks that both stored periods have the same.
    pub(super) fn of(file: &CounterFile) -> Self {
        let mut by_bucket = BTreeMap::<String, Counters>::new();
        for ((_, bucket), counters) in file.rows() {
            by_bucket.entry(bucket).or_default().extend(counters);
        }
        let all = by_bucket.remove("all").unwrap_or_default();
        let days: Vec<_> = by_bucket.into_iter().collect();
        assert!(days.len() <= 1, "counted on more than one day: {days:?}");
        let day = days.into_iter().next().map(|(_, counters)| counters).unwrap_or_default();
        assert_eq!(day, all, "an increment was stored in one of its periods alone");
        Self::from(day)
    }
}

impl From<Counters> for Stored {
    fn from(mut own: Counters) -> Self {
        let shared = own.remove("shared").map_or(0, Result::unwrap);
        Self { own, shared }
    }
}

/// A store that processes share with their test, and a folder for their journals.
pub(super) trait Scene {
    fn uri(&self) -> String;
    fn folder(&self) -> &Path;
    fn stored(&self) -> Stored;

    /// Lets a last process deliver what a journal has.
    fn deliver(&self, journal: &Path) {
        deliver(&last_on(&self.uri(), journal));
    }
}

impl Scene for CounterFile {
    fn uri(&self) -> String {
        self.uri()
    }

    fn folder(&self) -> &Path {
        self.folder()
    }

    fn stored(&self) -> Stored {
        Stored::of(self)
    }
}

/// Lets a last process deliver what the journal has.
#[track_caller]
pub(super) fn deliver(collector: &Collector) {
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    assert_eq!(collector.stats().quarantined, 0);
}

/// Begins a collector that goes on where killed processes ended.
pub(super) fn last(file: &CounterFile, journal: &Path) -> Collector {
    last_on(&file.uri(), journal)
}

pub(super) fn last_on(uri: &str, journal: &Path) -> Collector {
    let builder = Collector::builder().store(uri).flush_interval(Duration::from_secs(3600)).journal(journal);
    // As the nodes, whichever comes first.
    let builder = builder.periods([Period::Day, Period::All]);
    builder.shutdown_deadline(Duration::from_secs(60)).start_blocking().unwrap()
}
