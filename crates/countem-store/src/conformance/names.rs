//! Laws of names.

use countem_core::{BucketRange, MetricName};

use super::{DAY, Lane, apply, bucket, counters};
use crate::{Counters, RowQuery, Rows, Select, Store};

/// Names with a meaning in the syntax of a database, and ones that look alike.
const NAMES: &[&str] = &[
    "a",
    "a.b",
    "a..b",
    "a.b.c",
    ".",
    "..",
    ".a",
    "a.",
    "$inc",
    "$",
    "a$",
    "$$",
    "_id",
    "%2E",
    "%",
    "%%",
    "%24",
    "%252E",
    "c",
    "w",
    "w.x",
    "c.a",
    "GET 200",
    "/path?x=1&y=2",
    "\u{1f980}",
    "ä",
    "a\u{308}",
    " ",
    "  ",
    "A",
    "'",
    "\"",
    "`",
    "\\",
    "\\u0000",
    "0",
    "-1",
    "null",
    "__proto__",
    "__overflow__",
    "%00",
    "expires_at",
];

pub(super) fn all_names() -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend([
        "x".repeat(512),
        ".".repeat(512),
        "%".repeat(512),
        "$".repeat(512),
        "\u{1f980}".repeat(128),
    ]);
    names
}

pub(super) async fn names_are_read_back_identically_and_never_mixed_up(store: &dyn Store, mut lane: Lane) {
    let names = all_names();
    let expected: Counters = names.iter().cloned().zip(1..).collect();
    let deltas: Vec<_> = expected.readable().map(|(name, n)| (DAY, name, n)).collect();
    apply(store, &lane.batch(&deltas)).await;
    assert_eq!(lane.day(store).await, expected);
    for (name, n) in expected.readable() {
        let metric = MetricName::new(name).expect("the listed names are valid");
        let range = BucketRange::one(bucket(DAY));
        let query = RowQuery { collection: lane.collection.clone(), range, select: Select::One(metric) };
        let rows = store.read(&query, None).await.expect("a read succeeds");
        assert_eq!(rows, Rows::from([(bucket(DAY), counters(&[(name, n)]))]));
    }
}

pub(super) async fn names_survive_on_existing_counters(store: &dyn Store, mut lane: Lane) {
    let names = all_names();
    // One at a time, so that every later name meets a bucket that holds all earlier ones.
    for name in &names {
        apply(store, &lane.batch(&[(DAY, name, 1)])).await;
    }
    let all: Vec<_> = names.iter().map(|name| (DAY, name.as_str(), 1)).collect();
    apply(store, &lane.batch(&all)).await;
    assert_eq!(lane.day(store).await, names.iter().map(|name| (name.clone(), 2)).collect::<Counters>());
}
