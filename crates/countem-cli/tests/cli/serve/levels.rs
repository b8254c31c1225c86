//! Shows G24.
//!
//! Answers of every level, and kills of the server.

use serde_json::json;

use super::Server;
use crate::harness::Sandbox;

#[test]
fn journal_and_store_survive_kills_at_once() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox, &[]);
    let mut acknowledged = 0;
    for round in 1..=5 {
        for n in 1..=20 {
            let guarantee = if n % 2 == 0 { "journal" } else { "store" };
            let answer = server.post(&format!("/counters/web/GET?n={n}&guarantee={guarantee}")).json(200);
            assert_eq!(answer["guarantee"], guarantee);
            acknowledged += n;
        }
        server.child.kill().unwrap();
        let Server { port, .. } = server;
        server = Server::start_on(&sandbox, port, &[]);
        assert_eq!(server.counters("web"), json!({ "GET": acknowledged }), "kill {round}");
    }
    assert_eq!(server.post("/flush").status, 204);
    assert_eq!(sandbox.total("web"), acknowledged);
}

#[test]
fn without_journal_only_store_is_promised() {
    let sandbox = Sandbox::new();
    let memory = ["--set", "durability.level=memory", "--set", "flush.interval=1h"];
    let mut server = Server::start(&sandbox, &memory);
    assert_eq!(server.post("/counters/web/kept?guarantee=store").json(200)["guarantee"], "store");
    assert_eq!(server.post("/counters/web/lost").json(200)["guarantee"], "memory");
    server.post("/counters/web/refused?guarantee=journal").code(422);
    server.child.kill().unwrap();
    let Server { port, .. } = server;
    let server = Server::start_on(&sandbox, port, &memory);
    assert_eq!(server.counters("web"), json!({ "kept": 1 }));
}
