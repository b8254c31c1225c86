//! The README's first minute, with nothing but its own lines.

use std::{fs, process::Command};

use serde_json::{Value, json};

use super::{
    Server,
    examples::{has, workspace},
};
use crate::harness::Sandbox;

/// Returns the lines of the first block of shell commands that begins with `beginning`.
fn block<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let mut blocks = text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.find(|block| block.starts_with(beginning)).unwrap().lines().collect()
}

#[test]
fn readme_counts_and_reads_in_three_lines() {
    if !has("curl", &["--version"]) {
        return;
    }
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let start = block(&readme, "cargo run --release -- serve");
    // The program is built already, and the port belongs to a test.
    let args =
        start[0].split('#').next().unwrap().trim().strip_prefix("cargo run --release -- serve").unwrap();
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &args.split_whitespace().collect::<Vec<_>>());
    let curls = block(&readme, "curl ");
    assert_eq!(curls.len(), 2, "one counts, one reads");
    let answers: Vec<Value> = curls.iter().map(|line| json_of(&sh(&server, line))).collect();
    assert_eq!(answers[0], json!({ "accepted": 1, "guarantee": "journal" }));
    assert_eq!(answers[1]["counters"], json!({ "signup": 1 }));
}

#[test]
fn readme_reads_csv_into_a_frame() {
    if !has("python3", &["-c", "import pandas"]) {
        return;
    }
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let code = readme.split("\n```python\n").nth(1).unwrap().split("\n```").next().unwrap();
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    server.post("/counters/web/signup?n=9007199254740993").json(200);
    let code =
        code.replace("localhost:7070", &address(&server)) + "\nprint(frame.value.dtype, frame.value.sum())\n";
    let ran = Command::new("python3").args(["-c", &code]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "int64 9007199254740993\n");
}

/// Runs a line of the shell that speaks of the usual port.
fn sh(server: &Server, line: &str) -> String {
    assert!(line.contains("localhost:7070"), "{line}");
    let line = line.replace("localhost:7070", &address(server));
    let ran = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Returns the address under which the README's lines find the server.
fn address(server: &Server) -> String {
    format!("localhost:{}", server.port.number())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
