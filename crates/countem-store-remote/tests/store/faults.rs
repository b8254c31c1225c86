//! Calls that fail, and what is known after them.

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use countem_core::{Batch, BatchId, CollectionName, Table, Writer};
use countem_store::{ErrorKind, RowQuery, Store, StoreError};
use countem_store_remote::{RemoteConfig, RemoteStore};

use crate::server::{Server, http};

fn store(host: &str) -> RemoteStore {
    let timeout = Duration::from_millis(300);
    RemoteStore::connect(&RemoteConfig { timeout, ..RemoteConfig::new(host) }).unwrap()
}

fn batch(metrics: usize) -> Arc<Batch> {
    let mut table = Table::new();
    for metric in 0..metrics {
        table.fold("web", &format!("metric {metric}"), "2026-11-20".parse().unwrap(), 1).unwrap();
    }
    Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 }, table.drain()))
}

fn query() -> RowQuery {
    RowQuery::bucket(CollectionName::new("web").unwrap(), "2026-11-20".parse().unwrap())
}

/// Returns what a change and a read report, and the number of requests of each.
async fn outcomes(server: &Server) -> (StoreError, usize, StoreError, usize) {
    let store = store(&server.host);
    let change = store.apply(&batch(1)).await.unwrap_err();
    let changes = server.requests();
    let read = store.read(&query(), None).await.unwrap_err();
    (change, changes, read, server.requests() - changes)
}

#[tokio::test]
async fn closed_connection_leaves_a_batch_in_doubt() {
    let (change, changes, read, reads) = outcomes(&Server::answering("")).await;
    assert_eq!((change.kind(), changes), (ErrorKind::InDoubt, 1), "it is not sent twice: {change}");
    assert_eq!((read.kind(), reads), (ErrorKind::NotApplied, 2), "a read may be repeated: {read}");
}

#[tokio::test]
async fn read_survives_a_connection_that_was_closed() {
    // One request is answered; the next one on the same connection ends it.
    let applied = http("200 OK", "application/json", r#"{"quarantined":[]}"#);
    let rows = http("200 OK", "application/x-ndjson", "{\"end\":0}\n");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |stream| {
        use std::{io::Write, sync::atomic::Ordering};
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => stream.write_all(applied.as_bytes()).ok(),
            1 => None,
            _ => stream.write_all(rows.as_bytes()).ok(),
        }
    });
    let store = store(&server.host);
    store.apply(&batch(1)).await.unwrap();
    assert!(store.read(&query(), None).await.unwrap().is_empty());
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn refused_connection_stores_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = store(&closed.to_string());
    let error = store.apply(&batch(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotApplied, "{error}");
    assert!(error.to_string().starts_with(&format!("cannot send to `countem://{closed}`")), "{error}");
}

#[tokio::test]
async fn request_that_was_cut_stores_nothing() {
    // Nothing is read of a batch that is larger than the buffers between the two.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = store(&listener.local_addr().unwrap().to_string());
    let silent = thread::spawn(move || listener.accept().unwrap());
    let error = store.apply(&batch(200_000)).await.unwrap_err();
    drop(silent.join().unwrap());
    assert_eq!(error.kind(), ErrorKind::NotApplied, "{error}");
}

#[tokio::test]
async fn silent_server_is_given_up() {
    let server = Server::start(|_| {
        thread::sleep(Duration::from_secs(2));
        None
    });
    let (change, _, read, reads) = outcomes(&server).await;
    assert_eq!(change.kind(), ErrorKind::InDoubt, "{change}");
    assert_eq!((read.kind(), reads), (ErrorKind::NotApplied, 1), "a timeout is not repeated: {read}");
}

#[tokio::test]
async fn foreign_answer_is_named_as_one() {
    let page = |status| Server::answering(http(status, "text/html", "<html>"));
    let (change, _, read, _) = outcomes(&page("502 Bad Gateway")).await;
    assert_eq!((change.kind(), read.kind()), (ErrorKind::InDoubt, ErrorKind::NotApplied));
    assert!(change.to_string().ends_with("answers with status 502, and not as a countem"), "{change}");
    let (change, _, read, _) = outcomes(&page("404 Not Found")).await;
    assert_eq!((change.kind(), read.kind()), (ErrorKind::Refused, ErrorKind::Refused));
    let (change, _, read, _) = outcomes(&page("200 OK")).await;
    assert_eq!((change.kind(), read.kind()), (ErrorKind::InDoubt, ErrorKind::Refused));
    assert!(read.to_string().contains("cannot be read"), "{read}");
}

#[tokio::test]
async fn refused_token_is_told_in_its_words() {
    let body = r#"{"code":"unauthorized","title":"No token","status":401,"detail":"the token has expired"}"#;
    let server = Server::answering(http("401 Unauthorized", "application/problem+json", body));
    let (change, _, read, _) = outcomes(&server).await;
    assert_eq!((change.kind(), read.kind()), (ErrorKind::Refused, ErrorKind::Refused));
    assert_eq!(change.to_string(), format!("`countem://{}` refuses: the token has expired", server.host));
}

#[tokio::test]
async fn endless_answer_is_refused() {
    let server = Server::start(|stream| {
        use std::io::Write;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
        // One line without an end.
        while stream.write_all(&[b'{'; 4096]).is_ok() {}
        None
    });
    let error = store(&server.host).read(&query(), None).await.unwrap_err();
    assert!(error.to_string().contains("a line has more than"), "{error}");
}
