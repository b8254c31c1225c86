//! `countem serve --demo`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use countem_testkit::Port;
use serde_json::Value;

use crate::harness::{BINARY, Sandbox, eventually};

#[test]
fn demo_lives_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let (temporary, port) = (tempfile::tempdir().unwrap(), Port::reserve().unwrap());
    let mut command = countem_testkit::command(BINARY);
    command.args(["serve", "--demo", "--listen", &format!("127.0.0.1:{}", port.number())]);
    command.env("TMPDIR", temporary.path()).current_dir(sandbox.path("")).stderr(Stdio::piped());
    let mut server = countem_testkit::Child::spawn(command).unwrap();
    let stderr = server.streams().stderr.take().unwrap();
    let mut said = BufReader::new(stderr).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("30 days of history")), "it has ended");
    let tries: Vec<_> = said.by_ref().take(5).collect();
    let url = |line: &str| line.split('\'').nth(1).unwrap().to_owned();
    let read = |url: &str| -> Value {
        let mut answer = ureq::get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    };
    let [counters, countries, hours, days] = [0, 1, 2, 3].map(|line| url(&tries[line]));
    assert!(counters.ends_with("/api/v1/counters/web"), "{tries:#?}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);

    let total = || read(&counters)["counters"]["GET 200"].as_i64().unwrap();
    let before = total();
    eventually(&true, || total() > before);
    let points = |answer: &Value| answer["series"][0]["points"].as_array().unwrap().clone();
    let busy = |answer: &Value| points(answer).iter().filter(|point| point[1].as_i64() > Some(0)).count();
    let (hours, days) = (read(&hours), read(&days));
    assert!(busy(&hours) >= 23, "{hours}");
    assert!(busy(&days) >= 29, "{days}");
    let month: i64 = points(&days).iter().filter_map(|point| point[1].as_i64()).sum();
    assert!(month > 1_000_000, "thousands per second: {month}");
    let countries = read(&countries);
    let top = countries["top"].as_array().unwrap();
    assert_eq!(top.len(), 3, "{countries}");
    assert_eq!(top[0]["labels"]["country"], "US", "{countries}");

    server.terminate().unwrap();
    let rest: Vec<_> = said.collect();
    let status = server.wait().unwrap();
    assert!(status.success(), "{status}: {rest:#?}");
    assert!(rest.iter().any(|line| line.contains("countem: stopped: ")), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains("refused")), "{rest:#?}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "the store is gone");
    assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), 0, "nothing is in the working directory");
    let refused = sandbox.run(&["serve", "--demo", "--store", "sqlite://own.db"]).expect(2);
    assert!(refused.err.contains("leave `--store` out"), "{}", refused.err);
}
