//! The macro `count!`. Every test counts in collections of its own.

use std::{sync::OnceLock, thread};

use countem::{Collector, Guard, MetricName, count};

fn collector() -> &'static Collector {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    GUARD.get_or_init(|| countem::install(Collector::for_test().0).unwrap());
    countem::installed().unwrap()
}

fn counted(collection: &str) -> Vec<(String, i64)> {
    let counters = collector().blocking().get_counters(collection, None).unwrap();
    counters.into_map().unwrap().into_iter().collect()
}

fn expected(counters: &[(&str, i64)]) -> Vec<(String, i64)> {
    counters.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

#[test]
fn names_of_a_loop_are_counted_each() {
    collector();
    for status in [200, 404, 500] {
        count!("loop", &format!("GET {status}"));
        count!(format!("loop-{status}"), "n", 2);
        count!("loop", "all", 1);
    }
    assert_eq!(counted("loop"), expected(&[("GET 200", 1), ("GET 404", 1), ("GET 500", 1), ("all", 3)]));
    assert_eq!(counted("loop-404"), expected(&[("n", 2)]));
}

#[test]
fn locals_and_constants_are_looked_up_every_time() {
    const METRIC: &str = "constant";
    collector();
    for (collection, metric) in [("locals-a", "x"), ("locals-b", "y")] {
        count!(collection, metric);
        count!(collection, METRIC, 3);
        let owned = metric.to_uppercase();
        count!(collection, &owned,);
    }
    assert_eq!(counted("locals-a"), expected(&[("X", 1), ("constant", 3), ("x", 1)]));
    assert_eq!(counted("locals-b"), expected(&[("Y", 1), ("constant", 3), ("y", 1)]));
}

#[test]
fn generic_function_counts_under_each_type() {
    fn count_type<T>() {
        count!("generic", std::any::type_name::<T>());
        count!("generic", "literal");
    }
    collector();
    count_type::<u8>();
    count_type::<u16>();
    count_type::<u16>();
    assert_eq!(counted("generic"), expected(&[("literal", 3), ("u16", 2), ("u8", 1)]));
}

#[test]
fn threads_share_a_call_site() {
    collector();
    thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                for n in 0..1000 {
                    count!("threads", "literal", n);
                    count!("threads", &format!("worker.{worker}"), 1);
                }
            });
        }
    });
    let workers = (0..4).map(|worker| (format!("worker.{worker}"), 1000));
    let expected: Vec<_> = [("literal".to_owned(), 4 * 499_500)].into_iter().chain(workers).collect();
    assert_eq!(counted("threads"), expected);
}

#[test]
fn invalid_name_is_counted_as_refused() {
    let refused = || collector().stats().refused["name"];
    let before = refused();
    for _ in 0..3 {
        count!("invalid", "no\nname");
    }
    assert_eq!(refused() - before, 3);
}

#[test]
fn labels_in_any_order_are_one_counter() {
    let collector = collector();
    let labels = [("plan", "pro"), ("country", "DE")];
    collector.increment_with("labels", "signups", &labels, 1);
    collector.try_increment_with("labels", "signups", &[labels[1], labels[0]], 2).unwrap();
    collector.counter_with("labels", "signups", &labels).unwrap().increment(4);
    let scope = collector.scoped("labels").unwrap();
    scope.increment_with("signups", &labels, 8);
    scope.try_increment_with("signups", &labels, 16).unwrap();
    scope.counter_with("signups", &[labels[1], labels[0]]).unwrap().increment(32);
    let metric = MetricName::labelled("signups", labels).unwrap();
    collector.increment("labels", metric.as_str(), 64);
    let now = "2026-01-01T12:00:00Z".parse().unwrap();
    collector.increment_at_with("labels", "signups", &labels, 128, now).unwrap();
    scope.increment_at_with("signups", &[labels[1], labels[0]], 256, now).unwrap();
    collector.blocking().increment_durable_with("labels", "signups", &labels, 512).unwrap();
    assert!(collector.increment_at_with("labels", "signups", &[labels[0], labels[0]], 1, now).is_err());
    for _ in 0..2 {
        count!("labels", "signups", country = "DE", plan = "pro");
        count!("labels", "signups", 3, plan = "pro", country = "DE",);
    }
    assert_eq!(counted("labels"), expected(&[(r#"signups{country="DE",plan="pro"}"#, 1031)]));
}

#[test]
fn labels_that_are_expressions_are_looked_up() {
    let name = String::from("expressions");
    collector();
    for (n, country) in [(1, "DE"), (2, "FR"), (3, "DE")] {
        let owned = country.to_owned();
        count!(&name, "m", country = country);
        count!("expressions", "m", country = owned, plan = "pro");
        count!("expressions", "n", n, country = &owned, type = "x");
        count!(&name, "n", n * 2, "http.method" = format!("GET {country}"));
        count!("expressions", "loop", plan = "pro");
    }
    let expected = expected(&[
        (r#"loop{plan="pro"}"#, 3),
        (r#"m{country="DE",plan="pro"}"#, 2),
        (r#"m{country="DE"}"#, 2),
        (r#"m{country="FR",plan="pro"}"#, 1),
        (r#"m{country="FR"}"#, 1),
        (r#"n{country="DE",type="x"}"#, 4),
        (r#"n{country="FR",type="x"}"#, 2),
        (r#"n{http.method="GET DE"}"#, 8),
        (r#"n{http.method="GET FR"}"#, 4),
    ]);
    assert_eq!(counted("expressions"), expected);
}

#[test]
fn labels_without_a_metric_are_refused_and_counted() {
    let (collector, _clock) = Collector::for_test();
    let long = "x".repeat(600);
    for labels in [&[("a b", "x")][..], &[("a", "x"), ("a", "y")], &[("", "x")], &[("a", &long)]] {
        collector.increment_with("c", "m", labels, 1);
        let refusal = collector.try_increment_with("c", "m", labels, 1).unwrap_err();
        assert_eq!(refusal.reason(), "name", "{refusal}");
        assert!(collector.counter_with("c", "m", labels).is_err());
    }
    assert!(collector.counter_with("no collection", "m", &[("a", "x")]).is_err());
    let stats = collector.stats();
    assert_eq!((stats.refused["name"], stats.accepted), (8, 0));
}
