//! Shows G24.
//!
//! Start, stop and kill of a server: what was acknowledged is stored once.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::Server;
use crate::harness::Sandbox;

#[test]
fn stop_loses_no_request() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox, &["--set", "server.drain=500ms"]);
    let (counted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let url = server.url("/api/v1/counters/web/a");
    let took = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (counted, stop, url) = (&counted, &stop, &url);
                scope.spawn(move || {
                    let agent: ureq::Agent =
                        ureq::Agent::config_builder().http_status_as_error(false).build().into();
                    while !stop.load(Ordering::Relaxed) {
                        match agent.post(url).send_empty() {
                            Ok(answer) if answer.status() == 200 => counted.fetch_add(1, Ordering::Relaxed),
                            Ok(answer) => panic!("{}", answer.status()),
                            // It does not listen any more.
                            Err(_) => return,
                        };
                    }
                })
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while counted.load(Ordering::Relaxed) < 50 {
            assert!(Instant::now() < deadline, "nothing is counted");
            thread::yield_now();
        }
        server.child.terminate().unwrap();
        let began = Instant::now();
        let mut unready = false;
        while let Ok(answer) =
            ureq::get(server.url("/readyz")).config().http_status_as_error(false).build().call()
        {
            unready |= answer.status() == 503;
        }
        assert!(unready, "a balancer was told");
        let status = server.child.wait_at_most(Duration::from_secs(30)).unwrap();
        let took = began.elapsed();
        assert!(status.success(), "{status}");
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        took
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
    let stored = sandbox.run(&["get", "web", "a"]).expect(0).out.trim().parse::<u64>().unwrap();
    assert_eq!(stored, counted.load(Ordering::Relaxed));
}

#[test]
fn acknowledged_counts_survive_kills() {
    let sandbox = Sandbox::new();
    let (acknowledged, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut port = None;
    for round in 0..5 {
        let mut server = match port.take() {
            None => Server::start(&sandbox, &["--set", "flush.interval=50ms"]),
            Some(port) => Server::start_on(&sandbox, port, &["--set", "flush.interval=50ms"]),
        };
        let before = acknowledged.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let url = server.url("/api/v1/increments");
            for _ in 0..4 {
                let (acknowledged, sent, url) = (&acknowledged, &sent, url.clone());
                scope.spawn(move || {
                    let body = "{\"collection\":\"web\",\"metric\":\"a\"}\n".repeat(10);
                    loop {
                        sent.fetch_add(10, Ordering::Relaxed);
                        let answer = ureq::post(&url)
                            .header("content-type", "application/x-ndjson")
                            .send(body.as_str());
                        if answer.is_err() {
                            return;
                        }
                        acknowledged.fetch_add(10, Ordering::Relaxed);
                    }
                });
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while acknowledged.load(Ordering::Relaxed) < before + 300 {
                assert!(Instant::now() < deadline, "round {round}: nothing is acknowledged");
                thread::yield_now();
            }
            server.child.kill().unwrap();
        });
        let Server { port: free, .. } = server;
        port = Some(free);
    }
    let server = Server::start(&sandbox, &[]);
    let stored = server.counters("web")["a"].as_u64().unwrap();
    let (acknowledged, sent) = (acknowledged.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
    assert!((acknowledged..=sent).contains(&stored), "{acknowledged} <= {stored} <= {sent}");
    let stats = server.get("/stats").json(200);
    let sum = ["applied", "pending", "quarantined", "dropped"]
        .iter()
        .map(|key| stats[*key].as_u64().unwrap())
        .sum::<u64>();
    assert_eq!(stats["accepted"], json!(sum));
}
