//! Random counts and queries, answered a second time by adding up single events.
//!
//! Shows G20.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::LabelFilter;

const METRICS: [&str; 12] = [
    "a",
    "a.b",
    "a.b.c",
    "a.c",
    "b",
    "b{k=\"1\"}",
    "b{k=\"2\"}",
    "b{j=\"x\",k=\"1\"}",
    "b{j=\"\",k=\"2\"}",
    "c d",
    "é",
    "\u{10ffff}",
];
const COLLECTIONS: [&str; 2] = ["app", "web"];

#[derive(Debug, Clone)]
struct Event {
    collection: &'static str,
    metric: &'static str,
    day: usize,
    n: i64,
}

fn event() -> impl Strategy<Value = Event> {
    let fields = (select(&COLLECTIONS[..]), select(&METRICS[..]), 0..40_usize, -5..20_i64);
    fields.prop_map(|(collection, metric, day, n)| Event { collection, metric, day, n })
}

fn day(at: usize) -> Bucket {
    let days = BucketRange::new("2026-10-20".parse().unwrap(), "2026-12-31".parse().unwrap());
    days.unwrap().iter().nth(at).unwrap()
}

/// Name of the row of a metric, by labels and levels that are taken apart here by hand.
fn key(group: &Group, metric: &str) -> String {
    let (name, labels) = match metric.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (metric, ""),
    };
    match group {
        Group::Metric => metric.to_owned(),
        Group::All => String::new(),
        Group::Level { depth, .. } => name.split('.').take(*depth).collect::<Vec<_>>().join("."),
        Group::Labels(keys) => {
            let value = |key: &str| {
                let found = labels.split(',').find_map(|label| label.strip_prefix(&format!("{key}=\"")));
                found.map_or("", |value| value.trim_end_matches('"'))
            };
            let labels: Vec<_> = keys.iter().map(|key| format!("{key}=\"{}\"", value(key))).collect();
            format!("{{{}}}", labels.join(","))
        }
    }
}

fn group() -> impl Strategy<Value = Group> {
    prop_oneof![
        Just(Group::Metric),
        Just(Group::All),
        (1..4_usize).prop_map(|depth| Group::Level { separator: ".".to_owned(), depth }),
        Just(Group::Labels(vec!["k".to_owned()])),
        Just(Group::Labels(vec!["j".to_owned(), "k".to_owned()])),
    ]
}

type Selection = (Metrics, fn(&str) -> bool);

fn selection() -> impl Strategy<Value = Selection> {
    let all: [Selection; 5] = [
        (Metrics::All, |_| true),
        (Metrics::glob("a*"), |metric| metric.starts_with('a')),
        (Metrics::named("b"), |metric| metric == "b" || metric.starts_with("b{")),
        (Metrics::under("a.b", "."), |metric| metric == "a.b" || metric.starts_with("a.b.")),
        (Metrics::regex("[ab].*").unwrap(), |metric| metric.starts_with(['a', 'b'])),
    ];
    (0..all.len()).prop_map(move |at| all[at].clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn answers_equal_sums_of_events(
        events in vec(event(), 0..200),
        (first, length, step) in (0..35_usize, 1..20_usize, any::<bool>()),
        group in group(),
        (metrics, is_selected) in selection(),
        order in select(vec![Order::Name, Order::Value, Order::Change]),
        (is_reversed, limit, compared) in (any::<bool>(), 1..8_usize, any::<bool>()),
        fill in select(vec![Fill::None, Fill::Zero, Fill::Gap]),
        only_k1 in any::<bool>(),
    ) {
        let compared = compared || order == Order::Change;
        let last = first + length - 1;
        let mut query = web()
            .and("app")
            .metrics(metrics)
            .group(group.clone())
            .order(order)
            .fill(fill)
            .range(range(&format!("{}..{}", day(first), day(last))));
        if step {
            query = query.by_day();
        }
        if is_reversed {
            query = query.reversed();
        }
        if compared {
            query = query.compare(Compare::Previous);
        }
        if only_k1 {
            query = query.label(LabelFilter::is("k", "1"));
        }
        let whole = answer(&events, &query);
        let cut = answer(&events, &query.clone().limit(limit));

        let selected =
            events.iter().filter(|e| is_selected(e.metric) && (!only_k1 || e.metric.contains("k=\"1\"")));
        let mut expected = BTreeMap::<(String, String), (i64, i64, BTreeMap<Bucket, i64>)>::new();
        for event in selected {
            let row = || (event.collection.to_owned(), key(&group, event.metric));
            if (first..=last).contains(&event.day) {
                let row = expected.entry(row()).or_default();
                row.0 += event.n;
                *row.2.entry(day(event.day)).or_default() += event.n;
            } else if compared && event.day < first && event.day + length >= first {
                expected.entry(row()).or_default().1 += event.n;
            }
        }
        let mut rows: Vec<_> = whole.rows.iter().collect();
        rows.sort_by_key(|row| row.cursor());
        prop_assert_eq!(rows.len(), expected.len());
        for (row, (key, (value, earlier, points))) in rows.into_iter().zip(&expected) {
            prop_assert_eq!((row.collection.as_str(), &row.name), (key.0.as_str(), &key.1));
            prop_assert_eq!(&row.value, &Ok(*value));
            prop_assert_eq!(row.earlier.clone(), compared.then_some(Ok(*earlier)));
            if !step {
                prop_assert!(row.points.is_empty());
                continue;
            }
            let read = row.points.iter().filter_map(|(at, value)| Some((*at, value.clone()?.unwrap())));
            let read: BTreeMap<_, _> = read.collect();
            prop_assert_eq!(read.values().sum::<i64>(), *value);
            prop_assert!(points.iter().all(|(at, n)| read.get(at) == Some(n)));
            let is_filled = |n: i64| n == 0 && fill == Fill::Zero;
            prop_assert!(read.iter().all(|(at, n)| points.contains_key(at) || is_filled(*n)));
            let is_future = |at: Bucket| at.start_instant(&TimeZone::UTC) > now();
            let filled = (first..=last).filter(|at| !is_future(day(*at)) || points.contains_key(&day(*at)));
            let expected = if fill == Fill::None { points.len() } else { filled.count() };
            prop_assert_eq!(row.points.len(), expected);
        }
        let total: i64 = expected.values().map(|(value, ..)| value).sum();
        prop_assert_eq!(whole.total.clone(), Some(Ok(total)));
        let measure = |row: &Row| match order {
            Order::Name => 0,
            Order::Value => i128::from(*row.value.as_ref().unwrap()),
            Order::Change => row.change().unwrap(),
        };
        for pair in whole.rows.windows(2) {
            let (a, b) = (measure(&pair[0]), measure(&pair[1]));
            let names_descend = order == Order::Name && is_reversed;
            let (low, high) = if is_reversed { (a, b) } else { (b, a) };
            prop_assert!(low <= high);
            prop_assert!(a != b || (pair[0].cursor() < pair[1].cursor()) != names_descend);
        }
        prop_assert_eq!(&cut.rows[..], &whole.rows[..limit.min(whole.rows.len())]);
        if let Some(total) = cut.total {
            prop_assert_eq!(Some(total), whole.total);
        }
    }
}

fn answer(events: &[Event], query: &Query) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new("UTC", &[Period::Day]);
        let days: Vec<_> = events.iter().map(|event| day(event.day).to_string()).collect();
        let counted = events.iter().zip(&days);
        let counted = counted.map(|(event, day)| (event.collection, day.as_str(), event.metric, event.n));
        world.count(&counted.collect::<Vec<_>>()).await;
        world.ask(query).await
    })
}
