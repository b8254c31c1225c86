//! The examples do what their comments say.

use std::process::Stdio;

use countem_testkit::{Mongod, Options, Port, require_mongod};

use crate::{
    mongodb::program::program,
    support::{CounterFile, Program, counters, eventually, http_get},
};

#[test]
fn embedded_adds_up_over_threads_and_runs() {
    let file = CounterFile::new();
    let path = file.path();
    for run in 1..=2 {
        let lines = Program::start(env!("CARGO_BIN_EXE_embedded"), &[path.to_str().unwrap()]).finish();
        assert!(lines.contains(&"after a flush, 0 increments are pending".to_owned()), "{lines:#?}");
        assert!(lines.last().unwrap().starts_with("8041 increments accepted, 8041 stored in "), "{lines:#?}");
        let failed = (0..4).map(|worker| (format!("failed.{worker}"), 10 * run));
        let mut jobs = counters(&[("bytes", 4 * 499_500 * run), ("done", 4000 * run)]);
        jobs.extend(failed);
        assert_eq!(file.counters("jobs"), jobs);
        assert_eq!(file.counters("program"), counters(&[("starts", run)]));
    }
}

#[test]
fn custom_store_keeps_every_law_and_its_counts() {
    let lines = Program::start(env!("CARGO_BIN_EXE_custom_store"), &[]).finish();
    let laws = lines.iter().filter(|line| line.starts_with("law: ")).count();
    assert_eq!(laws, countem::store::conformance::LAWS.len());
    assert!(lines.contains(&format!("the store keeps all {laws} laws")), "{lines:#?}");
    assert!(lines.contains(&r#"run 2 reads {"bytes": 3000, "starts": 2}"#.to_owned()), "{lines:#?}");
}

#[test]
fn web_service_stores_every_request_when_terminated() {
    let file = CounterFile::new();
    let port = Port::reserve().unwrap();
    let mut command = countem_testkit::command(env!("CARGO_BIN_EXE_web_service"));
    let number = port.number();
    command.args([&number.to_string(), file.path().to_str().unwrap()]).stdout(Stdio::piped());
    let mut service = Program::spawn(command);
    eventually("an open port", || {
        assert_eq!(service.child.try_wait().unwrap(), None, "the service has ended");
        http_get(number, "/no/such/page").is_ok_and(|answer| answer.status == 404)
    });
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                for visit in 0..25 {
                    let answer = http_get(number, &format!("/hello/{client}-{visit:02}")).unwrap();
                    assert_eq!(
                        (answer.status, &*answer.body),
                        (200, &*format!("hello {client}-{visit:02}\n"))
                    );
                }
            });
        }
    });
    let answer = http_get(number, "/counters").unwrap();
    assert_eq!(answer.status, 200);
    let today: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        today["web"],
        serde_json::json!({ "GET (no route) 404": 1, "GET /hello/{name} 200": 100 }),
        "{}",
        answer.body
    );
    assert_eq!(today["web-bytes"]["GET /hello/{name} 200"], 1100);
    let metrics = http_get(number, "/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    let accepted = metrics.body.lines().find(|line| line.starts_with("countem_increments_accepted_total"));
    assert_eq!(
        accepted,
        Some("countem_increments_accepted_total 204"),
        "two for each request before this one"
    );

    service.child.terminate().unwrap();
    let lines = service.finish();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("206 increments accepted, 206 stored in "), "{lines:#?}");
    let expected = [
        ("GET (no route) 404", 1),
        ("GET /counters 200", 1),
        ("GET /hello/{name} 200", 100),
        ("GET /metrics 200", 1),
    ];
    assert_eq!(file.counters("web"), counters(&expected));
}

#[test]
fn http_client_counts_through_a_server() {
    let file = CounterFile::new();
    let port = Port::reserve().unwrap();
    let mut command = countem_testkit::command(program());
    let address = format!("127.0.0.1:{}", port.number());
    command
        .args(["serve", "--quiet", "--listen", &address])
        .current_dir(file.folder())
        .stdout(Stdio::piped());
    let mut server = Program::spawn(command);
    eventually("an open port", || {
        assert_eq!(server.child.try_wait().unwrap(), None, "the server has ended");
        http_get(port.number(), "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    let url = format!("http://{address}");
    let lines = Program::start(env!("CARGO_BIN_EXE_http_client"), &[&url]).finish();
    let expected = ["100 accepted, safe in the journal", "order 1", "revenue.cents{country=\"DE\"} 5050"];
    assert_eq!(lines, expected);
    server.child.terminate().unwrap();
    server.finish();
}

#[tokio::test]
async fn mongodb_adds_up_over_nodes_and_runs() {
    if !require_mongod() {
        return;
    }
    let mongod = Mongod::start(Options::default()).await.unwrap();
    for run in 1..=2 {
        let lines = Program::start(env!("CARGO_BIN_EXE_mongodb"), &[&mongod.uri()]).finish();
        let read = lines.iter().filter_map(|line| line.strip_prefix("  orders "));
        let read: Vec<Vec<_>> = read.map(|line| line.split_whitespace().collect()).collect();
        let (placed, cents) = ((4000 * run).to_string(), (4000 * 1999 * run).to_string());
        assert_eq!(read, [["placed", &placed], ["value.cents", &cents]], "{lines:#?}");
        for node in 0..2 {
            let told = format!("node {node}: 4000 increments accepted, 4000 stored in ");
            assert!(lines.iter().any(|line| line.starts_with(&told)), "{lines:#?}");
        }
    }
}
