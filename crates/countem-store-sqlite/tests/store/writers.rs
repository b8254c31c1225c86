//! The register of writers: copied journals are noticed, and forgotten writers are known as such for ever.

use countem_core::Writer;
use countem_store::{Registration, Store};
use countem_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};

use crate::support::*;

#[tokio::test]
async fn copied_journal_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (original, copy) = (open(folder.path()), open(folder.path()));
    let (here, there) =
        (|epoch| Writer::incarnation(0xabc, epoch, 1), |epoch| Writer::incarnation(0xabc, epoch, 2));
    let register = async |store: &SqliteStore, writer| store.register(&writer).await.unwrap();
    assert_eq!(register(&original, here(7)).await, Registration::Fresh);
    assert_eq!(register(&original, here(7)).await, Registration::Fresh, "registering again is harmless");
    assert_eq!(register(&copy, there(7)).await, Registration::Cloned, "both start with the same epoch");
    assert_eq!(register(&original, here(9)).await, Registration::Fresh);
    assert_eq!(register(&copy, there(8)).await, Registration::Cloned, "the other is ahead");
    assert_eq!(register(&copy, there(10)).await, Registration::Fresh);
    assert_eq!(register(&original, here(9)).await, Registration::Cloned, "the copy has taken over");
    assert_eq!(register(&copy, Writer::incarnation(0xdef, 1, 1)).await, Registration::Fresh, "another node");
}

#[tokio::test]
async fn forgotten_writer_is_known_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (forgotten, next) = (Writer::incarnation(0xabc, 3, 1), Writer::incarnation(0xabc, 4, 2));
    store.register(&forgotten).await.unwrap();
    store.apply(&batch(&forgotten, 1, &[("m", 1)])).await.unwrap();
    assert!(store.remembers(&forgotten).await.unwrap());
    store.forget(&forgotten).await.unwrap();
    store.register(&next).await.unwrap();
    assert!(!store.remembers(&forgotten).await.unwrap());
    assert!(
        !store.remembers(&Writer::incarnation(0xabc, 2, 9)).await.unwrap(),
        "an earlier start of the node"
    );
    assert!(store.remembers(&next).await.unwrap());
    assert!(store.remembers(&Writer::incarnation(0xdef, 1, 1)).await.unwrap());
}

#[tokio::test]
async fn two_thousand_writers_without_journal_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing is asked of a power cut here.
    let config = SqliteConfig { synchronous: Synchronous::Normal, ..SqliteConfig::new(file(folder.path())) };
    let store = SqliteStore::open(config).unwrap();
    for node in 0..2000 {
        let writer = Writer::new(node, 1);
        store.apply(&batch(&writer, 1, &[("m", 1)])).await.unwrap();
        store.forget(&writer).await.unwrap();
    }
    drop(store);
    let file = rusqlite::Connection::open(file(folder.path())).unwrap();
    let number = |sql| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("SELECT sum(value) FROM counter"), 2000);
    assert_eq!(number("SELECT (SELECT count(*) FROM applied) + (SELECT count(*) FROM register)"), 0);
}

/// Lets retired writers grow older.
fn age(folder: &std::path::Path, hours: i64) {
    let file = rusqlite::Connection::open(file(folder)).unwrap();
    file.execute("UPDATE retired SET at = at - ?1", [hours * 3600 * 1000]).unwrap();
}

fn rows(folder: &std::path::Path, table: &str) -> i64 {
    let file = rusqlite::Connection::open(file(folder)).unwrap();
    file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn thousand_killed_starts_leave_rows_of_two_days() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing is asked of a power cut here.
    let config = SqliteConfig { synchronous: Synchronous::Normal, ..SqliteConfig::new(file(folder.path())) };
    let mut max = 0;
    for start in 1..=1000 {
        let store = SqliteStore::open(config.clone()).unwrap();
        let writer = Writer::incarnation(7, start.into(), start);
        assert_eq!(store.register(&writer).await.unwrap(), Registration::Fresh);
        store.retire_predecessors(&writer).await.unwrap();
        store.apply(&batch(&writer, 1, &[("m", 1)])).await.unwrap();
        drop(store);
        if start % 10 == 0 {
            age(folder.path(), 6);
            max = max.max(rows(folder.path(), "applied"));
        }
    }
    assert!((80..=100).contains(&max), "{max} rows, and 80 starts in two days");
    let (file, read) =
        (rusqlite::Connection::open(file(folder.path())).unwrap(), "SELECT sum(value) FROM counter");
    assert_eq!(file.query_row(read, [], |row| row.get::<_, i64>(0)).unwrap(), 1000);
    assert_eq!(rows(folder.path(), "register"), 1);
}

#[tokio::test]
async fn writer_that_was_in_doubt_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, in_doubt) = (open(folder.path()), Writer::new(1, 1));
    store.apply(&batch(&in_doubt, 1, &[("m", 1)])).await.unwrap();
    store.retire(&in_doubt).await.unwrap();
    store.retire(&Writer::new(2, 1)).await.unwrap();
    assert_eq!(rows(folder.path(), "retired"), 1, "of the other nothing is known");
    age(folder.path(), 49);
    store.retire(&Writer::new(3, 1)).await.unwrap();
    assert_eq!((rows(folder.path(), "applied"), rows(folder.path(), "retired")), (0, 0));
}

#[tokio::test]
async fn late_batch_of_a_pruned_writer_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [1, 2].map(|start| Writer::incarnation(7, start.into(), start));
    let store = open(folder.path());
    let late = batch(&first, 1, &[("m", 1), ("n", 2)]);
    store.register(&first).await.unwrap();
    store.apply(&late).await.unwrap();
    store.register(&second).await.unwrap();
    store.retire_predecessors(&second).await.unwrap();
    assert_eq!(store.apply(&late).await.unwrap().quarantined, [], "it is recognised");
    drop(store);
    age(folder.path(), 49);

    // The process that has sent it was cut off, or an old backup of its journal is started.
    let store = open(folder.path());
    store.register(&second).await.unwrap();
    assert!(!store.remembers(&first).await.unwrap());
    for _ in 0..2 {
        let quarantined = store.apply(&late).await.unwrap().quarantined;
        assert_eq!(quarantined.len(), 2);
        assert!(quarantined[0].reason.contains("added and forgotten"), "{}", quarantined[0].reason);
        assert_eq!(store.quarantined().await.unwrap().len(), 2, "no journal keeps it");
    }
    assert_eq!(counters(&store).await, expected(&[("m", 1), ("n", 2)]));
    assert_eq!(rows(folder.path(), "applied"), 0);
}
