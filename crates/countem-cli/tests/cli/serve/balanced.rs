//! Shows G25.
//!
//! Several nodes of one store behind HAProxy.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use countem_testkit::{Child, Port, ReplicaSet, command, in_own_database, require_mongod, require_tool};

use super::Server;
use crate::harness::Sandbox;

const CLIENTS: usize = 6;

/// HAProxy in front of servers; it ends with the guard.
struct Balancer {
    port: Port,
    _child: Child,
}

impl Balancer {
    fn start(sandbox: &Sandbox, servers: &[u16]) -> Self {
        let port = Port::reserve().unwrap();
        let servers: String = servers
            .iter()
            .map(|server| {
                format!("    server s{server} 127.0.0.1:{server} check inter 100ms fall 1 rise 1\n")
            })
            .collect();
        let config = format!(
            "defaults\n    mode http\n    timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n    \
             timeout check 10s\n    option redispatch\n    retry-on conn-failure\n    retries 5\n\
             listen api\n    bind 127.0.0.1:{}\n    option httpchk GET /readyz\n    http-check expect status 200\n{servers}",
            port.number(),
        );
        sandbox.write("haproxy.cfg", config);
        let mut haproxy = command("haproxy");
        haproxy.args(["-q", "-f"]).arg(sandbox.path("haproxy.cfg"));
        Self { port, _child: Child::spawn(haproxy).unwrap() }
    }
}

#[test]
fn rolling_restart_fails_no_request() {
    if !require_mongod() || !require_tool("haproxy", "HAProxy, Debian package `haproxy`") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let set = runtime.block_on(ReplicaSet::start(3)).unwrap();
    let uri = in_own_database(&set.uri());
    let args = ["--store", &uri, "--set", "server.drain=1s", "--set", "flush.interval=200ms"];
    let sandboxes = [Sandbox::new(), Sandbox::new(), Sandbox::new()];
    let mut nodes: Vec<_> = sandboxes.iter().map(|sandbox| Some(Server::start(sandbox, &args))).collect();
    let ports: Vec<_> = nodes.iter().flatten().map(|node| node.port.number()).collect();
    let balancer = Balancer::start(&sandboxes[0], &ports);
    let url = format!("http://127.0.0.1:{}/api/v1/counters/web/a", balancer.port.number());
    let (counted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let post = || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        while !stop.load(Ordering::Relaxed) {
            let answer = agent.post(&url).send_empty().unwrap();
            assert_eq!(answer.status(), 200);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    // HAProxy has seen all of them before the load begins.
    let deadline = Instant::now() + Duration::from_secs(30);
    while ureq::post(&url).send_empty().map(|_| counted.fetch_add(1, Ordering::Relaxed)).is_err() {
        assert!(Instant::now() < deadline, "HAProxy finds no server");
    }
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(post)).collect();
        for (sandbox, node) in sandboxes.iter().zip(&mut nodes) {
            let before = counted.load(Ordering::Relaxed);
            let Server { mut child, port, .. } = node.take().unwrap();
            child.terminate().unwrap();
            let status = child.wait_at_most(Duration::from_secs(60)).unwrap();
            assert!(status.success(), "{status}");
            *node = Some(Server::start_on(sandbox, port, &args));
            let deadline = Instant::now() + Duration::from_secs(30);
            while counted.load(Ordering::Relaxed) < before + 200 {
                assert!(Instant::now() < deadline, "nothing is counted any more");
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let node = nodes[0].as_ref().unwrap();
    for other in nodes.iter().flatten() {
        assert_eq!(other.post("/flush").status, 204);
    }
    assert_eq!(node.counters("web")["a"], counted.load(Ordering::Relaxed));
}
