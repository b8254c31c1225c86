//! Random actions on a journal and on a plain model of it, with crashes, failures, restored backups and copies in between.

use std::{collections::BTreeMap, path::PathBuf};

use countem_core::{Batch, BatchId, Delta, Table, Writer};
use countem_journal::{
    Journal, Origin, Quarantined, Record, Recovered, Selection,
    fail_points::{arm, disarm},
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::*;

#[derive(Debug, Clone)]
enum Action {
    Record {
        lane: u16,
        metrics: Vec<(u8, i64)>,
    },
    Freeze {
        lane: u16,
        parts: usize,
    },
    Resolve {
        nth: usize,
        quarantines: bool,
    },
    RetryAll,
    DropFirst,
    Fail(&'static str),
    Crash,
    Reopen,
    /// Copy the files, as a backup does while nothing is written.
    BackUp,
    /// Put the files of the backup in place of the present ones.
    Restore,
    /// Open a copy beside this journal.
    Copy,
}

fn action() -> impl Strategy<Value = Action> {
    let requests = ["record", "freeze", "resolve", "other"];
    let points = ["before=1*return(error)", "after=1*return(error)", "before=1*return(full)"];
    let fails: Vec<&'static str> = requests
        .iter()
        .flat_map(|request| points.iter().map(move |point| &*format!("{request}.{point}").leak()))
        .collect();
    prop_oneof![
        8 => (0..2_u16, prop::collection::vec((0..12_u8, -5..6_i64), 0..8))
            .prop_map(|(lane, metrics)| Action::Record { lane, metrics }),
        4 => (0..2_u16, 1..3_usize).prop_map(|(lane, parts)| Action::Freeze { lane, parts }),
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(nth, quarantines)| Action::Resolve { nth, quarantines }),
        1 => Just(Action::RetryAll),
        1 => Just(Action::DropFirst),
        2 => prop::sample::select(fails).prop_map(Action::Fail),
        2 => Just(Action::Crash),
        1 => Just(Action::Reopen),
        1 => Just(Action::BackUp),
        1 => Just(Action::Restore),
        1 => Just(Action::Copy),
    ]
}

/// Content that the journal has to hold.
#[derive(Debug, Default)]
struct Model {
    pending: BTreeMap<u16, Table>,
    frozen: BTreeMap<BatchId, Vec<u8>>,
    quarantined: Vec<(i64, u64)>,
}

impl Clone for Model {
    fn clone(&self) -> Self {
        let pending = self.pending.iter().map(|(lane, table)| (*lane, copy(table))).collect();
        Self { pending, frozen: self.frozen.clone(), quarantined: self.quarantined.clone() }
    }
}

fn copy(table: &Table) -> Table {
    let mut copy = Table::new();
    table.iter().for_each(|delta| copy.merge(delta).unwrap());
    copy
}

struct Rig {
    root: TempDir,
    dirs: usize,
    journal: Option<Journal>,
    model: Model,
    backup: Option<(PathBuf, Model)>,
    /// Numbers of the present writer, and all writers that there ever were.
    seqs: BTreeMap<u16, u64>,
    writers: Vec<Writer>,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut rig = Self {
            root,
            dirs: 0,
            journal: None,
            model: Model::default(),
            backup: None,
            seqs: BTreeMap::new(),
            writers: Vec::new(),
        };
        rig.open();
        rig
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.dirs.to_string())
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn open(&mut self) {
        let (journal, recovered) = Journal::open(as_original(&self.dir())).unwrap();
        self.enter_writer(&journal);
        self.seqs.clear();
        self.journal = Some(journal);
        self.compare(&recovered);
    }

    fn enter_writer(&mut self, journal: &Journal) {
        assert!(!self.writers.contains(&journal.writer()), "an identity was used twice");
        self.writers.push(journal.writer());
    }

    fn compare(&self, recovered: &Recovered) {
        for lane in 0..2 {
            let (mut expected, mut found) = (Counts::new(), Counts::new());
            self.model.pending.get(&lane).into_iter().for_each(|table| add(&mut expected, table.iter()));
            let of_lane = recovered.pending.iter().filter(|(of, _)| *of == lane);
            of_lane.for_each(|(_, deltas)| add(&mut found, deltas.iter()));
            let touched =
                |counts: Counts| -> Counts { counts.into_iter().filter(|(_, sum)| *sum != (0, 0)).collect() };
            assert_eq!(touched(found), touched(expected));
        }
        let frozen = recovered.frozen.iter().map(|batch| (batch.id().clone(), batch.encode())).collect();
        assert_eq!(self.model.frozen, frozen);
        let quarantined: Vec<_> = recovered
            .quarantined
            .iter()
            .map(|entry| (entry.quarantined.n, entry.quarantined.increments))
            .collect();
        assert_eq!(self.model.quarantined, quarantined);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Record { lane, metrics } => self.record(lane, &metrics),
            Action::Freeze { lane, parts } => self.freeze(lane, parts),
            Action::Resolve { nth, quarantines } => self.resolve(nth, quarantines),
            Action::RetryAll => self.retry_all(),
            Action::DropFirst => {
                let entries = self.journal().reader().unwrap().quarantined().unwrap();
                let Some(first) = entries.first() else { return };
                if self.journal().drop_quarantined_blocking(Selection::Ids(vec![first.id])).is_ok() {
                    self.model.quarantined.remove(0);
                }
            }
            Action::Fail(point) => arm(&self.dir(), point),
            Action::Crash => {
                let before = self.dir();
                self.dirs += 1;
                crash_copy(&before, &self.dir());
                self.open();
            }
            Action::Reopen => {
                disarm(&self.dir());
                self.journal = None;
                self.open();
            }
            Action::BackUp => {
                let to = self.root.path().join("backup");
                std::fs::remove_dir_all(&to).ok();
                crash_copy(&self.dir(), &to);
                self.backup = Some((to, self.model.clone()));
            }
            Action::Restore => {
                let Some((from, model)) = self.backup.clone() else { return };
                disarm(&self.dir());
                self.journal = None;
                std::fs::remove_dir_all(self.dir()).unwrap();
                crash_copy(&from, &self.dir());
                self.model = model;
                self.open();
            }
            Action::Copy => self.open_copy(),
        }
    }

    /// The copy sends what is frozen under the same identities, and leaves what is pending to its original.
    fn open_copy(&mut self) {
        let to = self.root.path().join("copy");
        std::fs::remove_dir_all(&to).ok();
        crash_copy(&self.dir(), &to);
        let (journal, recovered) = Journal::open(config(&to)).unwrap();
        self.enter_writer(&journal);
        assert_eq!(recovered.origin, Origin::Copied, "this file system remembers when files were created");
        assert!(recovered.pending.is_empty());
        assert_eq!(recovered.quarantined.len(), self.model.quarantined.len() + recovered.quarantined_now);
        let frozen = recovered.frozen.iter().map(|batch| (batch.id().clone(), batch.encode())).collect();
        assert_eq!(self.model.frozen, frozen);
    }

    fn record(&mut self, lane: u16, metrics: &[(u8, i64)]) {
        let mut fresh = Table::new();
        for (metric, n) in metrics {
            fresh.fold("web", &format!("metric-{metric}"), day(), *n).unwrap();
        }
        let quarantined = if metrics.len() == 7 { vec![bad(7, 7)] } else { Vec::new() };
        let accepted = Record { lanes: vec![(lane, fresh.drain())], quarantined, ..Record::default() };
        let mut counts = Table::new();
        accepted.lanes[0].1.iter().for_each(|delta| counts.merge(delta).unwrap());
        match self.journal().record_blocking(accepted) {
            Ok(_) => {
                self.merge(lane, &counts);
                if metrics.len() == 7 {
                    self.model.quarantined.push((7, 7));
                }
            }
            Err(refused) => assert_eq!(refused.record.lanes[0].1.len(), counts.len()),
        }
    }

    fn merge(&mut self, lane: u16, counts: &Table) {
        let pending = self.model.pending.entry(lane).or_default();
        counts.iter().for_each(|delta| pending.merge(delta).unwrap());
    }

    fn freeze(&mut self, lane: u16, parts: usize) {
        let writer = self.journal().writer();
        let mut pending = self.model.pending.remove(&lane).unwrap_or_default();
        let before = copy(&pending);
        let size = pending.len().div_ceil(parts).max(1);
        let mut batches = Vec::new();
        let mut seq = self.seqs.get(&lane).copied().unwrap_or_default();
        while !pending.is_empty() {
            seq += 1;
            let id = BatchId { writer: writer.clone(), lane, seq };
            batches.push(Batch::new(id, pending.take(size)));
        }
        if self.journal().freeze_blocking(lane, &batches).is_ok() {
            self.seqs.insert(lane, seq);
            let frozen = batches.iter().map(|batch| (batch.id().clone(), batch.encode()));
            self.model.frozen.extend(frozen);
        } else {
            self.model.pending.insert(lane, before);
        }
    }

    fn resolve(&mut self, nth: usize, quarantines: bool) {
        let Some(id) = self.model.frozen.keys().nth(nth % self.model.frozen.len().max(1)).cloned() else {
            return;
        };
        let quarantined = if quarantines { vec![bad(1, 2)] } else { Vec::new() };
        // The resolution is repeated until it succeeds; `sync` may fail along with it.
        self.journal().resolve(&id, quarantined, drop);
        while self.journal().sync_blocking().is_err() {}
        self.model.frozen.remove(&id);
        if quarantines {
            self.model.quarantined.push((1, 2));
        }
    }

    fn retry_all(&mut self) {
        let Ok(retried) = self.journal().retry_quarantined_blocking(Selection::All, |_| 1) else { return };
        assert_eq!(retried.len(), self.model.quarantined.len());
        self.model.quarantined.clear();
        for one in retried {
            let mut counts = Table::new();
            counts.merge(one.entry.quarantined.delta()).unwrap();
            self.merge(one.lane, &counts);
        }
    }
}

fn bad(n: i64, increments: u64) -> Quarantined {
    let delta = Delta { collection: "web", metric: "bad", bucket: day(), n, increments };
    Quarantined::new(delta, "injected")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn journal_matches_plain_model_through_crashes_and_failures(actions in prop::collection::vec(action(), 1..40)) {
        let mut rig = Rig::new();
        for action in actions {
            rig.act(action);
        }
        rig.act(Action::Reopen);
        rig.journal().reader().unwrap().verify().unwrap();
    }
}
