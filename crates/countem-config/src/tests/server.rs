//! The section `[server]`.

use super::*;

#[test]
fn every_server_key_reaches_its_field() {
    let cases = [
        ("server.listen", "localhost:7071", "listen: [127.0.0.1:7071, [::1]:7071]"),
        ("server.insecure", "true", "insecure: true"),
        ("server.hosts", "a.example,B.example", "hosts: [\"a.example\", \"b.example\"]"),
        ("server.tokens", "t.json", "tokens: Some(\"t.json\")"),
        ("server.tls_cert", "c.pem", "tls_cert: Some(\"c.pem\")"),
        ("server.tls_key", "k.pem", "tls_key: Some(\"k.pem\")"),
        ("server.tls_client_ca", "a.pem", "tls_client_ca: Some(\"a.pem\")"),
        ("server.guarantee", "store", " guarantee: Store"),
        ("server.min_guarantee", "journal", "min_guarantee: Journal"),
        ("server.max_guarantee", "journal", "max_guarantee: Journal"),
        ("server.max_body", "1", "max_body: 1,"),
        ("server.max_bodies", "2", "max_bodies: 2,"),
        ("server.max_items", "3", "max_items: 3,"),
        ("server.max_connections", "4", "max_connections: 4,"),
        ("server.max_streams", "5", "max_streams: 5,"),
        ("server.rate", "6", "rate: 6,"),
        ("server.head_timeout", "7s", "head_timeout: 7s"),
        ("server.body_timeout", "8s", "body_timeout: 8s"),
        ("server.idle_timeout", "9s", "idle_timeout: 9s"),
        ("server.write_timeout", "10s", "write_timeout: 10s"),
        ("server.drain", "11s", "drain: 11s"),
    ];
    for (key, value, shown) in cases {
        let server = format!("{:?}", from_flag(key, value).unwrap().server());
        assert!(server.contains(shown), "`{key}`: {server}");
    }
    for key in KEYS.iter().filter(|key| key.name.starts_with("server.")) {
        assert!(cases.iter().any(|(known, ..)| *known == key.name), "`{}` is missing in this test", key.name);
    }
    for (key, value, words) in [
        ("server.listen", "7070", "an address with a port"),
        ("server.hosts", "http://a", "host names"),
        ("server.guarantee", "disk", "\"memory\", \"journal\" or \"store\""),
        ("server.min_guarantee", "store", "up to `server.guarantee`"),
    ] {
        let error = from_flag(key, value).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
