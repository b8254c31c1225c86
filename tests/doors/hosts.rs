//! The same collector in every kind of program.
//!
//! Shows G7.

use std::thread;

use actix_web::{App, HttpServer, web};
use countem::{Bucket, BucketRange, Collector, Error, Period, Refusal, Timestamp, jiff::tz::TimeZone};

use crate::support::{CounterFile, counters, eventually, http_get};

/// Counts, reads, flushes and shuts down: the body of the async programs of these tests.
async fn count_and_read(file: &CounterFile) {
    let collector = file.builder().start().await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let collector = collector.clone();
            tokio::spawn(async move {
                let handle = collector.counter("app-events", "handled").unwrap();
                for _ in 0..500 {
                    collector.increment("app-events", "MyMethod.calls", 1);
                    handle.increment(2);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected = counters(&[("MyMethod.calls", 4000), ("handled", 8000)]);
    assert_eq!(collector.get_counters("app-events", None).await.unwrap(), expected, "before a flush");
    assert_eq!(file.sum("app-events"), 0, "nothing was to be stored yet");
    collector.flush().await.unwrap();
    assert_eq!(file.counters("app-events"), expected);
    collector.increment_durable("app-events", "durable", 1).await.unwrap();
    assert_eq!(file.counters("app-events")["durable"], 1);
    let report = collector.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    assert_eq!(report.accepted, 8001);
    assert_eq!(collector.shutdown().await, report, "a second shutdown tells the same");
}

#[test]
fn collector_works_under_tokio_with_many_threads() {
    #[tokio::main]
    async fn program(file: &CounterFile) {
        count_and_read(file).await;
    }
    program(&CounterFile::new());
}

#[test]
fn collector_works_under_tokio_with_one_thread() {
    #[tokio::main(flavor = "current_thread")]
    async fn program(file: &CounterFile) {
        count_and_read(file).await;
    }
    program(&CounterFile::new());
}

#[test]
fn collector_works_in_actix_web_with_many_threads() {
    const CLIENTS: i64 = 8;
    const REQUESTS: i64 = 25;

    async fn visit(collector: web::Data<Collector>, name: web::Path<String>) -> String {
        collector.increment("web", "GET /visit", 1);
        collector.increment("visitors", &name, 1);
        format!("{:?}", thread::current().id())
    }

    #[actix_web::main]
    async fn program(file: &CounterFile) {
        let collector = file.builder().start().await.unwrap();
        let shared = collector.clone();
        let server = HttpServer::new(move || {
            let collector = web::Data::new(shared.clone());
            App::new().app_data(collector).route("/visit/{name}", web::get().to(visit))
        });
        let server = server.workers(4).bind(("127.0.0.1", 0)).unwrap();
        let port = server.addrs()[0].port();
        let server = server.run();
        let handle = server.handle();
        let serving = actix_web::rt::spawn(server);

        // Plain blocking clients on threads of their own; dropped at the end of the block, they are all done.
        let clients = (0..CLIENTS).map(|client| {
            actix_web::rt::task::spawn_blocking(move || {
                let visit = || http_get(port, &format!("/visit/client-{client}")).unwrap();
                (0..REQUESTS).map(|_| visit()).map(|answer| (answer.status, answer.body)).collect::<Vec<_>>()
            })
        });
        let mut threads = std::collections::BTreeSet::new();
        for client in clients.collect::<Vec<_>>() {
            for (status, body) in client.await.unwrap() {
                assert_eq!(status, 200);
                threads.insert(body);
            }
        }
        assert!(threads.len() > 1, "only one thread has answered");

        let today = collector.get_all_counters(None).await.unwrap();
        assert_eq!(today.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["visitors", "web"]);
        assert_eq!(today["web"], counters(&[("GET /visit", CLIENTS * REQUESTS)]));
        assert_eq!(today["visitors"].len(), 8);
        assert!(today["visitors"].values().all(|visits| visits == Ok(REQUESTS)));
        handle.stop(true).await;
        serving.await.unwrap().unwrap();
        assert!(collector.shutdown().await.is_complete());
    }

    let file = CounterFile::new();
    program(&file);
    assert_eq!(file.counters("web"), counters(&[("GET /visit", CLIENTS * REQUESTS)]));
}

#[test]
fn collector_works_without_a_runtime() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| collector.increment("jobs", "done", 1)));
        }
    });
    let expected = counters(&[("done", 4000)]);
    assert_eq!(collector.blocking().get_counters("jobs", None).unwrap(), expected);
    assert_eq!(collector.blocking().get_all_counters(None).unwrap()["jobs"], expected);
    assert_eq!(collector.blocking().collections().unwrap()[0].as_str(), "jobs");
    let month = Bucket::containing(Period::Month, Timestamp::now(), &TimeZone::UTC).unwrap();
    assert_eq!(collector.blocking().get("jobs", "done", month).unwrap(), Some(4000));
    let months = collector.blocking().series("jobs", "done", BucketRange::one(month)).unwrap();
    assert_eq!(months.into_iter().collect::<Vec<_>>(), [(month, 4000)]);
    collector.blocking().flush().unwrap();
    assert_eq!(file.counters("jobs"), expected);
    collector.blocking().increment_durable("jobs", "done", 1).unwrap();
    assert_eq!(file.counters("jobs"), counters(&[("done", 4001)]));
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.accepted == 4001, "{report:?}");
}

#[test]
fn collector_outlives_the_runtime_that_started_it() {
    let file = CounterFile::new();
    let builder = file.builder();
    let run = |name| tokio::runtime::Builder::new_multi_thread().thread_name(name).build().unwrap();
    let collector = run("first").block_on(builder.start()).unwrap();
    collector.increment("c", "a", 1);
    run("second").block_on(collector.flush()).unwrap();
    assert_eq!(file.counters("c"), counters(&[("a", 1)]));
    collector.increment("c", "a", 1);
    assert!(run("third").block_on(collector.shutdown()).is_complete());
    assert_eq!(file.counters("c"), counters(&[("a", 2)]));
}

#[test]
fn two_collectors_of_one_process_count_apart() {
    let (file, other_file) = (CounterFile::new(), CounterFile::new());
    let collector = file.builder().start_blocking().unwrap();
    let other = other_file.builder().start_blocking().unwrap();
    let (handle, other_handle) = (collector.counter("c", "a").unwrap(), other.counter("c", "a").unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    collector.increment("c", "a", 1);
                    other.increment("c", "a", 10);
                    handle.increment(100);
                    other_handle.increment(1000);
                }
            });
        }
    });
    assert!(collector.blocking().shutdown().is_complete());
    other.increment("c", "b", 1);
    assert!(other.blocking().shutdown().is_complete(), "the end of one is not the end of the other");
    assert_eq!(file.counters("c"), counters(&[("a", 404_000)]));
    assert_eq!(other_file.counters("c"), counters(&[("a", 4_040_000), ("b", 1)]));
}

#[test]
fn two_collectors_add_up_in_one_file() {
    let file = CounterFile::new();
    let collectors = [(), ()].map(|()| file.builder().start_blocking().unwrap());
    thread::scope(|scope| {
        for collector in &collectors {
            scope.spawn(|| {
                for _ in 0..20 {
                    (0..100).for_each(|_| collector.increment("c", "a", 1));
                    collector.blocking().flush().unwrap();
                }
            });
        }
    });
    for collector in &collectors {
        let read = collector.blocking().get_counters("c", None).unwrap();
        assert_eq!(read, counters(&[("a", 4000)]), "each reads what the other has stored");
        assert!(collector.blocking().shutdown().is_complete());
    }
    assert_eq!(file.counters("c"), counters(&[("a", 4000)]));
    assert_eq!(file.writers(), 0, "writers that ended cleanly leave nothing behind");
}

#[test]
fn dropping_last_clone_stores_pending_counts() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    let clone = collector.clone();
    collector.increment("c", "a", 1);
    clone.counter("c", "a").unwrap().increment(10);
    drop(collector);
    assert_eq!(file.sum("c"), 0, "a clone is left, which may go on counting");
    clone.increment("c", "a", 100);
    drop(clone);
    eventually("the background flush", || file.sum("c") == 111);
}

#[test]
fn increments_after_shutdown_are_refused_and_reported() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    let handle = collector.counter("c", "a").unwrap();
    handle.increment(1);
    assert!(collector.blocking().shutdown().is_complete());
    collector.increment("c", "a", 1);
    handle.increment(1);
    collector.counter("c", "new").unwrap().increment(1);
    assert_eq!(collector.try_increment("c", "a", 1).unwrap_err().to_string(), "collector is shut down");
    let durable = collector.blocking().increment_durable("c", "a", 1);
    assert!(matches!(durable, Err(Error::Refused(Refusal::Closed))), "{durable:?}");
    assert_eq!(collector.stats().refused["closed"], 5);
    assert_eq!(file.counters("c"), counters(&[("a", 1)]));
}
