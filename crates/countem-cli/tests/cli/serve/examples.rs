//! The examples in other languages do what their comments say.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::json;

use super::Server;
use crate::harness::{BINARY, Sandbox};

/// The root folder of the workspace.
pub(super) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Tells whether a program runs. One that CI installs fails the test where it is missing.
pub(super) fn has(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program).args(args).output();
    let is_there = ran.is_ok_and(|ran| ran.status.success());
    if !is_there {
        eprintln!("SKIPPED: `{program} {}` fails on this machine", args.join(" "));
        let is_installed = ["curl", "python3"].contains(&program) && args == ["--version"];
        assert!(!is_installed || std::env::var_os("CI").is_none(), "{program} has to be installed");
    }
    is_there
}

/// Runs an example against a server, and returns its output.
#[track_caller]
fn run(program: &str, example: &str, server: &Server) -> String {
    let path = workspace().join("examples/http").join(example);
    let ran = Command::new(program).arg(path).arg(server.url("")).output().unwrap();
    let error = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{example}: {}: {error}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn curl_counts_and_reads() {
    if !has("curl", &["--version"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let said = run("sh", "count.sh", &server);
    let expected =
        json!({ "GET /cart": 1, "cart.add": 5, "order": 3, r#"revenue.cents{country="DE"}"#: 1999 });
    assert_eq!(server.counters("shop"), expected);
    assert_eq!(said.matches(r#""guarantee":"journal""#).count(), 4, "{said}");
    assert!(said.contains(",order,3,"), "{said}");
}

#[test]
fn python_counts_and_reads() {
    if !has("python3", &["--version"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let said = run("python3", "count.py", &server);
    let expected = json!({ "GET /cart": 1, r#"order{country="DE"}"#: 1, r#"order{country="ES"}"#: 2 });
    assert_eq!(server.counters("shop"), expected);
    assert!(said.starts_with("2 accepted, safe in the journal\nitem 2 rejected: "), "{said}");
    assert!(said.ends_with("order{country=\"DE\"} 1\norder{country=\"ES\"} 2\n"), "{said}");
}

#[test]
fn pandas_reads_exact_integers() {
    if !has("python3", &["-c", "import pandas"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    server.post("/counters/shop/bytes?n=9007199254740993").json(200);
    let said = run("python3", "frame.py", &server);
    assert!(said.ends_with("sum 9007199254740993 int64\n"), "{said}");
}

#[test]
fn node_counts_and_reads() {
    if !has("node", &["--version"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let said = run("node", "count.mjs", &server);
    let expected = json!({ "GET /cart": 1, "bytes": 9_007_199_254_740_993_i64, r#"order{country="DE"}"#: 1 });
    assert_eq!(server.counters("shop"), expected);
    assert!(said.contains("bytes 9007199254740993n"), "{said}");
}

#[test]
fn shell_loop_counts_lines() {
    let sandbox = Sandbox::new();
    let store = format!("sqlite://{}", sandbox.path("loop.db").display());
    let mut example = Command::new("sh");
    example
        .arg(workspace().join("examples/http/loop.sh"))
        .env("COUNTEM", BINARY)
        .env("COUNTEM_STORE", &store);
    let mut child = example.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"mail sent\nmail sent\nmail bounced\n").unwrap();
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success());
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(said.contains("mail.bounced") && said.contains("mail.sent"), "{said}");
    let stored = sandbox.run(&["get", "jobs", "-o", "json", "--store", &store]).expect(0).json();
    assert_eq!(stored["counters"], json!({ "mail.bounced": 1, "mail.sent": 2 }));
}
