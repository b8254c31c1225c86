//! A damaged journal: never a wrong count, never silently empty, never lost.

use std::{fs, path::Path};

use countem_journal::{ErrorKind, Journal, JournalConfig, Quarantined, Record};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::support::*;

/// Everything a journal gave back, for comparison.
#[derive(Debug, PartialEq)]
struct Content {
    pending: Vec<(u16, Counts)>,
    frozen: Vec<Vec<u8>>,
    quarantined: Vec<String>,
    node: u64,
}

fn content(config: JournalConfig) -> Result<(Content, u64), countem_journal::JournalError> {
    let (journal, recovered) = Journal::open(config)?;
    let pending = recovered.pending.iter().map(|(lane, deltas)| {
        let mut counts = Counts::new();
        add(&mut counts, deltas.iter());
        (*lane, counts)
    });
    let content = Content {
        pending: pending.collect(),
        frozen: recovered.frozen.iter().map(countem_core::Batch::encode).collect(),
        quarantined: recovered.quarantined.iter().map(|entry| format!("{entry:?}")).collect(),
        // A copy gets a new node, so its own is looked up in what it has frozen.
        node: recovered.frozen[0].id().writer.node(),
    };
    Ok((content, journal.writer().epoch()))
}

/// Fills a journal with some of everything, and copies it as a crash would leave it, with all in the log, and as a clean
/// end would.
fn fill(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (live, crashed, closed) = (dir.join("live"), dir.join("crashed"), dir.join("closed"));
    let (journal, _) = open(&live);
    let names: Vec<String> = (0..150).map(|at| format!("metric-{at:03}")).collect();
    let of = |n: i64| names.iter().map(move |name| (name.as_str(), n));
    journal.freeze_blocking(0, &[batch(&journal.writer(), 0, 1, deltas(of(3)))]).unwrap();
    let stored = batch(&journal.writer(), 0, 2, deltas(of(9)));
    let frozen = batch(&journal.writer(), 0, 3, deltas(of(-2)));
    let id = stored.id().clone();
    journal.freeze_blocking(0, &[stored, frozen]).unwrap();
    let bad = deltas([("bad", 1)]);
    let bad = bad.iter().map(|delta| Quarantined::new(delta, "a reason")).collect();
    journal.resolve_blocking(&id, bad).unwrap();
    journal.record_blocking(record(0, of(1_000))).unwrap();
    journal.record_blocking(record(1, of(77))).unwrap();
    let bad = deltas([("unbatched", 1)]).iter().map(|delta| Quarantined::new(delta, "another")).collect();
    journal.record_blocking(Record { quarantined: bad, ..record(1, of(1)) }).unwrap();
    crash_copy(&live, &crashed);
    drop(journal);
    crash_copy(&live, &closed);
    (crashed, closed)
}

/// Damages a copy of `whole` and opens it: either that is refused and nothing has changed, or everything is there.
fn try_damaged(whole: &Path, expected: &(Content, u64), damage: impl FnOnce(&Path) -> String) -> bool {
    let dir = tempfile::tempdir().unwrap();
    crash_copy(whole, dir.path());
    let what = damage(dir.path());
    let files = ["journal.db", "journal.db-wal", "journal.witness"];
    // SQLite leaves an empty log where there was none.
    let read = || files.map(|name| fs::read(dir.path().join(name)).unwrap_or_default());
    let before = read();
    match content(as_original(dir.path())) {
        Ok(found) => {
            assert_eq!(&found, expected, "{what}");
            false
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused), "{what}: {error}");
            assert!(error.to_string().contains("journal.db`"), "{what}: {error}");
            assert!(before == read(), "{what}: evidence was changed");
            true
        }
    }
}

fn rounds(few: u64) -> u64 {
    std::env::var("COUNTEM_ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

#[test]
fn flipped_bit_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, closed) = fill(dir.path());
    let seed: u64 =
        std::env::var("COUNTEM_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("COUNTEM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for (whole, name) in [(&crashed, "journal.db-wal"), (&crashed, "journal.db"), (&closed, "journal.db")] {
        let copy = tempfile::tempdir().unwrap();
        crash_copy(whole, copy.path());
        let expected = content(as_original(copy.path())).unwrap();
        let mut noticed = 0;
        for round in 0..rounds(100) {
            noticed += u64::from(try_damaged(whole, &expected, |dir| {
                let mut bytes = fs::read(dir.join(name)).unwrap();
                // Every third time in a header, whose bytes matter more.
                let end = if round % 3 == 0 { 100 } else { bytes.len() };
                let (at, bit) = (random.random_range(0..end), random.random_range(0..8));
                bytes[at] ^= 1 << bit;
                fs::write(dir.join(name), bytes).unwrap();
                format!("bit {bit} of byte {at} of `{name}`")
            }));
        }
        // The pages in the log replace nearly all of the file.
        assert!(
            noticed > 0 || (whole, name) == (&crashed, "journal.db"),
            "`{name}`: nothing was ever noticed"
        );
    }
}

#[test]
fn cut_file_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, closed) = fill(dir.path());
    let mut random = StdRng::seed_from_u64(rand::random());
    for (whole, name) in [(&crashed, "journal.db-wal"), (&crashed, "journal.db"), (&closed, "journal.db")] {
        let copy = tempfile::tempdir().unwrap();
        crash_copy(whole, copy.path());
        let expected = content(as_original(copy.path())).unwrap();
        let bytes = fs::metadata(whole.join(name)).unwrap().len();
        for round in 0..rounds(60) {
            let length = match round {
                0 => 0,
                1 => bytes - 1,
                _ => random.random_range(0..bytes),
            };
            try_damaged(whole, &expected, |dir| {
                fs::File::options().write(true).open(dir.join(name)).unwrap().set_len(length).unwrap();
                format!("`{name}` cut from {bytes} to {length} bytes")
            });
        }
    }
}

#[test]
fn every_number_is_covered_by_a_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (_, closed) = fill(dir.path());
    let unresolved = "id NOT IN (SELECT batch FROM resolved)";
    let changes = [
        "UPDATE state SET node = '00000000000000aa'",
        "UPDATE state SET epoch = epoch - 1",
        "UPDATE state SET lanes = lanes + 1",
        "UPDATE state SET born = born + 1",
        "UPDATE state SET host = host || 'x'",
        "UPDATE state SET tick = tick + 1",
        "UPDATE state SET pending = pending + 1",
        "UPDATE state SET frozen = frozen + 1",
        "UPDATE state SET quarantined = quarantined + 1",
        "UPDATE state SET digest = digest + 1",
        "DELETE FROM state",
        "UPDATE pending SET n = n + 1 WHERE lane = 0 AND metric = 'metric-017'",
        "UPDATE pending SET n = n + 1 WHERE lane = 0 AND metric = 'metric-017';
         UPDATE pending SET n = n - 1 WHERE lane = 0 AND metric = 'metric-018'",
        "UPDATE pending SET increments = increments * 2 WHERE lane = 1",
        "UPDATE pending SET lane = 7 WHERE lane = 1",
        "UPDATE pending SET bucket = '2026-11-21' WHERE metric = 'metric-001'",
        "UPDATE pending SET metric = 'metric-x' WHERE metric = 'metric-001'",
        "UPDATE pending SET collection = 'web2' WHERE metric = 'metric-001'",
        "DELETE FROM pending WHERE metric = 'metric-149'",
        "DELETE FROM pending",
        "INSERT INTO pending VALUES (0, 'web', '2026-11-20', 'new', 1, 1)",
        &format!("UPDATE batch SET seq = seq + 10 WHERE {unresolved}"),
        &format!("UPDATE batch SET epoch = 0 WHERE {unresolved}"),
        &format!("UPDATE batch SET lane = 1 WHERE {unresolved}"),
        &format!("UPDATE batch SET node = '00000000000000aa' WHERE {unresolved}"),
        &format!("UPDATE batch SET increments = 0 WHERE {unresolved}"),
        &format!("UPDATE batch SET counters = 0 WHERE {unresolved}"),
        &format!("UPDATE batch SET digest = 0 WHERE {unresolved}"),
        &format!("UPDATE batch SET body = substr(body, 1, 200) WHERE {unresolved}"),
        &format!("DELETE FROM batch WHERE id = (SELECT min(id) FROM batch WHERE {unresolved})"),
        &format!("INSERT INTO resolved SELECT id, 0 FROM batch WHERE {unresolved} LIMIT 1"),
        "DELETE FROM resolved",
        "UPDATE quarantined SET n = n + 1 WHERE metric = 'bad'",
        "UPDATE quarantined SET increments = increments + 1 WHERE metric = 'bad'",
        "UPDATE quarantined SET seq = seq + 1 WHERE metric = 'bad'",
        "UPDATE quarantined SET writer = NULL, lane = NULL, seq = NULL",
        "UPDATE quarantined SET reason = '' WHERE metric = 'unbatched'",
        "UPDATE quarantined SET id = id + 10 WHERE metric = 'unbatched'",
        "DELETE FROM quarantined WHERE metric = 'unbatched'",
        "DROP TABLE quarantined",
    ];
    for change in changes {
        let noticed = try_damaged(&closed, &unexpected(), |dir| {
            let connection = rusqlite::Connection::open(file(dir)).unwrap();
            connection.execute_batch(change).unwrap();
            assert!(connection.changes() > 0 || change.starts_with("DROP"), "`{change}` changed nothing");
            change.to_owned()
        });
        assert!(noticed, "{change}");
    }
}

/// Stands for a content that no journal here has.
fn unexpected() -> (Content, u64) {
    (Content { pending: Vec::new(), frozen: Vec::new(), quarantined: Vec::new(), node: 0 }, 0)
}

#[test]
fn used_page_in_free_list_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (_, closed) = fill(dir.path());
    let noticed = try_damaged(&closed, &unexpected(), |dir| {
        let mut bytes = fs::read(file(dir)).unwrap();
        // The list of free pages in SQLite's header: its first page, and their number.
        bytes[32..36].copy_from_slice(&4_u32.to_be_bytes());
        bytes[36..40].copy_from_slice(&1_u32.to_be_bytes());
        fs::write(file(dir), bytes).unwrap();
        "page 4 is said to be free".to_owned()
    });
    assert!(noticed);
}

#[test]
fn missing_log_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, _) = fill(dir.path());
    fs::remove_file(crashed.join("journal.db-wal")).unwrap();
    let error = Journal::open(as_original(&crashed)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("it ends with transaction"), "{error}");
}

#[test]
fn missing_or_empty_file_is_not_created_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, closed) = fill(dir.path());
    fs::remove_file(file(&closed)).unwrap();
    let error = Journal::open(as_original(&closed)).unwrap_err();
    assert!(error.to_string().contains("it is missing, but there was a journal here"), "{error}");
    assert!(!file(&closed).exists());
    fs::write(file(&crashed), "").unwrap();
    let error = Journal::open(as_original(&crashed)).unwrap_err();
    assert!(error.to_string().contains("it is empty, but there was a journal here"), "{error}");
}

#[test]
fn file_of_another_program_is_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(dir.path()), "this is a diary, no journal").unwrap();
    let error = Journal::open(config(dir.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(fs::read(file(dir.path())).unwrap(), b"this is a diary, no journal");
}

#[test]
fn journal_opens_without_a_readable_witness() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, closed) = fill(dir.path());
    fs::remove_file(crashed.join("journal.witness")).unwrap();
    content(as_original(&crashed)).unwrap();
    fs::write(closed.join("journal.witness"), "nonsense").unwrap();
    content(as_original(&closed)).unwrap();
}

#[test]
fn damaged_journal_is_set_aside_whole_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, _) = fill(dir.path());
    let mut bytes = fs::read(crashed.join("journal.db-wal")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(crashed.join("journal.db-wal"), &bytes).unwrap();
    let error = Journal::open(as_original(&crashed)).unwrap_err();
    assert!(error.to_string().contains("nothing was changed; it can be set aside"), "{error}");
    let main = fs::read(file(&crashed)).unwrap();

    // The first free name is taken, by a journal that was damaged earlier.
    let earlier = crashed.join("journal.db.damaged-1-wal");
    fs::write(&earlier, "earlier").unwrap();
    let with_set_aside = JournalConfig { set_aside_corrupt: true, ..as_original(&crashed) };
    let (journal, recovered) = Journal::open(with_set_aside.clone()).unwrap();
    assert!(recovered.is_empty());
    let set_aside = recovered.set_aside.unwrap();
    assert_eq!(set_aside.moved_to, crashed.join("journal.db.damaged-2"));
    assert!(set_aside.why.contains("it ends with transaction"), "{}", set_aside.why);
    assert_eq!(fs::read(&set_aside.moved_to).unwrap(), main);
    assert_eq!(fs::read(crashed.join("journal.db.damaged-2-wal")).unwrap(), bytes);
    assert_eq!(fs::read(&earlier).unwrap(), b"earlier");
    journal.record_blocking(record(0, [("new", 1)])).unwrap();
    let node = journal.writer().node();
    drop(journal);

    // The new one is as good as any, and a sound one is never set aside.
    let (journal, recovered) = Journal::open(with_set_aside).unwrap();
    assert_eq!(recovered.set_aside, None);
    assert_eq!(journal.writer().node(), node);
    assert_eq!(recovered_counts(&recovered), counts([("new", 1, 1)]));
}

#[test]
fn journal_after_a_damaged_one_has_fresh_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let node = journal.writer().node();
    drop(journal);
    fs::write(file(dir.path()), "x").unwrap();
    let with_set_aside = JournalConfig { set_aside_corrupt: true, ..config(dir.path()) };
    assert_ne!(Journal::open(with_set_aside).unwrap().0.writer().node(), node);
}
