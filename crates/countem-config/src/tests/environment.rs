//! Variables of the environment.

use crate::{Config, Sources};

#[test]
fn links_of_services_are_no_configuration() {
    // The variables that the kubelet sets for services `countem`, `countem-metrics`, `countem-redis` and `countem--flush`.
    let services =
        [("", "7070"), ("METRICS_", "9090"), ("REDIS_", "6379"), ("_FLUSH_", "1"), ("PORT_", "80")];
    let links = services.iter().flat_map(|(service, port)| {
        let name = format!("COUNTEM_{service}");
        let url = format!("tcp://10.96.0.7:{port}");
        [
            (format!("{name}PORT"), url.clone()),
            (format!("{name}PORT_{port}_TCP"), url),
            (format!("{name}PORT_{port}_TCP_PROTO"), "tcp".to_owned()),
            (format!("{name}PORT_{port}_TCP_PORT"), (*port).to_owned()),
            (format!("{name}PORT_{port}_TCP_ADDR"), "10.96.0.7".to_owned()),
            (format!("{name}SERVICE_HOST"), "10.96.0.7".to_owned()),
            (format!("{name}SERVICE_PORT"), (*port).to_owned()),
            (format!("{name}SERVICE_PORT_HTTP"), (*port).to_owned()),
        ]
    });
    let links: Vec<_> = links.collect();
    let config = Config::load(&Sources::default().environment(links.clone())).unwrap();
    assert_eq!(config, Config::default());

    for (name, value, meant) in [
        ("COUNTEM_PORT", "7071", "server.listen"),
        ("COUNTEM_LISTEN", "127.0.0.1:7071", "server.listen"),
        ("COUNTEM__SERVER__LISTN", "127.0.0.1:7071", "server.listen"),
        ("COUNTEM__SERVER__PORT", "7071", "server.PORT"),
        ("COUNTEM__STORE__PORT_80_TCP", "x", "store.port_80_tcp"),
    ] {
        let beside = links.clone().into_iter().filter(|(link, _)| link != name);
        let error = Config::load(&Sources::default().environment(beside).environment([(name, value)]));
        let error = error.unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(name) && error.contains(&meant.to_lowercase()), "{error}");
    }
}
