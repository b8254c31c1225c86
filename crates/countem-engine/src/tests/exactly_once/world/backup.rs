//! Copies of a journal's folder: backups, restored ones, and copies that are started.

use super::*;

impl World {
    pub(super) fn image(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = files(self.dir.path()).into_iter();
        files.map(|file| (file.clone(), fs::read(file).unwrap())).collect()
    }

    /// Copies the journal once everything accepted is in it.
    pub(super) fn back_up(&mut self) {
        self.tick();
        let is_durable = |counts: &BTreeMap<Key, i64>| counts.values().all(|n| *n == 0);
        if self.not_durable.iter().all(is_durable) && self.not_saved.iter().all(Option::is_none) {
            self.backup = Some(Backup { files: self.image(), expected: self.expected.clone() });
            self.since.clear();
        }
    }

    /// Ends the process and puts the copy in place of the journal: the file stays the same one.
    pub(super) fn restore(&mut self) {
        let Some(backup) = self.backup.take() else { return };
        self.process = None;
        let others = files(self.dir.path()).into_iter().chain(index(self.dir.path()));
        others.for_each(|file| {
            if file.extension().is_none_or(|extension| extension != "db") {
                fs::remove_file(file).unwrap();
            }
        });
        backup.files.into_iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
        self.expected = backup.expected;
        self.free.extend(std::mem::take(&mut self.since));
        (self.not_durable, self.not_saved) = Default::default();
        self.restart();
    }

    /// Starts a process on the copy, beside the one that goes on, which may have a batch under way only if the copy has it, too.
    pub(super) fn start_copy(&mut self) {
        let lanes = &self.process().lanes;
        if lanes.iter().any(|lane| lane.lock().in_flight().is_some() || lane.lock().is_urgent()) {
            return;
        }
        let Some(backup) = &self.backup else { return };
        let copy = tempfile::tempdir_in(self.dir.path().parent().unwrap()).unwrap();
        for (file, bytes) in &backup.files {
            fs::write(copy.path().join(file.file_name().unwrap()), bytes).unwrap();
        }
        fail_points::arm(copy.path(), "born=return(error)");
        let config =
            JournalConfig { lanes: u16::try_from(LANES).unwrap(), ..JournalConfig::new(copy.path()) };
        let (journal, mut recovered) = Journal::open(config).unwrap();
        let mut batches = std::mem::take(&mut recovered.frozen);
        if self.server.register(&journal.writer()) {
            batches.extend(recovered.take_pending());
        }
        for batch in &batches {
            self.server.apply(batch, None);
        }
        self.server.replicate();
        fail_points::disarm(copy.path());
    }
}

/// Lists the files of a journal, but for the index of its log.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| !is_index(file)).collect();
    // The witness before the log before the file: should the journal be writing just now, then nothing is missing that
    // something else bears witness to.
    files.sort_unstable_by(|one, other| other.cmp(one));
    files
}

pub(super) fn index(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(|file| is_index(file))
}

pub(super) fn is_index(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "db-shm")
}
