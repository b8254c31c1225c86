//! The API does what its description says.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use countem_testkit::require_tool;

use super::Server;
use crate::harness::Sandbox;

/// Checks of schemathesis: no answer with 5xx, no status, media type or body that is not described, no way around a token.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,ignored_auth,unsupported_method,negative_data_rejection,missing_required_header";

#[test]
fn generated_requests_get_described_answers() {
    if !require_tool("schemathesis", "schemathesis, from PyPI") {
        return;
    }
    let sandbox = Sandbox::new();
    let token = sandbox.run(&["token", "new", "a", "--role", "admin", "--tokens", "t.json"]).expect(0);
    let server = Server::start(&sandbox, &["--set", "server.tokens=t.json"]);
    let examples = std::env::var("COUNTEM_EXAMPLES").unwrap_or_else(|_| "20".to_owned());
    let ran = Command::new("schemathesis")
        .args(["run", &server.url("/openapi.json"), "--checks", CHECKS, "--max-examples", &examples])
        .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "30", "--continue-on-failure"])
        // A stream has no end, and a batch a form of its own.
        .args(["--exclude-path", "/api/v1/stream", "--exclude-path", "/api/v1/batches"])
        .args(["-H", &format!("Authorization: Bearer {}", token.out.trim())])
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn metrics_pass_the_check_of_prometheus() {
    if !require_tool("promtool", "promtool, Debian package `prometheus`") {
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    server.post("/counters/web/a");
    server.post("/counters/web/b?n=x");
    let answer = server.get("//metrics");
    assert_eq!(answer.media, "text/plain; version=0.0.4; charset=utf-8");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
    let ran = check.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && told.is_empty(), "{told}\n{}", answer.body);
}
