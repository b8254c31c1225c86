//! Names are stored and read back identically, or refused with the reason; never mixed up.
//!
//! Shows G17 and G18.

use countem::{Collector, Refusal, store::Counters};

use crate::support::{CounterFile, counters};

/// Names that one store or another has stumbled over.
fn unusual_names() -> Vec<String> {
    let short = ["a", "a.b", "a..b", "$inc", "_id", "%2E", "🦀", " ", "A", "a ", "ä", "a\u{308}", "'", "\\0"];
    short.iter().map(|name| (*name).to_owned()).chain(["x".repeat(512), "🦀".repeat(128)]).collect()
}

/// Names that are refused, and what is said about them.
fn impossible_names() -> [(String, &'static str); 6] {
    [
        (String::new(), "metric name is empty"),
        ("x".repeat(513), "metric name is 513 bytes long, at most 512 are allowed"),
        (
            "a\0b".to_owned(),
            r"metric name `a\0b` has '\0' at byte 1; allowed: any UTF-8 but control characters",
        ),
        (
            "a\nb".to_owned(),
            r"metric name `a\nb` has '\n' at byte 1; allowed: any UTF-8 but control characters",
        ),
        ("\r".to_owned(), r"metric name `\r` has '\r' at byte 0; allowed: any UTF-8 but control characters"),
        (
            "é\u{7f}".to_owned(),
            r"metric name `é\u{7f}` has '\u{7f}' at byte 2; allowed: any UTF-8 but control characters",
        ),
    ]
}

/// Counts every name by another amount, through every door.
fn count_all(collector: &Collector, names: &[String]) -> Counters {
    for (n, name) in (1..).zip(names) {
        collector.increment("names", name, n);
        collector.counter("names", name).unwrap().increment(1000 * n);
        collector.increment_at("names", name, 1_000_000 * n, countem::Timestamp::now()).unwrap();
    }
    names.iter().cloned().zip((1..).map(|n| 1_001_001 * n)).collect()
}

#[test]
fn unusual_names_survive_reopening_the_file() {
    let file = CounterFile::new();
    let names = unusual_names();
    let collector = file.builder().start_blocking().unwrap();
    let once = count_all(&collector, &names);
    assert_eq!(once.len(), names.len(), "the test's own names differ");
    assert_eq!(collector.blocking().get_counters("names", None).unwrap(), once, "from memory");
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(file.counters("names"), once, "in the file");

    // Every name now meets a file that knows all of them.
    let collector = file.builder().start_blocking().unwrap();
    assert_eq!(collector.blocking().get_counters("names", None).unwrap(), once, "from the file");
    count_all(&collector, &names);
    let twice: Counters = once.readable().map(|(name, n)| (name, 2 * n)).collect();
    assert_eq!(collector.blocking().get_counters("names", None).unwrap(), twice, "from both");
    let today =
        countem::Bucket::day(countem::Timestamp::now().to_zoned(countem::jiff::tz::TimeZone::UTC).date());
    for (name, n) in twice.readable() {
        let one = collector.blocking().get("names", name, today.clone().unwrap()).unwrap();
        assert_eq!(one, Some(n), "{name:?} alone");
    }
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(file.counters("names"), twice);
}

#[test]
fn invalid_names_are_refused_with_the_reason() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    collector.increment("names", "good", 1);
    for (name, reason) in impossible_names() {
        let refusal = collector.try_increment("names", &name, 1).unwrap_err();
        assert!(matches!(refusal, Refusal::Name(_)), "{refusal:?}");
        assert_eq!(refusal.to_string(), reason);
        collector.increment("names", &name, 1);
        assert_eq!(collector.counter("names", &name).unwrap_err().to_string(), reason);
        let durable = collector.blocking().increment_durable("names", &name, 1).unwrap_err();
        assert_eq!(durable.to_string(), reason);
        let read = collector.blocking().get("names", &name, countem::Bucket::ALL).unwrap_err();
        assert_eq!(read.to_string(), reason);
    }
    assert_eq!(collector.stats().refused["name"], 18, "three increments of each");
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.accepted == 1, "{report:?}");
    assert_eq!(file.counters("names"), counters(&[("good", 1)]));
}

#[test]
fn similar_collection_names_are_never_mixed_up() {
    let file = CounterFile::new();
    let names = ["a", "a.b", "a..b", "A", "a-b", "a_b", "0", &"x".repeat(100), &"x".repeat(99)];
    let collector = file.builder().start_blocking().unwrap();
    for (n, name) in (1..).zip(names) {
        collector.increment(name, "b.c", n);
    }
    for (name, said) in [
        ("", "collection name is empty"),
        ("_countem", "'_' at byte 0"),
        ("a b", "' ' at byte 1"),
        ("ä", "'ä' at byte 0"),
        (&"x".repeat(101), "101 bytes long"),
    ] {
        let refusal = collector.try_increment(name, "b.c", 1).unwrap_err().to_string();
        assert!(refusal.contains(said), "{refusal}");
        let read = collector.blocking().get_counters(name, None).unwrap_err().to_string();
        assert!(read.contains(said), "{read}");
    }
    assert!(collector.blocking().shutdown().is_complete());

    let collector = file.builder().start_blocking().unwrap();
    for (n, name) in (1..).zip(names) {
        assert_eq!(collector.blocking().get_counters(name, None).unwrap(), counters(&[("b.c", n)]), "{name}");
    }
    let mut listed: Vec<_> = names.to_vec();
    listed.sort_unstable();
    let collections = collector.blocking().collections().unwrap();
    assert_eq!(collections.iter().map(|name| name.as_str()).collect::<Vec<_>>(), listed);
}
