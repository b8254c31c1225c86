mod labels;
mod limits;
mod oracle;

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{Batch, BatchId, Bucket, Period, Table, Writer};
use countem_store::{MemoryStore, Store as _, Value};

use super::*;
use crate::TimeRange;

const NOW: &str = "2026-11-20T14:05:09Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A store that counts, batch by batch, and its reader.
struct World {
    store: Arc<MemoryStore>,
    reader: Reader,
    seq: u64,
}

impl World {
    fn new(zone: &str, periods: &[Period]) -> Self {
        let store = Arc::new(MemoryStore::new());
        let schedules = Schedules::new(&TimeZone::get(zone).unwrap(), periods, &BTreeMap::new()).unwrap();
        let reader = Reader::of_store(Arc::clone(&store) as _, Arc::new(schedules));
        Self { store, reader, seq: 0 }
    }

    async fn count(&mut self, counted: &[(&str, &str, &str, i64)]) {
        self.seq += 1;
        let mut table = Table::new();
        for (collection, bucket, metric, n) in counted {
            table.fold(collection, metric, bucket.parse().unwrap(), *n).unwrap();
        }
        let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: self.seq };
        self.store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    }

    async fn ask(&self, query: &Query) -> Answer {
        self.reader.query(query, now()).await.unwrap()
    }

    async fn error(&self, query: &Query) -> String {
        self.reader.query(query, now()).await.unwrap_err().to_string()
    }
}

/// The days of November, counted by day in UTC.
async fn november() -> World {
    let mut world = World::new("UTC", &[Period::Day]);
    world
        .count(&[
            ("web", "2026-11-12", "GET 200", 4),
            ("web", "2026-11-13", "GET 404", 9),
            ("web", "2026-11-18", "GET 200", 1),
            ("web", "2026-11-19", "GET 200", 10),
            ("web", "2026-11-19", "POST 200", 5),
            ("web", "2026-11-20", "GET 404", 2),
            ("app", "2026-11-20", "starts", 7),
        ])
        .await;
    world
}

fn web() -> Query {
    Query::new("web")
}

fn range(text: &str) -> TimeRange {
    text.parse().unwrap()
}

/// Names and values of the rows.
fn values(answer: &Answer) -> Vec<(&str, i64)> {
    answer.readable().map(|(row, value)| (row.name.as_str(), value)).collect()
}

/// Points of a row as text.
fn points(row: &Row) -> Vec<String> {
    let point = |(bucket, value): &(Bucket, Option<Value>)| match value {
        Some(Ok(value)) => format!("{bucket}={value}"),
        Some(Err(_)) => format!("{bucket}!"),
        None => format!("{bucket}"),
    };
    row.points.iter().map(point).collect()
}

#[tokio::test]
async fn metrics_are_summed_over_the_range() {
    let world = november().await;
    let answer = world.ask(&web()).await;
    assert_eq!((values(&answer), answer.total.clone()), (vec![("GET 404", 2)], Some(Ok(2))));
    assert!(answer.is_partial, "today is not over");
    let answer = world.ask(&web().range(range("3d"))).await;
    assert_eq!(values(&answer), [("GET 200", 11), ("GET 404", 2), ("POST 200", 5)]);
    assert_eq!(answer.range.to_string(), "2026-11-18..2026-11-20");
    let answer = world.ask(&web().range(range("2026-11-12..yesterday")).matching("GET *")).await;
    assert_eq!(values(&answer), [("GET 200", 15), ("GET 404", 9)]);
    assert_eq!((answer.is_partial, answer.total), (false, Some(Ok(24))));
    let all = web().and("app").range(range("all"));
    let answer = world.ask(&all).await;
    let rows: Vec<_> = answer.rows.iter().map(|row| (row.collection.as_str(), row.name.as_str())).collect();
    assert_eq!(rows, [("app", "starts"), ("web", "GET 200"), ("web", "GET 404"), ("web", "POST 200")]);
}

#[tokio::test]
async fn fill_decides_about_points_without_counts() {
    let world = november().await;
    let query = web().matching("GET *").range(range("2026-11-18..2026-11-22")).by_day();
    let answer = world.ask(&query).await;
    assert_eq!(points(&answer.rows[0]), ["2026-11-18=1", "2026-11-19=10"]);
    let answer = world.ask(&query.clone().fill(Fill::Zero)).await;
    assert_eq!(points(&answer.rows[1]), ["2026-11-18=0", "2026-11-19=0", "2026-11-20=2"]);
    let answer = world.ask(&query.fill(Fill::Gap)).await;
    assert_eq!(points(&answer.rows[0]), ["2026-11-18=1", "2026-11-19=10", "2026-11-20"]);
}

#[tokio::test]
async fn rows_are_ordered_and_cut() {
    let world = november().await;
    let query = web().range(range("all")).order(Order::Value);
    assert_eq!(values(&world.ask(&query).await), [("GET 200", 15), ("GET 404", 11), ("POST 200", 5)]);
    let first = world.ask(&query.clone().limit(1).by_day()).await;
    assert_eq!(values(&first), [("GET 200", 15)]);
    assert_eq!(points(&first.rows[0]), ["2026-11-12=4", "2026-11-18=1", "2026-11-19=10"]);
    assert_eq!((first.total, first.next), (Some(Ok(31)), None));
    let smallest = world.ask(&query.reversed().limit(2)).await;
    assert_eq!(values(&smallest), [("POST 200", 5), ("GET 404", 11)]);
}

#[tokio::test]
async fn ranges_are_compared_with_earlier_ones() {
    let world = november().await;
    let week = web().range(range("2026-11-14..2026-11-20"));
    let answer = world.ask(&week.clone().compare(Compare::Previous).order(Order::Change)).await;
    assert_eq!(answer.earlier.unwrap().to_string(), "2026-11-07..2026-11-13");
    let changes: Vec<_> =
        answer.rows.iter().map(|row| (row.name.as_str(), row.change(), row.relative_change())).collect();
    assert_eq!(
        changes,
        [
            ("GET 200", Some(7), Some(1.75)),
            ("POST 200", Some(5), None),
            ("GET 404", Some(-7), Some(-7.0 / 9.0)),
        ]
    );
    let days = web().range(range("2d")).compare(Compare::Weekdays);
    let answer = world.ask(&days).await;
    assert_eq!(answer.earlier.unwrap().to_string(), "2026-11-12..2026-11-13");
    let rows: Vec<_> = answer.rows.iter().map(|row| (row.name.as_str(), row.change())).collect();
    assert_eq!(rows, [("GET 200", Some(6)), ("GET 404", Some(-7)), ("POST 200", Some(5))]);
    let month = web().range(range("2026-11")).compare(Compare::Previous);
    assert_eq!(world.ask(&month).await.earlier.unwrap().to_string(), "2026-10..2026-10");
}

#[tokio::test]
async fn comparison_with_a_day_left_out_is_refused() {
    let mut world = World::new("Pacific/Apia", &[Period::Day]);
    world.count(&[("web", "2011-12-29", "m", 16), ("web", "2011-12-31", "m", 8)]).await;
    let query = web().range(range("2011-12-31")).compare(Compare::Previous);
    assert!(world.error(&query).await.contains("the date line left out"));
    let answer = world.ask(&query.range(range("2011-12-29"))).await;
    assert_eq!(answer.rows[0].change(), Some(16));
}

#[tokio::test]
async fn unreadable_value_spoils_no_other_row() {
    let mut world = november().await;
    world.count(&[("web", "2026-11-19", "huge", i64::MAX), ("web", "2026-11-20", "huge", 1)]).await;
    let answer = world.ask(&web().range(range("2d")).order(Order::Value).by_day()).await;
    assert_eq!(values(&answer), [("GET 200", 10), ("POST 200", 5), ("GET 404", 2)]);
    let last = answer.rows.last().unwrap();
    assert_eq!((last.name.as_str(), last.value.is_err(), last.points.len()), ("huge", true, 2));
    assert!(answer.has_unreadable() && answer.total.unwrap().is_err());
    // Among the first of a ranking it is missing, and said.
    for query in [web().order(Order::Value), web().order(Order::Value).reversed().by_day()] {
        let answer = world.ask(&query.range(range("2d")).limit(1)).await;
        assert_eq!(answer.unranked.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["huge"]);
        assert!(answer.has_unreadable());
    }
}

#[tokio::test]
async fn pages_return_every_row_once_beside_a_writer() {
    let mut world = World::new("UTC", &[Period::Day]);
    let names: Vec<_> = (0..40).map(|i| format!("m{i:02}")).collect();
    let mut counted: Vec<_> = names.iter().map(|name| ("web", "2026-11-20", name.as_str(), 1)).collect();
    counted.extend(names.iter().map(|name| ("app", "2026-11-19", name.as_str(), 2)));
    world.count(&counted).await;
    for limit in [1, 3, 7, 39, 40, 41, 100] {
        let query = web().and("app").range(range("2d")).limit(limit);
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = match after.take() {
                Some(after) => world.ask(&query.clone().after(after)).await,
                None => world.ask(&query).await,
            };
            assert!(page.rows.len() <= limit);
            read.extend(page.rows.iter().map(|row| (row.collection.to_string(), row.name.clone())));
            let text = format!("new {limit} {}", read.len());
            world.count(&[("web", "2026-11-20", &text, 1), ("app", "2026-11-20", "a", 1)]).await;
            match page.next {
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => break,
            }
        }
        let known: Vec<_> = read.iter().filter(|(_, name)| names.contains(name)).collect();
        let expected: Vec<_> = ["app", "web"]
            .iter()
            .flat_map(|collection| names.iter().map(|name| ((*collection).to_owned(), name.clone())))
            .collect();
        assert_eq!(known, expected.iter().collect::<Vec<_>>(), "pages of {limit}");
    }
}
