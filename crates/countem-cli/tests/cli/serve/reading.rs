//! Reads over HTTP.

use serde_json::json;

use super::Server;
use crate::harness::Sandbox;

fn filled(sandbox: &Sandbox) -> Server {
    let server = Server::start(sandbox, &["--set", "time.periods=hour,day"]);
    let lines: String = [
        ("GET 200", 5, "2026-11-20T10:30:00Z"),
        ("GET 200", 2, "2026-11-20T11:30:00Z"),
        ("GET 500", 1, "2026-11-20T11:30:00Z"),
        ("GET 200", 3, "2026-11-21T11:30:00Z"),
        ("a,\\\"b\\\"", 9, "2026-11-21T11:30:00Z"),
    ]
    .iter()
    .map(|(metric, n, at)| {
        format!("{{\"collection\":\"web\",\"metric\":\"{metric}\",\"n\":{n},\"at\":\"{at}\"}}\n")
    })
    .collect();
    assert_eq!(server.post_lines("/increments?guarantee=store", &lines).json(200)["accepted"], 5);
    server
}

#[test]
fn every_read_has_its_form() {
    let sandbox = Sandbox::new();
    let server = filled(&sandbox);
    assert_eq!(
        server.get("/counters/web?date=2026-11-20").json(200),
        json!({"bucket": "2026-11-20", "collection": "web", "counters": {"GET 200": 7, "GET 500": 1}})
    );
    assert_eq!(server.get("/counters/web?bucket=2026-11-20T10").json(200)["counters"], json!({"GET 200": 5}));
    assert_eq!(
        server.get("/counters/web?range=2026-11-20..2026-11-21&metric=GET*").json(200)["counters"],
        json!({"GET 200": 10, "GET 500": 1})
    );
    assert_eq!(server.get("/counters/web/GET%20200?date=2026-11-20&strings=1").json(200)["value"], "7");
    assert_eq!(
        server.get("/counters?date=2026-11-21").json(200)["collections"],
        json!({"web": {"GET 200": 3, "a,\"b\"": 9}})
    );
    assert_eq!(server.get("/collections").json(200), json!({"collections": ["web"]}));
    let series = server.get("/series/web?from=2026-11-20&to=2026-11-21&metric=GET%20200").json(200);
    assert_eq!(
        series["series"],
        json!([{"metric": "GET 200", "points": [["2026-11-20", 7], ["2026-11-21", 3]]}])
    );
    let top = server.get("/top/web?range=2026-11-20..2026-11-21&limit=2").json(200);
    assert_eq!(top["top"], json!([{"metric": "GET 200", "value": 10}, {"metric": "a,\"b\"", "value": 9}]));
    assert_eq!(top["total"], 20);
    let page = server.get("/counters/web?date=2026-11-21&limit=1").json(200);
    assert_eq!(page["next"], "web/GET 200");
    let rest = server.get("/counters/web?date=2026-11-21&limit=1&cursor=web/GET%20200").json(200);
    assert_eq!((&rest["counters"], &rest["next"]), (&json!({"a,\"b\"": 9}), &json!(null)));
}

#[test]
fn rows_are_lines_or_csv() {
    let sandbox = Sandbox::new();
    let server = filled(&sandbox);
    let path = "/counters/web?date=2026-11-21";
    let csv = server.call("GET", path, &[("accept", "text/csv")], &[]);
    assert_eq!(csv.media, "text/csv; charset=utf-8");
    assert_eq!(
        csv.body,
        "collection,bucket,metric,value,error\nweb,2026-11-21,GET 200,3,\nweb,2026-11-21,\"a,\"\"b\"\"\",9,\n"
    );
    let lines = server.call("GET", path, &[("accept", "application/x-ndjson")], &[]);
    assert_eq!(lines.body.lines().count(), 2);
    assert!(
        lines.body.starts_with(r#"{"collection":"web","bucket":"2026-11-21","metric":"GET 200","value":3}"#),
        "{}",
        lines.body
    );
    assert_eq!(server.call("GET", path, &[("accept", "image/png")], &[]).code(406), "not_acceptable");
}

#[test]
fn closed_bucket_is_compared_by_its_tag() {
    let sandbox = Sandbox::new();
    let server = filled(&sandbox);
    let path = "/counters/web?date=2026-11-20";
    let first = server.get(path);
    let tag = first.headers["etag"].to_str().unwrap().to_owned();
    let again = server.call("GET", path, &[("if-none-match", &tag)], &[]);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let other = server.call("GET", "/counters/web?date=2026-11-21", &[("if-none-match", &tag)], &[]);
    assert_eq!(other.status, 200);
    server.post("/counters/web/GET%20200?at=2026-11-20T12:00:00Z");
    let late = server.call("GET", path, &[("if-none-match", &tag)], &[]);
    assert_eq!(late.json(200)["counters"]["GET 200"], 8);
    assert_eq!(server.get("/counters/web").headers["cache-control"], "no-store");
}

#[test]
fn wrong_questions_get_words() {
    let sandbox = Sandbox::new();
    let server = filled(&sandbox);
    for (path, status, code, words) in [
        ("/counters/web?rnage=7d", 400, "bad_parameter", "did you mean `range`?"),
        ("/counters/web?date=2026-11-20T12", 400, "bad_parameter", "is not a day"),
        ("/counters/web?date=today&bucket=all", 400, "bad_parameter", "only one of"),
        ("/counters/web?bucket=2026-11-20T11:30", 422, "not_exact", "stores no minute buckets"),
        ("/counters/web/nothing", 404, "not_found", "was not counted"),
        ("/series/web?range=2026&step=second", 422, "", ""),
        ("/top/web?order=size", 400, "bad_parameter", "`order` is name, value or change"),
        ("/top/web?limit=0", 400, "bad_parameter", "from 1 to"),
        ("/counters/web?matching=(", 400, "bad_parameter", "`matching`"),
        ("/nothing", 404, "not_found", "/openapi.json"),
    ] {
        let answer = server.get(path);
        let problem = answer.json(status);
        if !code.is_empty() {
            assert_eq!(problem["code"], code, "{path}");
        }
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {}", problem["detail"]);
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let answer = server.call("PUT", "/counters/web/x", &[], &[]);
    assert_eq!(
        (answer.code(405).as_str(), answer.headers["allow"].to_str().unwrap()),
        ("method_not_allowed", "GET, HEAD, POST")
    );
    let head = server.call("HEAD", "/counters/web", &[], &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn api_describes_itself() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let text = server.get("//openapi.json").body;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/serve/openapi.json");
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&text).unwrap())
        .unwrap()
        + "\n";
    if std::env::var_os("COUNTEM_WRITE_GOLDEN").is_some() {
        std::fs::write(golden, &pretty).unwrap();
    }
    assert_eq!(
        pretty,
        std::fs::read_to_string(golden).unwrap(),
        "the API changed: set COUNTEM_WRITE_GOLDEN=1 to take it over"
    );
}
