//! The command line with `--store mongodb://…`.

use std::thread;

use anyhow::Result;
use countem_testkit::{Mongod, Options, Port, require_mongod, require_server};
use mongodb::bson::doc;
use serde_json::json;

use super::{
    database::{DAY, Database, with_option},
    program::{CommandLine, Ran},
};
use crate::support::counters;

const PASSWORD: &str = "hunter2";
const LOG: &str = r#"10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl"
10.0.0.2 - - [20/Nov/2026:11:00:00 +0000] "GET /b HTTP/1.1" 404 0 "-" "curl"
10.0.0.1 - - [20/Nov/2026:12:00:00 +0000] "GET /c HTTP/1.1" 200 7 "-" "curl"
"#;
const INGEST: [&str; 6] =
    ["ingest", "access.log", "--format", "combined", "--count", "web:{method} {status}"];

/// Every command that needs the store.
const COMMANDS: [&[&str]; 6] =
    [&["inc", "web", "GET 200"], &INGEST, &["get", "web"], &["all"], &["top", "web"], &["collections"]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_uses_the_same_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, database) = Database::shared().await?;
    let line = CommandLine::new(database.uri());
    line.write("access.log", LOG);
    let day = ["--date", DAY];
    let run = |arguments: &[&str]| line.run(arguments).expect(0);

    run(&[&["inc", "app.events", "MyMethod.calls"], &day[..]].concat());
    run(&[&["inc", "app.events", "MyMethod.calls", "41"], &day[..]].concat());
    run(&[&["inc", "stock", "apples", "-5"], &day[..]].concat());
    let report = run(&[&INGEST[..], &["-o", "json"]].concat()).json();
    assert_eq!(report["lines"], 3, "{report:#}");

    let one = run(&[&["get", "app.events", "MyMethod.calls"], &day[..]].concat());
    assert_eq!((&*one.out, &*one.err), ("42\n", ""));
    let web = json!({ "GET 200": 2, "GET 404": 1 });
    let read = |arguments: &[&str]| run(&[arguments, &["-o", "json"]].concat()).json();
    assert_eq!(
        read(&["get", "web", "--date", DAY]),
        json!({ "collection": "web", "bucket": DAY, "counters": web })
    );
    assert_eq!(
        read(&["get", "web", "--bucket", "2026-11"]),
        json!({ "collection": "web", "bucket": "2026-11", "counters": web })
    );
    let all = json!({ "app.events": { "MyMethod.calls": 42 }, "stock": { "apples": -5 }, "web": web });
    assert_eq!(read(&["all", "--date", DAY]), json!({ "bucket": DAY, "collections": all }));
    let top = json!([{ "metric": "GET 200", "value": 2 }]);
    assert_eq!(
        read(&["top", "web", "-n", "1", "--date", DAY]),
        json!({ "collection": "web", "bucket": DAY, "top": top })
    );
    assert_eq!(read(&["collections"]), json!({ "collections": ["app.events", "stock", "web"] }));
    let near = line.run(&["get", "wep", "--date", DAY]).expect(3);
    assert_eq!(near.err, "countem: there is no collection `wep`; did you mean `web`?\n");

    assert_eq!(database.counters("web").await?, counters(&[("GET 200", 2), ("GET 404", 1)]));
    assert_eq!(database.counters("app.events").await?, counters(&[("MyMethod.calls", 42)]));
    assert_eq!(database.collections().await?, ["_countem_schedules", "app.events", "stock", "web"]);
    for collection in ["app.events", "stock", "web"] {
        assert_eq!(database.writers(collection).await?, [""; 0], "{collection}");
    }
    Ok(())
}

/// Runs every command on a store that cannot be used: each says so in one line.
fn all_fail(uri: &str, code: i32, said: &str) {
    let line = CommandLine::new(&with_option(uri, "serverSelectionTimeoutMS=500"));
    line.write("access.log", LOG);
    for command in COMMANDS {
        let ran = line.run(&[command, &["--set", "shutdown.deadline=500ms"]].concat());
        println!("{}: {:?} {}", command[0], ran.code, ran.err.trim_end());
        assert_eq!(ran.code, Some(code), "{command:?}: {ran:#?}");
        assert_eq!(ran.out, "", "{command:?}");
        assert_eq!(ran.err.lines().count(), 1, "{command:?}: {}", ran.err);
        assert!(
            ran.err.starts_with("countem: cannot ") && ran.err.contains(said),
            "{command:?}: {}",
            ran.err
        );
        assert_hidden(&ran);
        // Not even to those who want to know everything.
        assert_hidden(&line.run(&[command, &["--set", "shutdown.deadline=500ms", "-vv"]].concat()));
    }
}

fn assert_hidden(ran: &Ran) {
    assert!(!ran.out.contains(PASSWORD) && !ran.err.contains(PASSWORD), "{ran:#?}");
}

#[tokio::test]
async fn every_command_reports_absent_server_in_one_line() -> Result<()> {
    let port = Port::reserve()?;
    let uri = format!("mongodb://anna:{PASSWORD}@127.0.0.1:{}/?authSource=admin", port.number());
    let config = CommandLine::new(&uri).run(&["config"]).expect(0);
    assert!(config.out.contains("mongodb://anna:****@127.0.0.1:"), "{config:#?}");
    assert_hidden(&config);
    all_fail(&uri, 4, "does not answer (Connection refused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_reports_a_refusal_in_one_line() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default().auth("root", "secret")).await?;
    let at = format!("127.0.0.1:{}/?authSource=admin", mongod.port());
    all_fail(&format!("mongodb://anna:{PASSWORD}@{at}"), REFUSED, "login failed");

    let roles = [doc! { "role": "read", "db": "another" }];
    mongod.admin_command(doc! { "createUser": "anna", "pwd": PASSWORD, "roles": roles }).await?;
    all_fail(&format!("mongodb://anna:{PASSWORD}@{at}"), REFUSED, "`readWrite`");
    Ok(())
}

/// The store was reached, and a person has to act before trying again makes sense.
const REFUSED: i32 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingesting_once_counts_a_file_once() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, database) = Database::shared().await?;
    let line = CommandLine::new(database.uri());
    line.write("access.log", LOG);
    for _ in 0..2 {
        line.run(&[&INGEST[..], &["--once"]].concat()).expect(0);
        assert_eq!(database.counters("web").await?["GET 200"], 2);
    }
    // Without the flag, the same file is counted as often as it is given.
    for times in 2..=3 {
        line.run(&INGEST).expect(0);
        assert_eq!(database.counters("web").await?["GET 200"], 2 * times);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_writers_agree_on_one_schedule() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    for round in 0..5 {
        let (_server, database) = Database::shared().await?;
        let zones = ["Europe/Berlin", "Asia/Tokyo", "Europe/Berlin"];
        let codes = thread::scope(|scope| {
            let run = |zone: &'static str| {
                let line = CommandLine::new(database.uri());
                let setting = format!("time.zone={zone}");
                scope.spawn(move || {
                    line.run(&["inc", "c", "m", "--date", DAY, "--set", &setting]).code.unwrap_or(-1)
                })
            };
            zones.map(run).map(|running| running.join().expect("a command does not panic"))
        });
        assert!([[0, 2, 0], [2, 0, 2]].contains(&codes), "round {round}: {codes:?}");
        let counted = codes.iter().filter(|code| **code == 0).count();
        // Read without a setting: the zone is that of the store.
        let read = CommandLine::new(database.uri()).run(&["get", "c", "m", "--date", DAY]).expect(0);
        assert_eq!(read.out, format!("{counted}\n"));
        let doctor = CommandLine::new(database.uri()).run(&["doctor"]).expect(0).out;
        let zone = if codes[0] == 0 { zones[0] } else { zones[1] };
        assert!(doctor.contains(&format!("since beginning {zone} day")), "{doctor}");
    }
    Ok(())
}
