//! Opening a journal: lock, check, recover, and raise the epoch before anything else.

use std::{path::Path, sync::Arc};

use countem_sqlite::{
    Cause, OpenFile, Place, bytes_of, bytes_of_disk, create_private_folder, log_of, private_file, sync_folder,
};

use crate::{
    config::{CopiedPending, JournalConfig},
    disk::{
        file::{BUSY_TIMEOUT, JOURNAL, format, prepare_writing},
        lock::DirectoryLock,
        provenance::Provenance,
        reserve::Reserve,
        set_aside::set_aside,
        witness::{WITNESS, Witness, Witnessed},
    },
    error::{ErrorKind, JournalError, ReadError},
    recovered::{Origin, Recovered, SetAside},
    shared::Shared,
    tables::{
        contents::Contents,
        keyed, quarantine,
        schema::{Recognised, check_structure, create_tables, migrate, recognise},
        state::JournalState,
    },
    thread::{fail_point, transactions::Transactions},
};

/// A journal file that was opened and checked, or created.
struct Found {
    file: OpenFile,
    contents: Contents,
    is_new: bool,
}

/// Share of the disk that stored batches may take.
const HISTORY_SHARE: u64 = 8;

/// Opens the journal in `config.dir`. On a full disk the reserve and stored batches give way to what that has to write.
pub(crate) fn open(config: JournalConfig) -> Result<(Transactions, Recovered), JournalError> {
    match try_to_open(config.clone()) {
        Err(error) if !matches!(error.kind(), ErrorKind::Locked | ErrorKind::Corrupt) => {
            // Nothing is to be deleted before the directory is known to be free, which it is: it was locked.
            if Reserve::find(&config.dir).release() { try_to_open(config) } else { Err(error) }
        }
        opened => opened,
    }
}

fn try_to_open(config: JournalConfig) -> Result<(Transactions, Recovered), JournalError> {
    let dir = std::path::absolute(&config.dir)
        .map_err(|error| JournalError::io(&config.dir, "find the journal directory", &error))?;
    create_private_folder(&dir)
        .map_err(|error| JournalError::io(&dir, "create the journal directory", &error))?;
    let lock = DirectoryLock::acquire(&dir)?;
    let path = dir.join(JOURNAL);
    let mut moved = None;
    let found = match find(&dir, &path, config.lanes) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            if !config.set_aside_corrupt {
                return Err(JournalError::corrupt(&path, advice(&error, &path)));
            }
            moved = Some(SetAside { moved_to: set_aside(&dir, &path)?, why: error.to_string() });
            find(&dir, &path, config.lanes)?
        }
        found => found?,
    };
    let Found { file, contents, is_new } = found;
    let witness = Witness::open(&dir)
        .map_err(|error| JournalError::io(&dir.join(WITNESS), "open the witness", &error))?;
    let history_bytes = bytes_of_disk(&dir).map_or(u64::MAX, |bytes| bytes / HISTORY_SHARE);
    let mut transactions = Transactions {
        history_bytes: config.resolved_bytes.min(history_bytes),
        place: Place::of(&path),
        shared: Arc::new(Shared::new(contents.state.writer())),
        config,
        path,
        witness,
        reserve: Reserve::find(&dir),
        state: contents.state.clone(),
        file: Some(file),
        log_pages: 0,
        in_doubt: false,
        broken: None,
        _lock: lock,
    };
    let recovered = begin_epoch(&mut transactions, contents, is_new, moved)?;
    sync_folder(&dir).map_err(|error| JournalError::io(&dir, "make durable the names in", &error))?;
    Ok((transactions, recovered))
}

fn advice(error: &JournalError, path: &Path) -> String {
    let text = error.to_string();
    let why = text.strip_prefix(&format!("the journal `{}` is damaged: ", path.display())).unwrap_or(&text);
    format!(
        "{why}; nothing was changed; it can be set aside, and its counts are then missing until they are restored"
    )
}

/// Opens the existing file and checks all of it, or creates one where there never was a journal.
fn find(dir: &Path, path: &Path, lanes: u16) -> Result<Found, JournalError> {
    let unreadable = |error| JournalError::io(dir, "read the journal directory", &error);
    let witnessed = Witness::read(dir).map_err(unreadable)?;
    let bytes = bytes_of(path).map_err(unreadable)?;
    let log_bytes = bytes_of(&log_of(path)).map_err(unreadable)?;
    if bytes == 0 && (witnessed != Witnessed::Absent || log_bytes > 0) {
        let what = if path.exists() { "it is empty" } else { "it is missing" };
        let why = format!("{what}, but there was a journal here (`{WITNESS}` or a log is left of it)");
        return Err(JournalError::corrupt(path, why));
    }
    // SQLite would create it with the rights of any file, and write through a link.
    private_file()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| JournalError::io(path, "open the journal", &error))?;
    let file = OpenFile::for_writing(path, BUSY_TIMEOUT).map_err(|error| ReadError::from(error).of(path))?;
    let checked = check(&file, witnessed, lanes).map_err(|error| error.of(path)).and_then(|checked| {
        // Only now may anything be written: every transaction that was seen becomes durable, see `Transactions::reopen`.
        let prepared = prepare_writing(&file).and_then(|()| file.empty_log());
        prepared.map_err(|error| JournalError::sqlite(path, "open the journal", &error))?;
        Ok(checked)
    });
    match checked {
        Ok((contents, is_new)) => Ok(Found { file, contents, is_new }),
        Err(error) => {
            file.close_untouched();
            Err(error)
        }
    }
}

fn check(file: &OpenFile, witnessed: Witnessed, lanes: u16) -> Result<(Contents, bool), ReadError> {
    let connection = &file.connection;
    let is_new = match recognise(connection)? {
        Recognised::Journal => false,
        Recognised::Older(version) => {
            check_structure(connection)?;
            migrate(connection, version)?;
            false
        }
        Recognised::Empty if witnessed == Witnessed::Absent => {
            format(connection)?;
            prepare_writing(file)?;
            create_tables(connection, &JournalState::new(rand::random(), lanes))?;
            true
        }
        Recognised::Empty => return Err(ReadError::damaged("its tables are gone")),
    };
    check_structure(connection)?;
    let contents = Contents::read(connection)?;
    match (witnessed, contents.state.tick) {
        (Witnessed::Tick(known), found) if found < known => Err(ReadError::damaged(format!(
            "it ends with transaction {found}, but transaction {known} was written"
        ))),
        _ => Ok((contents, is_new)),
    }
}

/// Maximum number of times that room is made for the first transaction.
const MAX_ROOM_ROUNDS: u32 = 16;

/// Reason of deltas that were pending in a copy.
const COPIED: &str = "pending in a copied journal; counted already if the original of the copy went on";

/// Raises the epoch, durably, and draws a fresh identity where the journal came from another place.
fn begin_epoch(
    transactions: &mut Transactions,
    mut contents: Contents,
    is_new: bool,
    set_aside: Option<SetAside>,
) -> Result<Recovered, JournalError> {
    let Transactions { path, config, .. } = &*transactions;
    let (path, config) = (&path.clone(), &config.clone());
    let mut now = Provenance::of(path);
    if fail_point::hit(path, format_args!("born")).is_err() {
        now.born = None;
    }
    let origin = if is_new { Origin::Created } else { contents.state.provenance.origin(&now) };
    let mut quarantined_now = 0;
    let mut next = transactions.state.clone();
    for round in 0.. {
        let Some(file) = &transactions.file else {
            return Err(JournalError::new(ErrorKind::Unavailable, "the journal could not be kept open"));
        };
        let connection = &file.connection;
        next = transactions.state.clone();
        let mut commit = || {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            if origin == Origin::Copied && config.copied_pending == CopiedPending::Quarantine {
                let pending = contents.pending.iter().map(|(lane, deltas)| (*lane, deltas));
                quarantined_now = quarantine::add_pending(connection, &mut next, pending, COPIED)?;
                let keyed = contents.keyed.iter();
                quarantined_now += keyed::quarantine_all(connection, &mut next, keyed, COPIED)?;
            }
            if matches!(origin, Origin::Copied | Origin::OtherHost) {
                next.node = rand::random();
            }
            next.provenance = now.clone();
            next.epoch += 1;
            next.incarnation = Some(rand::random());
            next.tick += 1;
            next.keyed.get_or_insert_default();
            next.adopt_numbers(&transactions.state);
            if next.is_empty() {
                next.lanes = config.lanes;
            }
            next.save(connection)?;
            fail_point::hit(path, format_args!("open.before"))?;
            connection.execute_batch("COMMIT")?;
            fail_point::hit(path, format_args!("open.after"))
        };
        let Err(error) = commit() else { break };
        let is_full = Cause::of(&error) == Cause::Full && round < MAX_ROOM_ROUNDS;
        let ended = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if !(is_full && ended && transactions.make_room(round == 0)) {
            return Err(JournalError::sqlite(path, "begin an epoch in", &error));
        }
    }
    if origin == Origin::Copied && config.copied_pending == CopiedPending::Quarantine {
        contents.pending.clear();
        contents.keyed.clear();
    }
    let connection = &transactions.file.as_ref().expect("the transaction was committed on it").connection;
    if quarantined_now > 0 {
        contents.quarantined = quarantine::read(connection).map_err(|error| error.of(path))?;
    }
    transactions.state = next;
    transactions.witness.write(transactions.state.tick).ok();
    transactions.reserve.allocate();
    transactions.shared.set_writer(transactions.state.writer());
    transactions.shared.status().set_state(&transactions.state);
    Ok(Recovered {
        origin,
        lanes: transactions.state.lanes,
        frozen: contents.frozen.into_iter().map(|frozen| frozen.batch).collect(),
        next: transactions.state.numbers.next(),
        pending: contents.pending,
        keyed: contents.keyed,
        quarantined: contents.quarantined,
        quarantined_now,
        set_aside,
    })
}
