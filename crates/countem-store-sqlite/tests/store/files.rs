//! Files that the store uses, and files that it must not touch.

use std::{
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use countem_core::Writer;
use countem_store::{ErrorKind, Store as _};
use countem_store_sqlite::{APPLICATION_ID, SCHEMA_VERSION, SqliteConfig, SqliteStore};
use rusqlite::Connection;

use crate::support::{batch, block_on, contents, counters, expected, file, open};

/// Returns the reason for which the file in `folder` is refused, having checked that nothing was written to it.
pub(crate) fn refusal(folder: &Path) -> String {
    let without_index = |folder| {
        let mut contents = contents(folder);
        // The index of the log is memory that connections share; every process that opens the file makes it anew.
        contents.retain(|name, _| !name.ends_with("-shm"));
        contents
    };
    let before = without_index(folder);
    let error = SqliteStore::open(SqliteConfig::new(file(folder))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(without_index(folder) == before, "files were changed");
    let path = file(folder).display().to_string();
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message.replace(&path, "PATH").replace(&folder.display().to_string(), "FOLDER")
}

fn with_sql(folder: &Path, sql: &str) {
    Connection::open(file(folder)).unwrap().execute_batch(sql).unwrap();
}

/// Makes a file with thousands of counters.
fn with_counters(folder: &Path) {
    let deltas: Vec<_> = (0..5_000).map(|i| (format!("metric {i:04}"), 1)).collect();
    block_on(open(folder).apply(&batch(&Writer::new(1, 1), 1, &deltas))).unwrap();
}

#[test]
fn file_that_is_no_database_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    for content in
        ["a text of another program\n".repeat(1000), "x".to_owned(), "SQLite format 4\0".repeat(600)]
    {
        std::fs::write(file(folder.path()), content).unwrap();
        assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is no SQLite database");
    }
}

#[test]
fn database_of_another_program_is_refused_untouched() {
    let refused = "cannot open `PATH`: it is a database of another program";
    for sql in [
        "CREATE TABLE people (name TEXT); INSERT INTO people VALUES ('Ada')",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = WAL; CREATE TABLE counter (x)",
    ] {
        let folder = tempfile::tempdir().unwrap();
        with_sql(folder.path(), sql);
        assert_eq!(refusal(folder.path()), refused, "{sql}");
        assert_eq!(refusal(folder.path()), refused, "{sql}");
    }
}

#[test]
fn log_of_another_program_is_left_alone() {
    let (theirs, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let connection = Connection::open(file(theirs.path())).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE people (name TEXT)").unwrap();
    // As after a crash: the table is in the log only.
    for name in ["countem.db", "countem.db-wal"] {
        std::fs::copy(theirs.path().join(name), folder.path().join(name)).unwrap();
    }
    assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is a database of another program");
    let found = Connection::open(file(folder.path())).unwrap();
    assert_eq!(found.query_row("SELECT count(*) FROM people", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn file_of_newer_countem_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    with_sql(folder.path(), "PRAGMA user_version = 99");
    assert_eq!(
        refusal(folder.path()),
        format!(
            "cannot open `PATH`: it was written by a newer countem (schema 99, this one knows up to {SCHEMA_VERSION})"
        )
    );
}

#[test]
fn folder_and_missing_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(file(folder.path())).unwrap();
    assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is a folder");

    let missing = folder.path().join("missing");
    let error = SqliteStore::open(SqliteConfig::new(missing.join("countem.db"))).unwrap_err();
    let expected_error =
        format!("cannot open `{0}/countem.db`: the folder `{0}` does not exist", missing.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Refused, expected_error));
    assert!(!missing.exists());

    std::fs::write(&missing, "no folder").unwrap();
    let error = SqliteStore::open(SqliteConfig::new(missing.join("countem.db"))).unwrap_err();
    assert!(error.to_string().ends_with("/missing` is not a folder"), "{error}");
}

#[cfg(unix)]
#[test]
fn special_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/null", file(folder.path())).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(file(folder.path()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with("`: it is not an ordinary file"), "{error}");
}

#[test]
fn damaged_file_is_refused_and_kept_unchanged() {
    let whole = tempfile::tempdir().unwrap();
    with_counters(whole.path());
    let bytes = std::fs::read(file(whole.path())).unwrap();
    assert!(bytes.len() > 40 * 4096);

    let cut = &bytes[..bytes.len() / 2];
    let mut scrambled = bytes.clone();
    scrambled[4096..].fill(0xa5);
    for damaged in [cut, &scrambled] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file(folder.path()), damaged).unwrap();
        // Opening looks at the header only, so it may take a file whose damage lies deeper.
        let store = match SqliteStore::open(SqliteConfig::new(file(folder.path()))) {
            Ok(store) => store,
            Err(error) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                continue;
            }
        };
        let deltas: Vec<_> = (0..5_000).map(|i| (format!("metric {i:04}"), 1)).collect();
        let error = block_on(store.apply(&batch(&Writer::new(1, 2), 1, &deltas))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().ends_with("the file is damaged; restore it from a copy"), "{error}");
        drop(store);
        assert!(std::fs::read(file(folder.path())).unwrap() == damaged, "the file was changed");
    }

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(file(folder.path()), &bytes).unwrap();
    let mut header = std::fs::OpenOptions::new().write(true).open(file(folder.path())).unwrap();
    header.seek(SeekFrom::Start(0)).unwrap();
    header.write_all(&[0; 64]).unwrap();
    assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is no SQLite database");
}

#[test]
fn empty_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(file(folder.path()), "").unwrap();
    block_on(open(folder.path()).check()).unwrap();
}

#[test]
fn copy_without_log_is_used_as_it_is() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = Writer::new(1, 1);
    let store = open(whole.path());
    block_on(store.apply(&batch(&writer, 1, &[("a", 1)]))).unwrap();
    let into = format!("VACUUM INTO '{}'", file(folder.path()).display());
    with_sql(whole.path(), &into);

    let copy = open(folder.path());
    block_on(copy.apply(&batch(&writer, 1, &[("a", 1)]))).unwrap();
    block_on(copy.apply(&batch(&writer, 2, &[("a", 1)]))).unwrap();
    assert_eq!(block_on(counters(&copy)), expected(&[("a", 2)]));
}

#[test]
fn missing_table_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    with_sql(folder.path(), "DROP TABLE mark");
    let error = block_on(open(folder.path()).check()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("no such table: mark"), "{error}");
}

#[test]
fn names_that_sqlite_reserves_are_ordinary_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:x.db?mode=memory", "a%20b.db", "ä 🦀.db"] {
        let path = folder.path().join(name);
        let store = SqliteStore::open(SqliteConfig::new(&path)).unwrap();
        block_on(store.apply(&batch(&Writer::new(1, 1), 1, &[("a", 1)]))).unwrap();
        assert!(path.is_file(), "{name}");
    }
}

#[test]
fn file_is_readable_with_plain_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    block_on(open(folder.path()).apply(&batch(&Writer::new(1, 1), 1, &[("GET 200", 3)]))).unwrap();
    let connection = Connection::open(file(folder.path())).unwrap();
    let row: (String, String, String, i64) = connection
        .query_row("SELECT collection, bucket, metric, value FROM counter", [], |row| row.try_into())
        .unwrap();
    assert_eq!(row, ("web".into(), "2026-11-20".into(), "GET 200".into(), 3));
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
    assert_eq!(id, APPLICATION_ID);
}

#[cfg(unix)]
mod rights {
    //! Root may write everywhere, so as root these tests start a process of an unprivileged user.

    use std::{
        fs::{Permissions, set_permissions},
        os::unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            process::CommandExt as _,
        },
    };

    use super::*;
    use crate::process::{Process, Task, command};

    const UNPRIVILEGED: u32 = 65534;

    /// Returns the reason for which the file in `folder` is refused to an unprivileged user.
    fn refusal_to_a_user(test: &str, folder: &Path) -> String {
        let effective_user = std::fs::metadata("/proc/self").map_or(UNPRIVILEGED, |own| own.uid());
        if effective_user != 0 {
            return refusal(folder);
        }
        // The folder of the program may be closed to that user, so the process runs a copy.
        let copy = tempfile::tempdir().unwrap();
        set_permissions(copy.path(), Permissions::from_mode(0o755)).unwrap();
        let program = copy.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut unprivileged = command(&program, test, folder, 0);
        unprivileged.uid(UNPRIVILEGED).gid(UNPRIVILEGED).current_dir(copy.path());
        Process::start(&mut unprivileged).finish().expect("the refusal")
    }

    #[test]
    fn read_only_file_is_refused() {
        if let Some(task) = Task::of_this_process() {
            return Task::report(&refusal(&task.folder));
        }
        let folder = tempfile::tempdir().unwrap();
        with_counters(folder.path());
        set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        set_permissions(file(folder.path()), Permissions::from_mode(0o444)).unwrap();
        let refused = refusal_to_a_user("files::rights::read_only_file_is_refused", folder.path());
        assert_eq!(refused, "cannot open `PATH`: the file is read-only");
    }

    #[test]
    fn read_only_folder_is_refused() {
        if let Some(task) = Task::of_this_process() {
            return Task::report(&refusal(&task.folder));
        }
        let folder = tempfile::tempdir().unwrap();
        with_counters(folder.path());
        set_permissions(file(folder.path()), Permissions::from_mode(0o666)).unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
        let this = "files::rights::read_only_folder_is_refused";
        let refused = refusal_to_a_user(this, folder.path());
        assert_eq!(refused, "cannot open `PATH`: the file or its folder is read-only");
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_file(file(folder.path())).unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
        let refused = refusal_to_a_user(this, folder.path());
        assert_eq!(
            refused,
            "cannot open `PATH`: the file or its folder may not be opened; check their rights"
        );
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    }
}
