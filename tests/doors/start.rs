//! A store that cannot be used gives one clear line at the start, and is left as it was.

use std::fs;

use countem::{Collector, StartError};
use rusqlite::Connection;

use crate::support::{CounterFile, counters};

/// Starts a collector that must not start, and returns what it says.
fn refusal(uri: &str) -> String {
    let error = Collector::builder().store(uri).start_blocking().unwrap_err();
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.ends_with('.'), "one line without a full stop: {line:?}");
    line
}

#[test]
fn folder_in_place_of_the_file_is_refused() {
    let file = CounterFile::new();
    fs::create_dir(file.path()).unwrap();
    assert_eq!(refusal(&file.uri()), format!("cannot open `{}`: it is a folder", file.path().display()));
    assert_eq!(fs::read_dir(file.path()).unwrap().count(), 0);
}

#[test]
fn file_in_missing_folder_is_refused() {
    let file = CounterFile::new();
    let folder = file.folder().join("missing");
    let path = folder.join("counts.db");
    assert_eq!(
        refusal(&format!("sqlite://{}", path.display())),
        format!("cannot open `{}`: the folder `{}` does not exist", path.display(), folder.display())
    );
    assert!(!folder.exists());
}

#[test]
fn file_without_database_is_refused_and_left_unchanged() {
    let file = CounterFile::new();
    let text = "these are no counts, but they may be needed\n".repeat(100);
    fs::write(file.path(), &text).unwrap();
    assert_eq!(
        refusal(&file.uri()),
        format!("cannot open `{}`: it is no SQLite database", file.path().display())
    );
    assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
    assert_eq!(fs::read_dir(file.folder()).unwrap().count(), 1, "nothing was left beside it");
}

#[test]
fn foreign_database_is_refused_and_left_unchanged() {
    let file = CounterFile::new();
    let other = Connection::open(file.path()).unwrap();
    // Even with a table of the same name.
    other.execute_batch("CREATE TABLE counter (id INTEGER); INSERT INTO counter VALUES (7)").unwrap();
    drop(other);
    let before = fs::read(file.path()).unwrap();
    let line = refusal(&file.uri());
    assert!(line.starts_with(&format!("cannot open `{}`: ", file.path().display())), "{line}");
    assert!(line.contains("another program"), "{line}");
    assert_eq!(fs::read(file.path()).unwrap(), before);
    assert_eq!(fs::read_dir(file.folder()).unwrap().count(), 1, "nothing was left beside it");
}

#[test]
fn file_of_newer_countem_is_refused_and_unchanged() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    collector.increment("c", "a", 1);
    assert!(collector.blocking().shutdown().is_complete());
    drop(collector);
    let newer = Connection::open(file.path()).unwrap();
    let version: i64 = newer.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    newer.pragma_update(None, "user_version", version + 1).unwrap();
    let line = refusal(&file.uri());
    assert!(line.starts_with(&format!("cannot open `{}`: ", file.path().display())), "{line}");
    assert!(line.contains("newer"), "{line}");
    assert_eq!(file.counters("c"), counters(&[("a", 1)]));
}

#[test]
fn invalid_store_uri_is_refused_with_the_choices() {
    for (uri, said) in [
        ("counts.db", "sqlite://PATH"),
        ("redis://localhost", "`redis://`"),
        ("sqlite://", "`sqlite://`"),
        ("", "sqlite://PATH"),
    ] {
        let line = refusal(uri);
        assert!(line.contains(said), "{line}");
    }
}

#[tokio::test]
async fn failed_start_does_not_prevent_another_one() {
    let file = CounterFile::new();
    fs::create_dir(file.path()).unwrap();
    for _ in 0..20 {
        assert!(file.builder().start().await.is_err());
    }
    fs::remove_dir(file.path()).unwrap();
    let collector = file.builder().start().await.unwrap();
    collector.increment("c", "a", 1);
    assert!(collector.shutdown().await.is_complete());
    assert_eq!(file.counters("c"), counters(&[("a", 1)]));
}
