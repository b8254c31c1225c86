//! A process that counts with a journal: the test itself.

use std::{path::PathBuf, time::Duration};

use countem::Collector;
use countem_core::{Batch, BatchId, Table};
use countem_journal::{Journal, JournalConfig, JournalReader};
use serde_json::Value;

use crate::harness::Sandbox;

/// The store of the sandbox, and a journal beside it.
pub(crate) const JOURNAL: &str = "countem-journal";

impl Sandbox {
    /// Starts to count with the journal of the sandbox.
    pub(crate) fn collector(&self) -> Collector {
        let store = format!("sqlite://{}", self.path("countem.db").display());
        let builder = Collector::builder().store(store).journal(self.path(JOURNAL));
        let starting = builder.shutdown_deadline(Duration::from_millis(200)).start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(starting).unwrap()
    }

    /// Counts with a journal, one batch after the other, and ends.
    pub(crate) fn count(&self, batches: &[&[(&str, i64)]]) {
        let collector = self.collector();
        for batch in batches {
            for (metric, n) in *batch {
                collector.try_increment("c", metric, *n).unwrap();
            }
            collector.blocking().flush().unwrap();
        }
        assert!(collector.blocking().shutdown().is_balanced());
    }

    /// Leaves a batch in the journal that was never sent, as a killed process does.
    pub(crate) fn freeze(&self, metric: &str, n: i64) {
        let (journal, _recovered) = Journal::open(JournalConfig::new(self.path(JOURNAL))).unwrap();
        let mut table = Table::new();
        table.fold("c", metric, "2026-11-20".parse().unwrap(), n).unwrap();
        let batch = Batch::new(BatchId { writer: journal.writer(), lane: 0, seq: 1 }, table.drain());
        journal.freeze_blocking(0, &[batch]).unwrap();
    }

    /// Opens the journal as it is.
    pub(crate) fn journal(&self) -> JournalReader {
        JournalReader::open(&self.path(JOURNAL)).unwrap()
    }

    /// Returns what is quarantined: metric and amount.
    pub(crate) fn quarantined(&self) -> Vec<(String, i64)> {
        let listed = self.run(&["quarantine", "list", "-o", "json"]).expect(0).json();
        let entries = listed["quarantined"].as_array().unwrap().iter();
        entries
            .map(|entry| (entry["metric"].as_str().unwrap().to_owned(), entry["n"].as_i64().unwrap()))
            .collect()
    }

    /// Returns one counter, summed over all days.
    pub(crate) fn value(&self, metric: &str) -> Option<i64> {
        let ran = self.run(&["get", "c", "--bucket", "all", "-o", "json"]);
        if ran.code == 3 { None } else { ran.expect(0).json()["counters"][metric].as_i64() }
    }

    /// Copies the closed store, or restores a copy.
    pub(crate) fn copy_store(&self, from: &str, to: &str) {
        let file = |name: &str, suffix: &str| -> PathBuf { self.path(&format!("{name}{suffix}")) };
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(file(to, suffix)).ok();
            if file(from, suffix).exists() {
                std::fs::copy(file(from, suffix), file(to, suffix)).unwrap();
            }
        }
    }

    /// Locks the store for writing, as another process would, until the connection is dropped.
    pub(crate) fn lock_store(&self) -> rusqlite::Connection {
        let other = rusqlite::Connection::open(self.path("countem.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }
}

/// Returns a number of a report.
#[track_caller]
pub(crate) fn number(report: &Value, key: &str) -> i64 {
    report[key].as_i64().unwrap_or_else(|| panic!("no `{key}` in {report}"))
}
