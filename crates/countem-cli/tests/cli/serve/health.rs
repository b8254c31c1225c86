//! `countem health`, and a start in Kubernetes.

use super::Server;
use crate::harness::{Sandbox, eventually};

#[test]
fn health_is_that_of_readyz() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox, &["--set", "server.drain=1m"]);
    // As the image asks: of the server that has the same configuration.
    for host in ["127.0.0.1", "0.0.0.0"] {
        let listen = format!("{host}:{}", server.port.number());
        let healthy = sandbox.run_in("", Some(("COUNTEM__SERVER__LISTEN", &listen)), &["health"]).expect(0);
        assert_eq!(healthy.out, "ok\n");
    }
    let address = format!("localhost:{}", server.port.number());
    server.child.terminate().unwrap();
    eventually(&1, || sandbox.run(&["health", &address]).code);
    let unready = sandbox.run(&["health", &address]).expect(1);
    assert!(unready.err.contains("503") && unready.err.contains("stopping"), "{}", unready.err);
    sandbox.run(&["health", &format!("http://{address}/healthz"), "-q"]).expect(0);
    // A second signal ends the drain.
    server.child.terminate().unwrap();
    server.child.wait().unwrap();
    let none = sandbox.run(&["health", &address]).expect(1);
    assert!(none.err.contains("no answer from"), "{}", none.err);
}

#[test]
fn links_of_services_do_not_stop_the_start() {
    let sandbox = Sandbox::new();
    let link = ("COUNTEM_PORT", "tcp://10.96.0.7:7070");
    sandbox.run_in("", Some(link), &["config"]).expect(0);
    let typo = sandbox.run_in("", Some(("COUNTEM_PORT", "7071")), &["serve"]).expect(2);
    assert!(typo.err.contains("`server.listen` is `COUNTEM__SERVER__LISTEN`"), "{}", typo.err);
}
