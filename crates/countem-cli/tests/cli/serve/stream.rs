//! Event streams.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Server;
use crate::harness::Sandbox;

/// An open stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: &Server, query: &str, headers: &str) -> Self {
        let request = format!(
            "GET /api/v1/stream{query} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip, br\r\n{headers}\r\n"
        );
        Self(BufReader::new(server.connect(&request)))
    }

    /// Returns id and data of the next event.
    fn next(&mut self) -> (String, Value) {
        let (mut id, mut data) = (String::new(), None);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).unwrap());
            } else if let Some(data) = data.take() {
                return (id, data);
            }
        }
    }
}

#[test]
fn change_is_seen_within_seconds() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    server.post("/counters/web/a?n=5");
    let mut stream = Stream::open(&server, "?collection=web&metric=a*", "");
    assert_eq!(stream.next().1["counters"], json!({"a": 5}));
    let began = Instant::now();
    server.post("/counters/web/a");
    server.post("/counters/web/b");
    server.post("/counters/other/a");
    let (id, event) = stream.next();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((&event["collection"], &event["counters"]), (&json!("web"), &json!({"a": 6})));
    drop(stream);
    // What changed while the stream was away comes as values; what did not change does not come.
    server.post("/counters/web/ab?n=2");
    let mut stream = Stream::open(&server, "?collection=web&metric=a*", &format!("last-event-id: {id}\r\n"));
    let (_, event) = stream.next();
    assert_eq!(event["counters"]["ab"], 2);
}

#[test]
fn stream_ends_when_the_server_stops() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox, &[]);
    server.post("/counters/web/a");
    let mut stream = Stream::open(&server, "", "");
    stream.next();
    let began = Instant::now();
    server.child.terminate().unwrap();
    let status = server.child.wait_at_most(Duration::from_secs(20)).unwrap();
    assert!(status.success() && began.elapsed() < Duration::from_secs(10), "{status} {:?}", began.elapsed());
}

#[test]
fn streams_are_limited() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--set", "server.max_streams=1"]);
    server.post("/counters/web/a");
    let mut first = Stream::open(&server, "", "");
    first.next();
    assert_eq!(server.get("/stream").code(503), "busy");
}
