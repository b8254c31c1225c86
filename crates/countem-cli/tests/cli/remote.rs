//! Every command with another countem as its store.

use std::sync::Arc;

use countem_core::{Batch, BatchId, Table, Writer};
use countem_store::{ErrorKind, Store};
use countem_store_remote::{RemoteConfig, RemoteStore};
use serde_json::json;

use crate::{
    generator::Log,
    harness::Sandbox,
    ingest::{args, assert_counted},
    serve::access::token,
    served::Served,
};

const DAY: [&str; 2] = ["--date", "2015-05-17"];
const WHY: [&str; 4] = ["--reason", "wrong names", "--author", "ann"];

#[test]
fn counters_are_counted_and_read_remotely() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    let run = |args: &[&str]| server.run(&here, args).expect(0);
    run(&["inc", "web", "a.b $ \u{1f980}", "5", "--date", "2015-05-17"]);
    run(&["inc", "web", "big", "9223372036854775807", "--date", "2015-05-17"]);
    run(&["inc", "web", "big", "--date", "2015-05-18", "--", "-9223372036854775808"]);
    run(&["inc", "app", "x", "2", "--label", "b=1", "--label", "a=2", "--date", "2015-05-17"]);
    let read: [&[&str]; 9] = [
        &["get", "web", "--date", "2015-05-17", "-o", "json"],
        &["get", "web", "big", "--bucket", "2015-05-18"],
        &["get", "web", "--bucket", "all", "-o", "json"],
        &["all", "--bucket", "2015-05-17", "-o", "json"],
        &["top", "web", "--bucket", "2015-05-17", "-o", "json"],
        &["series", "web", "--range", "2015-05-17..2015-05-18", "-o", "json"],
        &["collections", "-o", "json"],
        &["export", "-o", "ndjson"],
        &["marks", "-o", "json"],
    ];
    for args in read {
        // The same as what the file says.
        assert_eq!(run(args).out, far.run(args).expect(0).out, "{args:?}");
    }
    assert_eq!(far.counters("web", "2015-05-17")["big"], i64::MAX);
    assert_eq!(far.writers(), 0, "a command that ends leaves no bookkeeping");
    assert!(!here.path("countem.db").exists());
    assert_eq!(server.run(&here, &["get", "web", "missing", "--date", "2015-05-17"]).code, 3);
    assert_eq!(server.run(&here, &["get", "nothing"]).code, 3);
    assert_eq!(server.stop(), 0);
}

#[test]
fn pending_counts_are_read_once() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &["--set", "flush.interval=1h"]);
    assert_eq!(server.server().post("/counters/web/visits?n=5").status, 200);
    server.run(&here, &["inc", "web", "visits", "2"]).expect(0);
    let value = |args: &[&str]| server.run(&here, &[&["get", "web", "visits"], args].concat()).expect(0).out;
    assert_eq!(value(&[]), "7\n");
    assert_eq!(far.run(&["get", "web", "visits"]).expect(0).out, "2\n", "five are pending");
    let exported = server.run(&here, &["export"]).expect(0).out;
    assert!(exported.contains(",visits,7\n"), "{exported}");
    let collections = server.run(&here, &["collections", "-o", "json"]).expect(0).json();
    assert_eq!(collections, json!({"collections": ["web"]}));
    // A correction and a copy are of what is stored.
    let preview =
        server.run(&here, &["correct", "web", "visits", "--to", "3", "--dry-run", "-o", "json"]).expect(0);
    assert!(preview.out.contains("\"before\": 2") || preview.out.contains("\"before\":2"), "{}", preview.out);
    server.run(&here, &[&["correct", "web", "visits", "--to", "3"][..], &WHY].concat()).expect(0);
    assert_eq!(value(&[]), "8\n");
    here.run(&["copy", "--from", &server.uri(), "--to", "sqlite://copy.db"]).expect(0);
    assert_eq!(here.run(&["get", "web", "visits", "--store", "sqlite://copy.db"]).expect(0).out, "3\n");
    assert_eq!(server.stop(), 0);
    assert_eq!(far.run(&["get", "web", "visits"]).expect(0).out, "8\n");
}

#[test]
fn files_are_ingested_once_remotely() {
    let log = Log::new(3, 2000, 10);
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    here.write("log", &log.text);
    let counted = |more: &[&str]| {
        let ran = server.run(&here, &[args(&["log", "--once", "-o", "json"]), more.to_vec()].concat());
        ran.expect(0).json()["counted"].as_u64().unwrap()
    };
    assert_eq!((counted(&[]), counted(&[])), (2000, 0));
    assert_counted(&far, &log, 1);
    let marks = server.run(&here, &["marks"]).expect(0);
    assert!(marks.out.contains("log"), "{}", marks.out);
    server.run(&here, &["forget", "log"]).expect(0);
    assert_eq!(counted(&[]), 2000);
    assert_counted(&far, &log, 2);
    server.run(&here, &args(&["log", "--undo"])).expect(0);
    assert_counted(&far, &log, 1);
}

#[test]
fn stores_are_copied_and_imported_remotely() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    for (metric, n) in [("a", "1"), ("b", "-2"), ("c", "9223372036854775807")] {
        here.run(&[&["inc", "web", metric][..], &DAY, &["--", n]].concat()).expect(0);
    }
    let original = here.run(&["export", "-o", "ndjson"]).expect(0);
    here.write("x.ndjson", &original.out);
    for _ in 0..2 {
        server.run(&here, &["import", "x.ndjson"]).expect(0);
    }
    assert_eq!(server.run(&here, &["export", "-o", "ndjson"]).expect(0).out, original.out);
    here.run(&["copy", "--from", &server.uri(), "--to", "sqlite://copy.db"]).expect(0);
    assert_eq!(
        here.run(&["export", "-o", "ndjson", "--store", "sqlite://copy.db"]).expect(0).out,
        original.out
    );

    let empty = Sandbox::new();
    let other = Served::start(&empty, &[]);
    for _ in 0..2 {
        here.run(&["copy", "--from", &server.uri(), "--to", &other.uri()]).expect(0);
    }
    assert_eq!(empty.run(&["export", "-o", "ndjson"]).expect(0).out, original.out);
}

#[test]
fn counts_are_corrected_remotely() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    for (metric, n) in [("old", "5"), ("x", "2"), ("y", "3"), ("gone", "4")] {
        server.run(&here, &[&["inc", "web", metric, n][..], &DAY].concat()).expect(0);
    }
    let correct = |args: &[&str]| server.run(&here, &[args, &WHY].concat()).expect(0);
    correct(&[&["correct", "web", "old", "--to", "7"][..], &DAY].concat());
    correct(&["rename", "web", "old", "new"]);
    correct(&["merge", "web", "x", "--into", "y"]);
    correct(&["delete", "web", "gone", "--yes"]);
    let counters = json!(far.counters("web", "2015-05-17"));
    assert_eq!(counters, json!({"new": 7, "y": 5}), "no zero is left");
    let history = server.run(&here, &["history", "-o", "json"]).expect(0);
    assert_eq!(history.out, far.run(&["history", "-o", "json"]).expect(0).out);
    assert_eq!(history.out.matches("wrong names").count(), 4, "{}", history.out);
}

#[test]
fn quarantine_of_the_server_is_worked_off() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    let inc = |n: &str| server.run(&here, &[&["inc", "c", "big"][..], &DAY, &["--", n]].concat());
    inc("9223372036854775807").expect(0);
    let refused = inc("1").expect(1);
    assert!(refused.err.contains("cannot add 1 to `big` in 2015-05-17: "), "{}", refused.err);
    assert!(inc("2").expect(1).err.contains("quarantine"));
    let listed = server.run(&here, &["quarantine", "list"]).expect(0);
    assert_eq!(listed.out, far.run(&["quarantine", "list"]).expect(0).out);
    let doctor = server.run(&here, &["doctor"]).expect(0);
    assert!(
        doctor.out.contains("warn  quarantined: 2 increments in 2 counts in the store"),
        "{}",
        doctor.out
    );
    let ids: Vec<_> = listed.out.lines().filter_map(|line| line.trim().split(' ').next()).collect();
    let ids: Vec<_> = ids.into_iter().filter(|id| id.starts_with('s')).collect();
    assert_eq!(ids.len(), 2, "{}", listed.out);
    server.run(&here, &["quarantine", "retry", ids[0]]).expect(6);
    server.run(&here, &["quarantine", "drop", ids[0]]).expect(0);
    inc("-10").expect(0);
    server.run(&here, &["quarantine", "retry", "--all"]).expect(0);
    let value = far.counters("c", "2015-05-17")["big"];
    assert!([i64::MAX - 9, i64::MAX - 8].contains(&value), "one of the two was given up: {value}");
}

#[test]
fn store_is_examined_remotely_and_not_backed_up() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    server.run(&here, &["inc", "web", "visits"]).expect(0);
    let doctor = server.run(&here, &["doctor"]).expect(0);
    for line in
        ["can be reached and used", "ok    counters: 1 were read", "schedule: since beginning UTC day"]
    {
        assert!(doctor.out.contains(line), "{line}: {}", doctor.out);
    }
    let backup = server.run(&here, &["backup", "x.db"]).expect(2);
    assert!(backup.err.contains("make it where that countem keeps its file"), "{}", backup.err);
}

#[test]
fn server_that_is_away_is_unreachable() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let mut server = Served::start(&far, &[]);
    server.kill();
    for args in
        [&["inc", "web", "visits", "--timeout", "2s"][..], &["get", "web"], &["collections"], &["doctor"]]
    {
        let ran = server.run(&here, args).expect(4);
        let said = format!("cannot send to `{}`", server.uri());
        assert!((ran.err.clone() + &ran.out).contains(&said), "{args:?}: {} {}", ran.err, ran.out);
        assert!(!ran.err.contains("it may be stored or not"), "{}", ran.err);
    }
    server.restart();
    server.run(&here, &["inc", "web", "visits"]).expect(0);
    assert_eq!(server.server().post("/store/nothing").code(404), "not_found");
}

#[test]
fn wrong_addresses_are_explained() {
    let here = Sandbox::new();
    for (uri, said) in [
        ("http://localhost:7070", "did you mean `countem://localhost:7070`?"),
        ("countem://hunter2@localhost:99999", "`localhost:99999` is no host of a countem"),
        ("countem://localhost?ca=x", "`ca`, `cert` and `key` need `tls=true`"),
    ] {
        let ran = here.run(&["get", "web", "--store", uri]).expect(2);
        assert!(ran.err.contains(said) && !ran.err.contains("hunter2"), "{}", ran.err);
    }
    let ran =
        here.run(&["get", "web", "--store", "countem://hunter2@localhost:1?tls=true&ca=none.pem"]).expect(1);
    assert!(ran.err.contains("cannot read `none.pem`") && !ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn token_of_a_command_needs_its_role() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let [reader, writer] = ["read", "write"].map(|role| token(&far, &[role, "--role", role]));
    let server = Served::start(&far, &["--set", "server.tokens=tokens.json"]);
    let with = |token: &str| format!("countem://{token}@127.0.0.1:{}", server.port());
    let run = |uri: &str, args: &[&str]| here.run(&[&["--store", uri], args].concat());
    run(&with(&writer), &["inc", "web", "visits", "3"]).expect(0);
    assert_eq!(run(&with(&reader), &["get", "web", "visits"]).expect(0).out, "3\n");
    for (uri, args, said) in [
        (server.uri(), &["get", "web"][..], "refuses: a token is needed"),
        (with("countem_0_0"), &["inc", "web", "visits"], "refuses: "),
        (with(&writer), &["get", "web"], "has no role `read`"),
        (with(&reader), &["inc", "web", "visits"], "has no role `write`"),
    ] {
        let ran = run(&uri, args).expect(1);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
        assert!(![&reader, &writer].iter().any(|token| ran.err.contains(*token)), "{}", ran.err);
    }
    let uri = server.uri();
    std::fs::create_dir(here.path("sub")).unwrap();
    let args = ["get", "web", "visits", "--store", &uri];
    let ran = here.run_in("sub", Some(("COUNTEM_TOKEN", &reader)), &args).expect(0);
    assert_eq!(ran.out, "3\n");
}

fn batch(collection: &str, metrics: usize) -> Arc<Batch> {
    let mut table = Table::new();
    for metric in 0..metrics {
        table.fold(collection, &format!("a metric {metric}"), "2026-11-20".parse().unwrap(), 1).unwrap();
    }
    let id = BatchId { writer: Writer::new(7, 1), lane: 0, seq: 1 };
    Arc::new(Batch::new(id, table.drain()))
}

#[tokio::test]
async fn batches_stay_within_the_collections_of_a_token() {
    let far = Sandbox::new();
    let shop = token(&far, &["shop", "--role", "write,read", "--collection", "shop"]);
    let server = Served::start(&far, &["--set", "server.tokens=tokens.json"]);
    let store = |token: &str| {
        let host = format!("127.0.0.1:{}", server.port());
        let config = RemoteConfig { token: Some(token.to_owned()), ..RemoteConfig::new(host) };
        RemoteStore::connect(&config).unwrap()
    };
    let of_shop = store(&shop);
    let error = of_shop.apply(&batch("web", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with("the token is not for the collection `web`"), "{error}");
    of_shop.apply(&batch("shop", 1)).await.unwrap();
    assert_eq!(of_shop.marks("").await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(of_shop.collections().await.unwrap(), ["shop".parse().unwrap()]);
    // Of a large batch nothing is read without a token, and the sender learns why.
    let error = store("countem_0_0").apply(&batch("shop", 100_000)).await.unwrap_err();
    assert!([ErrorKind::Refused, ErrorKind::NotApplied].contains(&error.kind()), "{error}");
    assert_eq!(far.counters("shop", "2026-11-20").len(), 1);
}

/// Authority, certificates and keys for 127.0.0.1, made for these tests alone.
const TLS: [(&str, &str); 6] = [
    ("ca.pem", include_str!("tls/ca.pem")),
    ("server.pem", include_str!("tls/server.pem")),
    ("server.key", include_str!("tls/server.key")),
    ("client.pem", include_str!("tls/client.pem")),
    ("client.key", include_str!("tls/client.key")),
    ("other.pem", include_str!("tls/other.pem")),
];

#[test]
fn both_sides_show_their_certificates() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    for (name, content) in TLS {
        far.write(name, content);
        here.write(name, content);
    }
    let files = ["server.tls_cert=server.pem", "server.tls_key=server.key", "server.tls_client_ca=ca.pem"];
    let server = Served::start_tls(&far, &files.map(|file| ["--set", file]).concat());
    let run = |options: &str, args: &[&str]| {
        here.run(&[&["--store", &format!("{}?{options}", server.uri())], args].concat())
    };
    let whole = "tls=true&ca=ca.pem&cert=client.pem&key=client.key";
    run(whole, &["inc", "web", "visits", "3", "--timeout", "20s"]).expect(0);
    assert_eq!(run(whole, &["get", "web", "visits"]).expect(0).out, "3\n");
    let foreign =
        run("tls=true&ca=other.pem&cert=client.pem&key=client.key", &["inc", "web", "visits"]).expect(1);
    assert!(foreign.err.contains("UnknownIssuer") || foreign.err.contains("certificate"), "{}", foreign.err);
    for (options, args) in [("tls=true&ca=ca.pem", &["get", "web"][..]), ("timeout=2s", &["get", "web"])] {
        let ran = run(options, args);
        assert_eq!(ran.code, 4, "{options}: {}", ran.err);
    }
    assert_eq!(run(whole, &["get", "web", "visits"]).expect(0).out, "3\n");
}
