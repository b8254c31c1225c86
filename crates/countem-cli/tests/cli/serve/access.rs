//! Who may do what: tokens, roles, hosts and origins.

use std::io::Write as _;

use serde_json::{Value, json};

use super::Server;
use crate::harness::Sandbox;

pub(crate) fn token(sandbox: &Sandbox, args: &[&str]) -> String {
    let ran = sandbox.run(&[&["token", "new", "--tokens", "tokens.json"], args].concat()).expect(0);
    ran.out.trim().to_owned()
}

/// Method and path of a route, with names in place of variables.
type Route = (String, String);

/// Lists the routes that need a token, and those that need none.
fn routes(server: &Server) -> (Vec<Route>, Vec<Route>) {
    let api = server.get("//openapi.json").json(200);
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for (path, operations) in api["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let path = path.replace("{collection}", "web").replace("{metric}", "a").replace("{call}", "read");
            let path = path.strip_prefix("/api/v1").map_or_else(|| format!("/{path}"), str::to_owned);
            let route = (method.to_uppercase(), path);
            if operation["security"] == json!([]) || operation["security"] == json!([{}]) {
                open.push(route);
            } else {
                closed.push(route);
            }
        }
    }
    (closed, open)
}

#[test]
fn every_route_needs_its_role() {
    let sandbox = Sandbox::new();
    let reader = token(&sandbox, &["reader", "--role", "read"]);
    let writer = token(&sandbox, &["writer", "--role", "write"]);
    let server = Server::start(&sandbox, &["--set", "server.tokens=tokens.json"]);
    let (closed, open) = routes(&server);
    assert!(closed.len() > 10 && open.len() >= 4, "{closed:?} {open:?}");
    for (method, path) in &closed {
        let wrong = server.call(method, path, &[("authorization", "Bearer countem_00000000_00")], &[]);
        let code = if wrong.status == 429 { "rate_limited".to_owned() } else { wrong.code(401) };
        assert!(["unauthorized", "rate_limited"].contains(&code.as_str()), "{method} {path}: {code}");
        // A stream that is allowed has no end.
        let tokens = if path == "/stream" { vec![&writer] } else { vec![&reader, &writer] };
        let call =
            |token| server.call(method, path, &[("authorization", &format!("Bearer {token}"))], &[]).status;
        let statuses: Vec<_> = tokens.into_iter().map(call).collect();
        assert!(statuses.contains(&403), "{method} {path}: {statuses:?}");
    }
    for (method, path) in &open {
        assert_eq!(server.call(method, path, &[], &[]).status, 200, "{method} {path}");
    }
}

#[test]
fn token_covers_its_collections_until_revoked() {
    let sandbox = Sandbox::new();
    let shop = token(&sandbox, &["shop", "--role", "write,read", "--collection", "shop,web-*"]);
    let admin = token(&sandbox, &["admin", "--role", "admin"]);
    let server = Server::start(&sandbox, &["--set", "server.tokens=tokens.json"]);
    let call = |token: &str, method: &str, path: &str, body: &[u8]| {
        let headers = [
            ("authorization", format!("Bearer {token}")),
            ("content-type", "application/x-ndjson".to_owned()),
        ];
        server.call(method, path, &headers.each_ref().map(|(name, value)| (*name, value.as_str())), body)
    };
    assert_eq!(call(&shop, "POST", "/counters/shop/a", &[]).status, 200);
    assert_eq!(call(&shop, "POST", "/counters/other/a", &[]).code(403), "forbidden");
    let lines = br#"{"collection":"web-de","metric":"a"}
{"collection":"other","metric":"a"}"#;
    let answer = call(&shop, "POST", "/increments", lines).json(200);
    assert_eq!((&answer["accepted"], &answer["rejected"][0]["code"]), (&json!(1), &json!("forbidden")));
    assert_eq!(call(&admin, "POST", "/counters/other/a", &[]).status, 200);
    assert_eq!(
        call(&shop, "GET", "/counters", &[]).json(200)["collections"],
        json!({"shop": {"a": 1}, "web-de": {"a": 1}})
    );
    assert_eq!(call(&shop, "GET", "/counters/other", &[]).code(403), "forbidden");
    assert_eq!(call(&shop, "GET", "/stream?collection=other", &[]).code(403), "forbidden");

    let listed = sandbox.run(&["token", "list", "--tokens", "tokens.json", "-o", "json"]).expect(0).json();
    let tokens = listed["tokens"].as_array().unwrap();
    let id = tokens.iter().find(|token| token["name"] == "shop").unwrap()["id"].as_str().unwrap();
    sandbox.run(&["token", "revoke", id, "--tokens", "tokens.json"]).expect(0);
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while call(&shop, "GET", "/counters/shop", &[]).status != 401 {
        assert!(std::time::Instant::now() < deadline, "the token is still taken");
    }
    assert_eq!(call(&admin, "GET", "/counters/shop", &[]).status, 200);
}

#[test]
fn wrong_tokens_of_an_address_are_limited() {
    let sandbox = Sandbox::new();
    token(&sandbox, &["a", "--role", "read"]);
    let server = Server::start(&sandbox, &["--set", "server.tokens=tokens.json"]);
    let statuses: Vec<_> = (0..100)
        .map(|n| {
            let from = format!("10.0.0.{n}");
            let headers = [("authorization", "Bearer no"), ("x-forwarded-for", from.as_str())];
            server.call("GET", "/stats", &headers, &[]).status
        })
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(!statuses.iter().any(|status| ![401, 429].contains(status)), "{statuses:?}");
}

#[test]
fn pages_of_other_sites_change_nothing() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for headers in [
        [("origin", "http://evil.example"), ("accept", "*/*")],
        [("origin", "null"), ("accept", "*/*")],
        [("sec-fetch-site", "cross-site"), ("accept", "*/*")],
        [("sec-fetch-site", "same-site"), ("accept", "*/*")],
    ] {
        assert_eq!(
            server.call("POST", "/counters/web/a", &headers, &[]).code(403),
            "cross_site",
            "{headers:?}"
        );
    }
    assert_eq!(server.call("POST", "/counters/web/b", &[("origin", "http://127.0.0.1:1")], &[]).status, 200);
    // A name of another site that leads here.
    let answer =
        server.raw("GET /api/v1/counters HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert!(answer.contains("wrong_host"), "{answer}");
    assert_eq!(server.counters("web"), json!({"b": 1}));
}

#[test]
fn strangers_are_not_served_by_mistake() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["serve", "--listen", "0.0.0.0:0"]).expect(2);
    assert!(
        ran.err.contains("tokens (`server.tokens`) and TLS") && ran.err.contains("--insecure"),
        "{}",
        ran.err
    );
    assert!(!sandbox.path("countem.db").exists(), "nothing is opened before the configuration is good");
    sandbox.write("tokens.json", "{\"tokens\":[]}");
    let ran = sandbox.run(&["serve", "--set", "server.tokens=tokens.json"]).expect(2);
    assert!(ran.err.contains("has no token"), "{}", ran.err);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = sandbox.run(&["serve", "--listen", &address]).expect(1);
    assert!(ran.err.contains(&format!("cannot listen on {address}")), "{}", ran.err);
}

#[test]
fn headers_cannot_be_smuggled() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut connection =
        server.connect("GET /api/v1/counters/web/a%0d%0aset-cookie:%20x HTTP/1.1\r\nhost: localhost\r\n");
    connection.write_all(b"x-request-id: a\x01b\r\nconnection: close\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(connection).unwrap_or_default();
    assert!(!answer.to_ascii_lowercase().contains("\r\nset-cookie"), "{answer}");
    let answer = server.call("GET", "/stats", &[("x-request-id", "abc-1")], &[]);
    assert_eq!(answer.headers["x-request-id"], "abc-1");
    assert!(matches!(answer.json(200), Value::Object(_)));
}
