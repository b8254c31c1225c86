//! Shows G26.
//!
//! Idempotency keys: a request is counted once, however often it is sent, whichever node gets it, and whatever is killed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use countem_testkit::{Port, ReplicaSet, in_own_database, require_mongod};
use serde_json::json;

use super::{Answer, Server};
use crate::harness::Sandbox;

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn keyed(server: &Server, key: &str, path: &str, body: &str) -> Answer {
    server.call("POST", path, &[("idempotency-key", key), LINES], body.as_bytes())
}

fn line(metric: &str) -> String {
    format!("{{\"collection\":\"web\",\"metric\":\"{metric}\"}}\n")
}

#[test]
fn request_counts_once_under_its_key() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for _ in 0..3 {
        assert_eq!(
            keyed(&server, "k1", "/counters/web/a?n=5", "").json(200),
            json!({"accepted": 1, "guarantee": "journal"})
        );
        assert_eq!(keyed(&server, "k2", "/increments", &(line("b") + &line("c"))).json(200)["accepted"], 2);
    }
    assert_eq!(server.counters("web"), json!({"a": 5, "b": 1, "c": 1}));
    // Another request under the same key: another amount, path or body.
    assert_eq!(keyed(&server, "k1", "/counters/web/a?n=6", "").code(422), "key_reused");
    assert_eq!(keyed(&server, "k1", "/counters/web/z?n=5", "").code(422), "key_reused");
    assert_eq!(keyed(&server, "k2", "/increments", &line("b")).code(422), "key_reused");
    assert_eq!(server.counters("web"), json!({"a": 5, "b": 1, "c": 1}));
}

#[test]
fn refused_request_leaves_its_key_free() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(keyed(&server, "k", "/increments", "{").code(422), "nothing_accepted");
    assert_eq!(keyed(&server, "k", "/increments", &(line("a") + "{}")).status, 422, "all or none");
    assert_eq!(keyed(&server, "k", "/counters/web/a?at=2001-01-01T00:00:00Z", "").code(400), "bad_time");
    assert_eq!(keyed(&server, "k", "/increments", &line("a")).status, 200);
    assert_eq!(server.counters("web"), json!({"a": 1}));
}

#[test]
fn key_has_one_spelling() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for key in ["abc", "\"abc\"", " abc "] {
        assert_eq!(keyed(&server, key, "/counters/web/a", "").status, 200, "{key:?}");
    }
    assert_eq!(server.counters("web"), json!({"a": 1}));
    let long = "x".repeat(256);
    for key in ["", "\"\"", long.as_str()] {
        assert_eq!(keyed(&server, key, "/counters/web/a", "").code(400), "bad_key", "{key:?}");
    }
    assert_eq!(keyed(&server, &long[1..], "/counters/web/b", "").status, 200);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(server.call("POST", "/counters/web/a", &twice, &[]).code(400), "bad_key");
}

#[test]
fn key_belongs_to_its_token() {
    let sandbox = Sandbox::new();
    let token = || {
        let ran = sandbox.run(&["token", "new", "a", "--role", "write,read", "--tokens", "t.json"]).expect(0);
        format!("Bearer {}", ran.out.trim())
    };
    let tokens = [token(), token()];
    let server = Server::start(&sandbox, &["--set", "server.tokens=t.json"]);
    for token in [&tokens[0], &tokens[1], &tokens[0]] {
        let headers = [("idempotency-key", "1"), ("authorization", token.as_str())];
        assert_eq!(server.call("POST", "/counters/web/x", &headers, &[]).status, 200);
    }
    let read = server.call("GET", "/counters/web/x", &[("authorization", tokens[0].as_str())], &[]);
    assert_eq!(read.json(200)["value"], 2);
}

/// Kills two nodes of one store in turns, while clients send each request to one or the other until it is answered.
fn kill_under_load(sandboxes: &[Sandbox; 2], args: &[&str], kills: usize) {
    const BATCH: u64 = 3;
    let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
    let urls = ports.each_ref().map(|port| format!("http://127.0.0.1:{}/api/v1/increments", port.number()));
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let body = line("a").repeat(usize::try_from(BATCH).unwrap());
    let mut nodes: Vec<_> =
        sandboxes.iter().zip(ports).map(|(sandbox, port)| Server::start_on(sandbox, port, args)).collect();
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..4_usize {
            let (acknowledged, stop, urls, body, lost) = (&acknowledged, &stop, &urls, &body, &lost);
            scope.spawn(move || {
                let config = ureq::Agent::config_builder()
                    .http_status_as_error(false)
                    .timeout_global(Some(Duration::from_secs(5)));
                let agent: ureq::Agent = config.build().into();
                let mut request = 0;
                while !stop.load(Ordering::Relaxed) {
                    request += 1;
                    let key = format!("{client}-{request}");
                    let deadline = Instant::now() + Duration::from_secs(60);
                    let mut attempt = client;
                    loop {
                        attempt += 1;
                        let post = agent
                            .post(&urls[attempt % 2])
                            .header("idempotency-key", &key)
                            .header(LINES.0, LINES.1);
                        match post.send(body.as_str()) {
                            Ok(answer) if answer.status() == 200 => break,
                            Ok(answer) if [409, 503, 504].contains(&answer.status().as_u16()) => {}
                            Ok(answer) => {
                                return lost.lock().unwrap().push(format!("{key}: {}", answer.status()));
                            }
                            Err(_) => {}
                        }
                        if Instant::now() > deadline {
                            return lost.lock().unwrap().push(format!("{key}: no answer"));
                        }
                    }
                    acknowledged.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
        for kill in 0..kills {
            let before = acknowledged.load(Ordering::Relaxed);
            let deadline = Instant::now() + Duration::from_secs(60);
            while acknowledged.load(Ordering::Relaxed) < before + 60 && lost.lock().unwrap().is_empty() {
                assert!(Instant::now() < deadline, "nothing is acknowledged");
                thread::yield_now();
            }
            let at = kill % 2;
            let Server { mut child, port, .. } = nodes.remove(at);
            child.kill().unwrap();
            nodes.insert(at, Server::start_on(&sandboxes[at], port, args));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(*lost.lock().unwrap(), Vec::<String>::new());
    for node in &nodes {
        assert_eq!(node.post("/flush").status, 204);
    }
    assert_eq!(nodes[0].counters("web")["a"], acknowledged.load(Ordering::Relaxed));
}

fn kills() -> usize {
    std::env::var("COUNTEM_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

#[test]
fn keys_survive_kills_on_sqlite() {
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    let store = format!("sqlite://{}", sandboxes[0].path("shared.db").display());
    kill_under_load(&sandboxes, &["--store", &store, "--set", "flush.interval=50ms"], kills());
}

#[test]
fn keys_survive_kills_on_a_replica_set() {
    if !require_mongod() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let set = runtime.block_on(ReplicaSet::start(3)).unwrap();
    let store = in_own_database(&set.uri());
    kill_under_load(
        &[Sandbox::new(), Sandbox::new()],
        &["--store", &store, "--set", "flush.interval=50ms"],
        kills(),
    );
}

#[test]
fn journal_of_a_dead_node_is_adopted() {
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    let store = format!("sqlite://{}", sandboxes[0].path("shared.db").display());
    let args = ["--store", &store, "--set", "flush.interval=1h"];
    let mut server = Server::start(&sandboxes[0], &args);
    assert_eq!(server.post("/counters/web/a?n=5").json(200)["guarantee"], "journal");
    assert_eq!(keyed(&server, "k", "/counters/web/b", "").status, 200);
    let journal = sandboxes[0].path("countem-journal").display().to_string();
    let adopt = || sandboxes[1].run(&["adopt", &journal, "--store", &store]);
    assert!(adopt().expect(1).err.contains("is in use"), "the node is alive");
    server.child.kill().unwrap();
    for _ in 0..2 {
        adopt().expect(0);
        let stored = sandboxes[1].run(&["get", "web", "--store", &store, "-o", "json"]).expect(0).json();
        assert_eq!(stored["counters"], json!({"a": 5, "b": 1}));
    }
    assert_eq!(sandboxes[1].run(&["adopt", "nowhere", "--store", &store]).code, 3);
}
