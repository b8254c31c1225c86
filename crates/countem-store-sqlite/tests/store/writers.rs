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
