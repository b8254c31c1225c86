//! Files that the store must not touch.

use std::{
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use countem_core::Writer;
use countem_store::{ErrorKind, Store as _};
use countem_store_sqlite::{APPLICATION_ID, SCHEMA_VERSION, SqliteConfig, SqliteStore};
use rusqlite::Connection;

use crate::support::{batch, block_on, contents, counters, expected, file, open};

/// Returns why the file in `folder` is refused, having checked that nothing was written to it.
pub(crate) fn refusal(folder: &Path) -> String {
    let without_index = |folder| {
        let mut contents = contents(folder);
        // The index of the log is memory that connections share; it is made anew by whoever opens the file.
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
fn what_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for content in
        ["a text that somebody wrote\n".repeat(1000), "x".to_owned(), "SQLite format 4\0".repeat(600)]
    {
        std::fs::write(file(folder.path()), content).unwrap();
        assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is no SQLite database");
    }
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
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
fn the_log_of_another_program_is_left_alone_too() {
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
fn a_file_of_a_newer_countem_is_refused() {
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
fn a_folder_and_a_missing_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(file(folder.path())).unwrap();
    assert_eq!(refusal(folder.path()), "cannot open `PATH`: it is a folder");

    let missing = folder.path().join("missing");
    let error = SqliteStore::open(SqliteConfig::new(missing.join("countem.db"))).unwrap_err();
    let told = format!("cannot open `{0}/countem.db`: the folder `{0}` does not exist", missing.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Refused, told));
    assert!(!missing.exists());

    std::fs::write(&missing, "no folder").unwrap();
    let error = SqliteStore::open(SqliteConfig::new(missing.join("countem.db"))).unwrap_err();
    assert!(error.to_string().ends_with("/missing` is not a folder"), "{error}");
}

#[cfg(unix)]
#[test]
fn what_is_no_ordinary_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/null", file(folder.path())).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(file(folder.path()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with("`: it is not an ordinary file"), "{error}");
}

#[test]
fn a_damaged_file_is_refused_and_not_made_worse() {
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
fn an_empty_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(file(folder.path()), "").unwrap();
    block_on(open(folder.path()).check()).unwrap();
}

#[test]
fn a_copy_without_a_log_is_used_as_it_is() {
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
fn a_missing_table_is_refused_by_name() {
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
fn the_file_can_be_read_by_anybody_with_sqlite() {
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
    //! Root may write everywhere, so as root these tests run once more as nobody.

    use std::{
        fs::{Permissions, set_permissions},
        os::unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            process::CommandExt as _,
        },
    };

    use super::*;
    use crate::process::{Process, Task, command};

    const NOBODY: u32 = 65534;

    /// Returns why the file in `folder` is refused to a user without special rights.
    fn refusal_to_a_user(test: &str, folder: &Path) -> String {
        let effective_user = std::fs::metadata("/proc/self").map_or(NOBODY, |own| own.uid());
        if effective_user != 0 {
            return refusal(folder);
        }
        // Where the program lies may be closed to nobody, so it takes a copy of it along.
        let place = tempfile::tempdir().unwrap();
        set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let program = place.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut nobody = command(&program, test, folder, 0);
        nobody.uid(NOBODY).gid(NOBODY).current_dir(place.path());
        Process::start(&mut nobody).finish().expect("the refusal")
    }

    #[test]
    fn a_read_only_file_is_refused() {
        if let Some(task) = Task::given() {
            return Task::tell(&refusal(&task.folder));
        }
        let folder = tempfile::tempdir().unwrap();
        with_counters(folder.path());
        set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        set_permissions(file(folder.path()), Permissions::from_mode(0o444)).unwrap();
        let told = refusal_to_a_user("files::rights::a_read_only_file_is_refused", folder.path());
        assert_eq!(told, "cannot open `PATH`: the file is read-only");
    }

    #[test]
    fn a_read_only_folder_is_refused() {
        if let Some(task) = Task::given() {
            return Task::tell(&refusal(&task.folder));
        }
        let folder = tempfile::tempdir().unwrap();
        with_counters(folder.path());
        set_permissions(file(folder.path()), Permissions::from_mode(0o666)).unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
        let this = "files::rights::a_read_only_folder_is_refused";
        let told = refusal_to_a_user(this, folder.path());
        assert_eq!(told, "cannot open `PATH`: the file or its folder is read-only");
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_file(file(folder.path())).unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
        let told = refusal_to_a_user(this, folder.path());
        assert_eq!(told, "cannot open `PATH`: the file or its folder may not be opened; check their rights");
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    }
}
