//! A node with its journal, the network and the store, and what the node has promised.

mod backup;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use countem_core::{Batch, BatchId, Deltas, Table, Writer};
use countem_journal::{Journal, JournalConfig, Recovered, fail_points};
use countem_store::Applied;
use proptest::{prelude::*, sample::Index};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    Event, Mutation,
    server::{Key, Server},
};
use crate::{
    Calendar, Clock, EngineConfig, ManualClock, Refusal,
    collect::Intake,
    deliver::{Lane, Lanes, Recorder, Upstream},
    engine::counting,
    lane_of,
    tests::quiet,
};

pub(super) const LANES: usize = 2;
pub(super) const METRICS: usize = 6;

/// Rounds in which everything has to be delivered once nothing goes wrong any more. Each delivers a batch of every lane.
const ROUNDS: usize = 500;

/// See the module.
pub(super) struct World {
    mutation: Option<Mutation>,
    dir: TempDir,
    /// Polls futures of the recorder, which wait for the journal's own thread.
    runtime: Runtime,
    /// `None` while there is no process.
    process: Option<Process>,
    server: Server,
    /// Requests under way, as bytes: they outlive the process that sent them.
    requests: Vec<Vec<u8>>,
    /// Batches that the store has written and whose replies are under way.
    replies: Vec<Batch>,
    expected: BTreeMap<Key, i64>,
    /// All amounts that were ever accepted.
    accepted: BTreeMap<Key, Vec<i64>>,
    /// Counters of which some amounts may or may not be stored: they are in quarantine, or an older journal does not know them.
    free: BTreeSet<Key>,
    backup: Option<Backup>,
    /// Counters that were counted since the backup.
    since: BTreeSet<Key>,
    batch_counters: usize,
    /// The part of it that is not durable yet, by lane: a crash may take this and nothing else.
    not_durable: [BTreeMap<Key, i64>; LANES],
    /// The part of it in frozen batches that the journal does not have yet.
    not_saved: [Option<BTreeMap<Key, i64>>; LANES],
    broken: Broken,
}

/// The part of an engine that does not wait.
struct Process {
    intake: Arc<Intake>,
    lanes: Arc<Lanes>,
    recorder: Recorder,
}

/// A copy of a journal, and what had been accepted when it was made.
struct Backup {
    files: Vec<(PathBuf, Vec<u8>)>,
    expected: BTreeMap<Key, i64>,
}

/// State of the mutations.
#[derive(Default)]
struct Broken {
    first_writer: Option<Writer>,
    /// The batches of each lane that were frozen last.
    frozen: [Vec<Vec<u8>>; LANES],
    /// Deltas counted since the batch in flight was sent first.
    thawed: [Table; LANES],
}

/// The collection that a lane serves.
fn collection(lane: usize) -> String {
    let mut names = (0..).map(|number| format!("collection-{number}"));
    let lanes = LANES.try_into().expect("there are a few lanes");
    names.find(|name| usize::from(lane_of(name, lanes)) == lane).expect("every lane serves some collection")
}

impl World {
    pub(super) fn begin(mutation: Option<Mutation>, batch_counters: usize) -> Self {
        // In memory where that can be had: no power fails here, and waiting for a disk teaches nothing.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut world = Self {
            mutation,
            dir: dir.unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            process: None,
            server: Server::default(),
            requests: Vec::new(),
            replies: Vec::new(),
            expected: BTreeMap::new(),
            accepted: BTreeMap::new(),
            free: BTreeSet::new(),
            backup: None,
            since: BTreeSet::new(),
            batch_counters,
            not_durable: Default::default(),
            not_saved: Default::default(),
            broken: Broken::default(),
        };
        world.start();
        world
    }

    fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Starts a process on the journal.
    fn start(&mut self) {
        let config = JournalConfig {
            lanes: u16::try_from(LANES).unwrap(),
            // By its stored batches the journal itself would notice some of the broken rules.
            resolved_retention: Duration::from_secs(if self.mutation.is_some() { 0 } else { 3600 }),
            ..JournalConfig::new(self.dir.path())
        };
        let (journal, mut recovered) = Journal::open(config).unwrap();
        if !self.server.register(&journal.writer()) && !self.breaks(Mutation::IgnoreRegister) {
            journal.quarantine_pending_blocking("found in a copy").unwrap();
            journal.fresh_identity_blocking().unwrap();
            self.server.register(&journal.writer());
            let quarantined = std::mem::take(&mut recovered.pending);
            let deltas = quarantined.iter().flat_map(|(_, deltas)| deltas.iter());
            self.free.extend(deltas.map(|delta| (delta.collection.to_owned(), delta.metric.to_owned())));
        }
        let mut writer = journal.writer();
        if self.breaks(Mutation::AdoptAnew) {
            for (lane, next) in &mut recovered.next {
                *next = BatchId { writer: Writer::new(rand::random(), 1), lane: *lane, seq: 1 };
            }
        }
        if self.breaks(Mutation::ReuseSeq) {
            writer = self.broken.first_writer.get_or_insert(writer).clone();
        }
        if self.breaks(Mutation::FreezeAnew) {
            freeze_anew(&mut recovered);
        }
        self.broken.frozen = Default::default();
        for batch in &recovered.frozen {
            self.broken.frozen[usize::from(batch.id().lane)].push(batch.encode());
        }
        let config = EngineConfig { lanes: recovered.lanes, batch_counters: self.batch_counters, ..quiet() };
        let clock = Clock::Manual(ManualClock::new("2026-11-20T12:00:00Z".parse().unwrap()));
        let calendar = Calendar::new(Arc::new(config.schedule.schedules().unwrap()), clock.now());
        let (intake, lanes) = counting(&config, Arc::new(calendar), clock, &writer);
        lanes.restore(recovered);
        for (lane, not_saved) in lanes.iter().zip(&mut self.not_saved) {
            // What was pending is a batch now; the journal still has it as pending.
            *not_saved = (!lane.lock().freeze().is_empty()).then(BTreeMap::new);
        }
        let recorder = Recorder::new(journal, Arc::clone(&lanes));
        self.process = Some(Process { intake, lanes, recorder });
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("there is a process between events")
    }

    fn lane(&self, index: usize) -> &Lane {
        self.process().lanes.get(index)
    }

    fn recorder(&self) -> &Recorder {
        &self.process().recorder
    }

    pub(super) fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Count { lane, metric, n } => self.count(*lane, *metric, *n),
            Event::Tick => self.tick(),
            Event::Freeze { lane } => self.freeze(*lane)?,
            Event::Send { lane } => self.send(*lane)?,
            Event::Apply { at, part } => {
                if let Some(request) = take(&mut self.requests, at) {
                    self.apply(&request, *part);
                }
            }
            Event::Reply { at } => {
                if let Some(batch) = take(&mut self.replies, at) {
                    let (_, by_majority) = self.server.has(&batch);
                    match by_majority {
                        true => self.resolve(&batch)?,
                        // It is not sent before a majority has the batch.
                        false => self.replies.push(batch),
                    }
                }
            }
            Event::LoseRequest { at } => drop(take(&mut self.requests, at)),
            Event::LoseReply { at } => {
                if let Some(batch) = take(&mut self.replies, at)
                    && self.breaks(Mutation::SkipProbe)
                {
                    self.resolve(&batch)?;
                }
            }
            Event::Duplicate { at } => {
                if let Some(request) = (!self.requests.is_empty()).then(|| at.get(&self.requests).clone()) {
                    self.requests.push(request);
                }
            }
            Event::Replicate => self.server.replicate(),
            Event::FailOver => self.server.fail_over(),
            Event::Probe { lane } => self.probe(*lane)?,
            Event::Crash => self.crash(),
            Event::Shutdown => {
                self.tick();
                self.note_sent();
                self.recorder().close();
                self.restart();
            }
            Event::FailDisk { place } => fail_points::arm(self.dir.path(), place),
            Event::FillDisk => {
                fail_points::arm(self.dir.path(), "record.before=return(full);freeze.before=return(full)");
            }
            Event::Backup => self.back_up(),
            Event::Restore => self.restore(),
            Event::StartCopy => self.start_copy(),
        }
        Ok(())
    }

    fn count(&mut self, lane: usize, metric: usize, n: i64) {
        let (collection, metric) = (collection(lane), format!("metric-{metric}"));
        let in_flight = self.lane(lane).lock().in_flight();
        if self.breaks(Mutation::ThawBatch) && in_flight.is_some() {
            let bucket = "2026-11-20".parse().unwrap();
            self.broken.thawed[lane].fold(&collection, &metric, bucket, n).unwrap();
        } else if let Err(refusal) = self.process().intake.increment(&collection, &metric, n) {
            assert_eq!(refusal, Refusal::JournalFull);
            return;
        }
        let key = (collection, metric);
        self.accepted.entry(key.clone()).or_default().push(n);
        self.since.insert(key.clone());
        *self.expected.entry(key.clone()).or_default() += n;
        *self.not_durable[lane].entry(key).or_default() += n;
    }

    fn tick(&mut self) {
        for lane in 0..LANES {
            let thawed = self.broken.thawed[lane].drain();
            self.count_again(lane, &thawed);
        }
        let all_is_durable = self.runtime.block_on(self.recorder().round(&*self.process().intake));
        for lane in 0..LANES {
            if all_is_durable {
                // That is what those are told who wait for an acknowledgement.
                (self.not_saved[lane], self.not_durable[lane]) = Default::default();
            } else if self.is_saved(lane) && self.lane(lane).lock().fresh_increments() == 0 {
                self.not_durable[lane].clear();
            }
        }
    }

    /// Tells whether the journal has every frozen batch of a lane.
    fn is_saved(&mut self, lane: usize) -> bool {
        // While there is such a batch nothing else is frozen, so asking changes nothing.
        let is_stale = self.lane(lane).lock().is_stale();
        if self.not_saved[lane].is_some() && !is_stale && self.lane(lane).lock().freeze().is_empty() {
            self.not_saved[lane] = None;
        }
        self.not_saved[lane].is_none()
    }

    /// Counts what was not thawed into a batch in the ordinary way.
    fn count_again(&self, lane: usize, deltas: &Deltas) {
        deltas.iter().for_each(|delta| self.lane(lane).lock().merge(delta));
    }

    fn freeze(&mut self, lane: usize) -> Result<(), TestCaseError> {
        let writer = self.recorder().writer().expect("the journal is open");
        let is_ours = self.breaks(Mutation::ReuseSeq)
            || self.breaks(Mutation::IgnoreRegister)
            || self.server.register(&writer);
        if !is_ours {
            // Another process has taken over the journal, so this one sends nothing until it has been started again.
            self.tick();
            self.note_sent();
            self.recorder().close();
            self.restart();
        }
        self.process().intake.drain_all();
        if self.is_saved(lane) {
            let frozen = self.lane(lane).lock().freeze();
            if frozen.is_empty() {
                return Ok(());
            }
            self.broken.frozen[lane] = frozen.iter().map(|batch| batch.encode()).collect();
            self.not_saved[lane] = Some(std::mem::take(&mut self.not_durable[lane]));
            if self.breaks(Mutation::SendBeforeFrozen) {
                self.requests.push(self.broken.frozen[lane][0].clone());
                return Ok(());
            }
        }
        self.save(lane)
    }

    /// Makes frozen batches durable, unless the disk fails.
    fn save(&mut self, lane: usize) -> Result<(), TestCaseError> {
        let saved = self.runtime.block_on(self.recorder().freeze(lane));
        match saved {
            Ok(()) => self.not_saved[lane] = None,
            Err(error) if error.to_string().contains("identity") => {
                return Err(TestCaseError::fail(format!("the journal refuses: {error}")));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Does what the storage actor does, but for waiting.
    fn send(&mut self, lane: usize) -> Result<(), TestCaseError> {
        if !self.is_saved(lane) {
            self.save(lane)?;
        }
        if !self.is_saved(lane) {
            // The store is healthy, so it takes what the journal cannot.
            self.runtime.block_on(self.recorder().freeze_or_give_up(lane)).ok();
            // The disk may have room again by now.
            self.is_saved(lane);
        }
        let was_sent = self.lane(lane).lock().in_flight().is_some();
        let Some(batch) = self.lane(lane).lock().advance() else { return Ok(()) };
        match self.mutation {
            Some(Mutation::IgnoreLaneOrder) => {
                let later = self.broken.frozen[lane].iter().rev();
                let later: Vec<_> =
                    later.filter(|bytes| decode(bytes).id().seq > batch.id().seq).cloned().collect();
                self.requests.extend(later);
            }
            Some(Mutation::ForgetBeforeResolved) => self.forget(batch.id()),
            Some(Mutation::ThawBatch) if was_sent => {
                let mut content = self.broken.thawed[lane].drain();
                let mut table = Table::new();
                batch.deltas().chain(content.iter()).for_each(|delta| table.merge(delta).unwrap());
                content = table.drain();
                self.requests.push(Batch::new(batch.id().clone(), content).encode());
                return Ok(());
            }
            _ => {}
        }
        self.requests.push(batch.encode());
        Ok(())
    }

    fn apply(&mut self, request: &[u8], part: Option<usize>) {
        let batch = decode(request);
        if self.server.apply(&batch, part) {
            self.replies.push(batch);
        }
    }

    fn probe(&mut self, lane: usize) -> Result<(), TestCaseError> {
        let Some(batch) = self.lane(lane).lock().in_flight() else { return Ok(()) };
        let (by_primary, by_majority) = self.server.has(&batch);
        let applied = if self.breaks(Mutation::ProbeWithoutMajority) { by_primary } else { by_majority };
        if applied { self.resolve(&batch) } else { Ok(()) }
    }

    /// Notes that the store has a batch, if the node still wants to know.
    fn resolve(&mut self, batch: &Batch) -> Result<(), TestCaseError> {
        let lane = usize::from(batch.id().lane);
        let in_flight = self.lane(lane).lock().in_flight();
        if in_flight.is_some_and(|in_flight| in_flight.id() == batch.id()) {
            if self.lane(lane).lock().is_stale() {
                self.not_saved[lane] = None;
            } else {
                self.forget(batch.id());
            }
            self.lane(lane).lock().resolve(Applied::default());
        }
        let thawed = self.broken.thawed[lane].drain();
        self.count_again(lane, &thawed);
        Ok(())
    }

    fn forget(&self, id: &BatchId) {
        self.runtime.block_on(self.recorder().resolve(id, &[])).unwrap();
    }

    /// Ends the process as kill -9 does: the files are as they were, and what the journal still meant to write is not
    /// there. The files themselves stay the same ones, so that they are not taken for copies.
    fn crash(&mut self) {
        self.note_sent();
        let files = backup::files(self.dir.path());
        let image: Vec<_> = files.iter().map(|file| (file, fs::read(file).unwrap())).collect();
        self.process = None;
        // An index of the log belongs to the dead process.
        let others = backup::files(self.dir.path()).into_iter().chain(backup::index(self.dir.path()));
        others.filter(|file| !files.contains(file)).for_each(|file| fs::remove_file(file).unwrap());
        image.into_iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
        self.restart();
    }

    /// Notes what was sent without the journal: it may still arrive when the process is gone.
    fn note_sent(&mut self) {
        let process = self.process.as_ref().expect("there is a process between events");
        for (lane, not_saved) in process.lanes.iter().zip(&self.not_saved) {
            let sent = not_saved.iter().filter(|_| lane.lock().is_stale()).flat_map(BTreeMap::keys);
            self.free.extend(sent.cloned());
        }
    }

    /// Starts another process after one that is gone, with everything that was not durable.
    fn restart(&mut self) {
        let not_saved = self.not_saved.iter_mut().filter_map(Option::take);
        for lost in self.not_durable.iter_mut().map(std::mem::take).chain(not_saved) {
            for (key, n) in lost {
                *self.expected.get_mut(&key).expect("it was accepted") -= n;
            }
        }
        self.replies.clear();
        self.broken.thawed.iter_mut().for_each(Table::clear);
        fail_points::disarm(self.dir.path());
        self.process = None;
        self.start();
    }

    /// Lets everything be delivered: nothing goes wrong any more. Old copies of requests arrive last.
    pub(super) fn deliver_everything(&mut self) -> Result<(), TestCaseError> {
        fail_points::disarm(self.dir.path());
        let late = std::mem::take(&mut self.requests);
        for _ in 0..ROUNDS {
            for lane in 0..LANES {
                self.freeze(lane)?;
                self.send(lane)?;
            }
            for request in std::mem::take(&mut self.requests) {
                self.apply(&request, None);
            }
            self.server.replicate();
            for lane in 0..LANES {
                self.probe(lane)?;
            }
            if self.process().lanes.iter().all(|lane| lane.lock().is_empty()) {
                late.iter().for_each(|request| self.apply(request, None));
                return Ok(());
            }
        }
        Err(TestCaseError::fail("not everything was ever delivered"))
    }

    /// Checks that everything is stored once; of a free counter, each amount once or not at all.
    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let stored = self.server.counters();
        let is_certain = |key: &Key| !self.free.contains(key);
        let exact = |counters: &BTreeMap<Key, i64>| -> BTreeMap<Key, i64> {
            let exact = counters.iter().filter(|(key, n)| is_certain(key) && **n != 0);
            exact.map(|(key, n)| (key.clone(), *n)).collect()
        };
        prop_assert_eq!(exact(&stored), exact(&self.expected));
        for key in &self.free {
            let mut sums = BTreeSet::from([0]);
            for n in &self.accepted[key] {
                let with: Vec<_> = sums.iter().map(|sum| sum + n).collect();
                sums.extend(with);
            }
            let n = stored.get(key).copied().unwrap_or_default();
            prop_assert!(sums.contains(&n), "{key:?}: {n} is stored, of {:?}", self.accepted[key]);
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Batch {
    Batch::decode(bytes).expect("a batch reads back what it wrote")
}

fn take<T>(from: &mut Vec<T>, at: &Index) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(at.index(from.len())))
}

/// Gives recovered batches fresh identities.
fn freeze_anew(recovered: &mut Recovered) {
    for (at, batch) in (1..).zip(recovered.frozen.iter_mut()) {
        let id = BatchId { writer: Writer::new(rand::random(), at), lane: batch.id().lane, seq: 1 };
        *batch = Batch::new(id, decode(&batch.encode()).into_deltas());
    }
}
