//! Shows G23.
//!
//! Increments over HTTP: what is answered is counted, once, and what is refused is not counted at all.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use super::Server;
use crate::harness::Sandbox;

#[test]
fn one_line_of_curl_counts() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.post("/counters/web/signup").json(200), json!({"accepted": 1, "guarantee": "journal"}));
    assert_eq!(server.post("/counters/web/signup?n=41&guarantee=store").json(200)["guarantee"], "store");
    assert_eq!(server.post("/counters/web/signup?n=-2&guarantee=memory").json(200)["guarantee"], "memory");
    assert_eq!(server.post("/counters/web/signup?label=b=2&label=a=1").json(200)["accepted"], 1);
    assert_eq!(server.counters("web"), json!({"signup": 40, "signup{a=\"1\",b=\"2\"}": 1}));
    assert_eq!(server.post("/counters/web/old?at=2026-11-20T12:00:00Z").status, 200);
    assert_eq!(server.get("/counters/web/old?date=2026-11-20").json(200)["value"], 1);
}

#[test]
fn names_in_the_path_are_exact() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for (path, name) in [
        ("a%2Fb", "a/b"),
        ("100%25", "100%"),
        ("a%2Bb", "a+b"),
        ("a+c", "a+c"),
        ("a%252Fb", "a%2Fb"),
        ("a%20b", "a b"),
        ("..%2Fx", "../x"),
        ("d/e", "d/e"),
    ] {
        // Over a bare connection: clients tidy up paths.
        let answer = server.raw(&format!(
            "POST /api/v1/counters/web/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        ));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let read = server.raw(&format!(
            "GET /api/v1/counters/web/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ));
        assert!(read.contains(&format!("\"metric\":{},", json!(name))), "{path}: {read}");
        assert_eq!(server.counters("web")[name], 1, "{path}");
    }
    assert_eq!(server.post("/counters/web/a%zz").code(400), "bad_request");
    assert_eq!(server.post("/counters/web/").code(400), "bad_name");
}

#[test]
fn each_item_is_accepted_or_rejected_by_itself() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let lines = [
        r#"{"collection":"web","metric":"a"}"#,
        "",
        r#"{"collection":"web","metric":"a","n":9007199254740993}"#,
        r#"{"collection":"web","metric":"a","n":1.0}"#,
        r#"{"collection":"we/b\u0000","metric":"a"}"#,
        r#"{"collection":"web","metric":"a","at":"2001-01-01T00:00:00Z"}"#,
        r#"{"collection":"web","metric":"b","labels":{"y":"2","x":"1"},"n":5}"#,
        "nonsense",
    ];
    let answer = server.post_lines("/increments", &lines.join("\n")).json(200);
    assert_eq!((&answer["accepted"], &answer["rejected_count"]), (&json!(3), &json!(4)));
    let codes: Vec<_> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["index"].clone(), item["code"].clone()))
        .collect();
    assert_eq!(
        codes,
        [(3, "bad_body"), (4, "bad_name"), (5, "bad_time"), (7, "bad_body")]
            .map(|(at, code)| (json!(at), json!(code)))
    );
    let expected = json!({"a": 9_007_199_254_740_994_i64, "b{x=\"1\",y=\"2\"}": 5});
    assert_eq!(server.counters("web"), expected);
    let array = json!([{"collection": "web", "metric": "c"}, {"collection": "web", "metric": "c", "n": 2}])
        .to_string();
    let answer = server.call(
        "POST",
        "/increments",
        &[("content-type", "application/json; charset=utf-8")],
        array.as_bytes(),
    );
    assert_eq!(answer.json(200)["accepted"], 2);
    let answer = server.post_lines("/increments", "{}\n{}");
    assert_eq!(answer.code(422), "nothing_accepted");
    assert_eq!(answer.json(422)["rejected"][1]["index"], 1);
    assert_eq!(
        server.call("POST", "/increments", &[("content-type", "text/plain")], b"x").code(415),
        "unsupported_media_type"
    );
    assert_eq!(
        server.call("POST", "/increments", &[("content-type", "application/json")], b"[{]").code(400),
        "bad_body"
    );
}

#[test]
fn body_counts_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let line = |metric: &str| format!("{{\"collection\":\"web\",\"metric\":\"{metric}\"}}\n");
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let both = [gzip(&line("first")), gzip(&line("second"))].concat();
    assert_eq!(server.call("POST", "/increments", &headers, &both).json(200)["accepted"], 2);
    let many: String = (0..1000).map(|n| line(&format!("m{n}"))).collect();
    let mut cut = gzip(&many);
    cut.truncate(cut.len() - 5);
    assert_eq!(server.call("POST", "/increments", &headers, &cut).code(400), "bad_body");
    // A connection that breaks in the middle.
    server.raw(&format!(
        "POST /api/v1/increments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{many}\r\nzz\r\n",
        many.len()
    ));
    assert_eq!(server.counters("web"), json!({"first": 1, "second": 1}));
}

#[test]
fn guarantee_is_one_that_the_server_gives() {
    let sandbox = Sandbox::new();
    let server = Server::start(
        &sandbox,
        &["--set", "durability.level=memory", "--set", "server.max_guarantee=journal"],
    );
    assert_eq!(server.post("/counters/web/a").json(200)["guarantee"], "memory");
    assert_eq!(server.post("/counters/web/a?guarantee=journal").code(422), "guarantee_unavailable");
    assert_eq!(server.post("/counters/web/a?guarantee=store").code(422), "guarantee_unavailable");
    assert_eq!(server.post("/counters/web/a?guarantee=most").code(400), "bad_parameter");
    assert_eq!(server.counters("web"), json!({"a": 1}));
}

#[test]
fn corrections_are_previewed_made_and_logged() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    server.post("/counters/shop/orders?n=12&at=2026-11-20T12:00:00Z");
    let json_body = [("content-type", "application/json")];
    let correction = json!({
        "kind": "set", "collection": "shop", "metric": "orders", "bucket": "2026-11-20", "value": 10, "reason": "two tests",
        "author": "anna",
    })
    .to_string();
    let preview = server.call("POST", "/corrections?dry_run=1", &json_body, correction.as_bytes()).json(200);
    assert_eq!(
        preview["rows"],
        json!([{"bucket": "2026-11-20", "metric": "orders", "before": 12, "after": 10}])
    );
    assert_eq!(server.get("/counters/shop/orders?date=2026-11-20").json(200)["value"], 12);
    server.call("POST", "/corrections", &json_body, correction.as_bytes()).json(200);
    assert_eq!(server.get("/counters/shop/orders?date=2026-11-20").json(200)["value"], 10);
    let log = server.get("/corrections?collection=shop").json(200);
    assert_eq!(
        (&log["corrections"][0]["author"], &log["corrections"][0]["reason"]),
        (&json!("anna"), &json!("two tests"))
    );
    let nameless = correction.replace("anna", " ");
    assert_eq!(server.call("POST", "/corrections", &json_body, nameless.as_bytes()).code(400), "bad_body");
    let missing = correction.replace("orders", "ordres");
    assert_eq!(
        server.call("POST", "/corrections", &json_body, missing.as_bytes()).status,
        200,
        "a new metric may be set"
    );
}
