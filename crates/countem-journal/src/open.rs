//! Opening a journal: lock, check, recover, and raise the epoch before anything else.

use std::{fs, path::Path, sync::Arc};

use rusqlite::Connection;

use crate::{
    aside::{SetAside, set_aside},
    config::{CopiedPending, JournalConfig},
    connection::{JOURNAL, OpenFile, bytes_of, log_of, sync_directory},
    error::{ErrorKind, JournalError},
    ledger::{Contents, Ledger},
    lock::DirectoryLock,
    place::{Origin, Place},
    recovered::Recovered,
    request::quarantine_pending,
    reserve::Reserve,
    schema::{APPLICATION_ID, Recognised, SCHEMA_VERSION, TABLES, at_open, recognise},
    session::Session,
    status::Shared,
    task::{Books, Failure},
    witness::{Testimony, WITNESS, Witness},
};

/// Opens the journal in `options.dir`.
pub(crate) fn open(options: JournalConfig) -> Result<(Session, Recovered), JournalError> {
    let dir = std::path::absolute(&options.dir)
        .map_err(|error| JournalError::io(&options.dir, "find the journal directory", &error))?;
    fs::create_dir_all(&dir)
        .map_err(|error| JournalError::io(&dir, "create the journal directory", &error))?;
    let lock = DirectoryLock::acquire(&dir)?;
    let path = dir.join(JOURNAL);
    let mut aside = None;
    let found = match find(&dir, &path, options.lanes) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            if !options.set_aside_corrupt {
                return Err(JournalError::corrupt(&path, advice(&error, &path)));
            }
            aside = Some(SetAside { moved_to: set_aside(&dir, &path)?, why: error.to_string() });
            find(&dir, &path, options.lanes)?
        }
        found => found?,
    };
    let (file, contents, created) = found;
    let witness = Witness::open(&dir)
        .map_err(|error| JournalError::io(&dir.join(WITNESS), "open the witness", &error))?;
    let mut session = Session {
        shared: Arc::new(Shared::new(contents.ledger.writer())),
        options,
        path,
        witness,
        reserve: Reserve::find(&dir),
        ledger: contents.ledger.clone(),
        file: Some(file),
        log_pages: 0,
        unsettled: false,
        broken: None,
        _lock: lock,
    };
    let recovered = begin_epoch(&mut session, contents, created, aside)?;
    sync_directory(&dir).map_err(|error| JournalError::io(&dir, "make durable the names in", &error))?;
    Ok((session, recovered))
}

fn advice(error: &JournalError, path: &Path) -> String {
    let text = error.to_string();
    let said = text.strip_prefix(&format!("the journal `{}` is damaged: ", path.display())).unwrap_or(&text);
    format!(
        "{said}; nothing was changed; it can be set aside, and its counts are then missing until they are restored"
    )
}

/// Opens what is there and checks all of it, or begins a new journal where there never was one.
fn find(dir: &Path, path: &Path, lanes: u16) -> Result<(OpenFile, Contents, bool), JournalError> {
    let unreadable = |error| JournalError::io(dir, "look into the journal directory", &error);
    let testimony = Witness::testimony(dir).map_err(unreadable)?;
    let (bytes, log_bytes) =
        (bytes_of(path).map_err(unreadable)?, bytes_of(&log_of(path)).map_err(unreadable)?);
    if bytes == 0 && (testimony != Testimony::Absent || log_bytes > 0) {
        let what = if path.exists() { "it is empty" } else { "it is missing" };
        let why = format!("{what}, but there was a journal here (`{WITNESS}` or a log is left of it)");
        return Err(JournalError::corrupt(path, why));
    }
    let file = OpenFile::open(path).map_err(|error| at_open(path, &error))?;
    match check(&file, path, testimony, lanes) {
        Ok((contents, created)) => Ok((file, contents, created)),
        Err(error) => {
            file.leave_untouched();
            Err(error)
        }
    }
}

fn check(
    file: &OpenFile,
    path: &Path,
    testimony: Testimony,
    lanes: u16,
) -> Result<(Contents, bool), JournalError> {
    let failed = |error: rusqlite::Error| JournalError::sqlite(path, "open the journal", &error);
    let created = match recognise(&file.connection, path)? {
        Recognised::Journal => false,
        Recognised::Empty if testimony == Testimony::Absent => {
            create(file, lanes).map_err(failed)?;
            true
        }
        Recognised::Empty => return Err(JournalError::corrupt(path, "its tables are gone")),
    };
    check_structure(&file.connection, path)?;
    let contents = Contents::read(&file.connection, path)?;
    if let Testimony::Tick(known) = testimony
        && contents.ledger.tick < known
    {
        let found = contents.ledger.tick;
        let why = format!("it ends with transaction {found}, but transaction {known} was written");
        return Err(JournalError::corrupt(path, why));
    }
    // Only now may anything be written: whatever is seen becomes durable, see `Session::open_again`.
    file.prepare_writing().and_then(|()| file.empty_log()).map_err(failed)?;
    Ok((contents, created))
}

/// Lets SQLite check the structure of every page.
pub(crate) fn check_structure(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match said.map_err(|error| at_open(path, &error))? {
        said if said == "ok" => Ok(()),
        said => Err(JournalError::corrupt(path, said.replace('\n', " "))),
    }
}

fn create(file: &OpenFile, lanes: u16) -> rusqlite::Result<()> {
    file.give_form()?;
    file.prepare_writing()?;
    let connection = &file.connection;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(TABLES)?;
    Ledger::new(rand::random(), lanes).save(connection)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.execute_batch("COMMIT")
}

/// What is written beside deltas that were found in a copy.
const COPIED: &str = "pending in a copied journal; counted already if the original of the copy went on";

/// Raises the epoch, durably, and takes a fresh identity where the journal came from somewhere else.
fn begin_epoch(
    session: &mut Session,
    mut contents: Contents,
    created: bool,
    set_aside: Option<SetAside>,
) -> Result<Recovered, JournalError> {
    let here = Place::of(&session.path);
    let origin = if created { Origin::Created } else { contents.ledger.place.origin(&here) };
    let failed = |error: rusqlite::Error| JournalError::sqlite(&session.path, "begin an epoch in", &error);
    let file = session.file.as_ref().expect("the file was opened just now");
    let points = session.options.fail_points();

    let mut next = session.ledger.clone();
    let mut quarantined_now = 0;
    file.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    if origin == Origin::Copied && session.options.copied_pending == CopiedPending::Quarantine {
        let mut books = Books {
            file,
            path: &session.path,
            ledger: &mut next,
            options: &session.options,
            log_pages: 0,
            log_bytes: 0,
            rows: 0,
        };
        quarantined_now = quarantine_pending(&mut books, COPIED).map_err(|failure| match failure {
            Failure::Sqlite(error) => failed(error),
            Failure::Refused(error) => error,
            Failure::NoRoom => unreachable_room(&session.path),
        })?;
        contents.pending.clear();
    }
    if matches!(origin, Origin::Copied | Origin::OtherHost) {
        next.node = rand::random();
    }
    next.place = here;
    next.epoch += 1;
    next.tick += 1;
    if next.is_settled() {
        next.lanes = session.options.lanes;
    }
    let committed = next.save(&file.connection).and_then(|()| points.hit("open.before"));
    let committed = committed.and_then(|()| file.connection.execute_batch("COMMIT"));
    committed.and_then(|()| points.hit("open.after")).map_err(failed)?;
    if quarantined_now > 0 {
        contents.quarantined = crate::quarantine::read(&file.connection, &session.path)?;
    }
    session.ledger = next;
    session.witness.note(session.ledger.tick).ok();
    session.reserve.put_by();
    session.shared.set_writer(session.ledger.writer());
    session.shared.status().of_ledger(&session.ledger);
    Ok(Recovered {
        origin,
        lanes: session.ledger.lanes,
        frozen: contents.frozen.into_iter().map(|frozen| frozen.batch).collect(),
        pending: contents.pending,
        quarantined: contents.quarantined,
        quarantined_now,
        set_aside,
    })
}

fn unreachable_room(path: &Path) -> JournalError {
    JournalError::new(ErrorKind::Full, format!("there is no room in `{}`", path.display()))
}
