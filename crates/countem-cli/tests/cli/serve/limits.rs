//! Limits of requests hold before anything is allocated, and the others do not notice.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use super::Server;
use crate::harness::Sandbox;

const LINES: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

#[test]
fn large_bodies_are_refused() {
    let sandbox = Sandbox::new();
    let server =
        Server::start(&sandbox, &["--set", "server.max_body=100000", "--set", "server.max_items=500"]);
    // Announced, and never sent.
    let answer = server.raw(
        "POST /api/v1/increments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         content-length: 1000000000\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    // Sent without an end.
    let mut connection = server.connect(
        "POST /api/v1/increments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, " ".repeat(50_000));
    for _ in 0..3 {
        connection.write_all(chunk.as_bytes()).ok();
    }
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 50_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let headers = [LINES[0], ("content-encoding", "gzip")];
    assert_eq!(server.call("POST", "/increments", &headers, &bomb).code(413), "body_too_large");
    let many = "{\"collection\":\"w\",\"metric\":\"m\"}\n".repeat(501);
    assert_eq!(server.post_lines("/increments", &many).code(413), "too_many_items");
    let many = format!("[{}]", vec!["{\"collection\":\"w\",\"metric\":\"m\"}"; 501].join(","));
    let json_body = [("content-type", "application/json")];
    assert_eq!(server.call("POST", "/increments", &json_body, many.as_bytes()).code(413), "too_many_items");
    assert_eq!(server.get("/counters").json(200)["collections"], json!({}));
}

#[test]
fn slow_senders_are_cut_off() {
    let sandbox = Sandbox::new();
    let server = Server::start(
        &sandbox,
        &["--set", "server.head_timeout=300ms", "--set", "server.body_timeout=300ms"],
    );
    let began = Instant::now();
    let answer = server.raw("GET /api/v1/stats HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = server.raw(
        "POST /api/v1/increments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         content-length: 100\r\nconnection: close\r\n\r\n{",
    );
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn bodies_share_a_room() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--set", "server.max_bodies=2048"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let post = || server.post_lines("/increments", "{\"collection\":\"w\",\"metric\":\"m\"}");
    // One of the small bodies may be in the way of the large one, which is refused then.
    let mut first = loop {
        let mut first = server.connect(
            "POST /api/v1/increments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
             content-length: 2000\r\n\r\n",
        );
        first.write_all(" ".repeat(1900).as_bytes()).unwrap();
        if let Some(refused) = (0..100).map(|_| post()).find(|answer| answer.status == 503) {
            assert_eq!(refused.code(503), "busy");
            assert_eq!(refused.headers["retry-after"], "1");
            break first;
        }
        assert!(Instant::now() < deadline, "there is room for ever");
    };
    first.write_all(" ".repeat(100).as_bytes()).unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(server.post_lines("/increments", "{\"collection\":\"w\",\"metric\":\"m\"}").status, 200);
}

#[test]
fn rate_of_an_address_is_limited() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--set", "server.rate=5"]);
    let statuses: Vec<_> = (0..50).map(|_| server.post("/counters/web/a").status).collect();
    let (counted, limited) =
        (statuses.iter().filter(|status| **status == 200).count(), statuses.contains(&429));
    assert!(limited && counted >= 5, "{statuses:?}");
    assert_eq!(server.get("//healthz").status, 200, "health is not limited");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = server.get("/counters/web");
        if answer.status == 200 {
            assert_eq!(answer.json(200)["counters"]["a"], counted);
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn idle_connections_hold_up_no_one() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let idle: Vec<_> = (0..300).map(|_| server.connect("GET /api/v1/st")).collect();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.post("/counters/web/a").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(idle);
}
