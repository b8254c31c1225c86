//! The macro `count!`. Every test counts in collections of its own.

use std::{sync::OnceLock, thread};

use countem::{Collector, Guard, count};

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
