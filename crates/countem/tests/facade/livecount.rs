//! All that Livecount does, in countem's words.

use countem::{
    Bucket, Collector, Period, Query,
    jiff::{ToSpan as _, tz::TimeZone},
    query::Order,
    store::MemoryStore,
};

/// A collector that stores all periods, as Livecount does.
async fn collector() -> Collector {
    let builder = Collector::builder().custom_store(MemoryStore::new()).periods(Period::ALL);
    builder.zone(TimeZone::get("Europe/Berlin").unwrap()).start().await.unwrap()
}

fn bucket(id: &str) -> Bucket {
    id.parse().unwrap()
}

#[tokio::test]
async fn livecount_eight_periods_are_counted() {
    let collector = collector().await;
    let at = "2026-11-20T22:30:15Z".parse().unwrap();
    collector.increment_at("game", "plays", 3, at).unwrap();
    for (period, id) in [
        (Period::Second, "2026-11-20T22:30:15"),
        (Period::Minute, "2026-11-20T22:30"),
        (Period::Hour, "2026-11-20T22"),
        (Period::Day, "2026-11-20"),
        (Period::Week, "2026-W47"),
        (Period::Month, "2026-11"),
        (Period::Year, "2026"),
        (Period::All, "all"),
    ] {
        assert_eq!(bucket(id).period(), period);
        assert_eq!(collector.get("game", "plays", bucket(id)).await.unwrap(), Some(3), "{id}");
        let answer = collector.query(Query::new("game").bucket(bucket(id))).await.unwrap();
        assert_eq!(answer.rows[0].value, Ok(3), "{id}");
    }
    collector.shutdown().await;
}

#[tokio::test]
async fn livecount_decrement_stops_at_zero() {
    let (collector, _) = Collector::for_test();
    collector.increment("game", "online", 5);
    let decrement = |n| collector.decrement_to_zero("game", "online", n, None);
    assert_eq!(decrement(3).await.unwrap(), 2);
    assert_eq!(decrement(3).await.unwrap(), 0);
    assert_eq!(decrement(u64::MAX).await.unwrap(), 0);
    assert_eq!(collector.get("game", "online", None).await.unwrap(), Some(0));
    // A negative increment has no floor.
    assert_eq!(collector.increment_and_get("game", "online", -2, None).await.unwrap(), -2);
    assert_eq!(decrement(1).await.unwrap(), -2);
    assert!(collector.decrement_to_zero("game", "", 1, None).await.is_err());
}

#[tokio::test]
async fn concurrent_decrements_stop_at_zero() {
    let (collector, _) = Collector::for_test();
    collector.increment("game", "online", 50);
    let decrements = (0..40).map(|i| {
        let collector = collector.clone();
        tokio::spawn(async move { collector.decrement_to_zero("game", "online", 1 + i % 4, None).await })
    });
    for decrement in decrements.collect::<Vec<_>>() {
        assert!(decrement.await.unwrap().unwrap() >= 0);
    }
    assert_eq!(collector.get("game", "online", None).await.unwrap(), Some(0));
}

#[tokio::test]
async fn livecount_load_and_increment_returns_the_sum() {
    let (collector, _) = Collector::for_test();
    for expected in 1..=5 {
        assert_eq!(collector.increment_and_get("game", "plays", 1, None).await.unwrap(), expected);
        if expected % 2 == 0 {
            collector.flush().await.unwrap();
        }
    }
    assert_eq!(collector.increment_and_get("game", "plays", 10, Period::All).await.unwrap(), 15);
    assert!(collector.increment_and_get("game", "", 1, None).await.is_err());
}

#[tokio::test]
async fn livecount_namespaces_are_collections() {
    let (collector, _) = Collector::for_test();
    let (europe, asia) = (collector.scoped("europe").unwrap(), collector.scoped("asia").unwrap());
    europe.increment("plays", 1);
    asia.increment("plays", 2);
    assert_eq!(europe.get("plays", None).await.unwrap(), Some(1));
    let answer = collector.query(Query::new("europe").and("asia")).await.unwrap();
    let rows: Vec<_> = answer.rows.iter().map(|row| (row.collection.as_str(), row.value.clone())).collect();
    assert_eq!(rows, [("asia", Ok(2)), ("europe", Ok(1))]);
}

#[tokio::test]
async fn livecount_top_list_is_ordered_both_ways() {
    let (collector, _) = Collector::for_test();
    for i in 0..100 {
        collector.increment("game", &format!("level {i:02}"), i * 7 % 100);
    }
    let top = Query::new("game").matching("level *").order(Order::Value).limit(20);
    let values = |answer: &countem::query::Answer| -> Vec<i64> {
        answer.rows.iter().map(|row| row.value.clone().unwrap()).collect()
    };
    let largest = collector.query(top.clone()).await.unwrap();
    assert_eq!(values(&largest), (80..100).rev().collect::<Vec<_>>());
    let smallest = collector.query(top.reversed()).await.unwrap();
    assert_eq!(values(&smallest), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn livecount_series_go_backwards_and_forwards() {
    let (collector, _) = Collector::for_test();
    for day in 1..=5_i8 {
        let at = format!("2025-12-{:02}T10:00:00Z", 26 + day);
        collector.increment_at("game", "plays", day.into(), at.parse().unwrap()).unwrap();
    }
    let query = Query::new("game").last(6.days()).by_day();
    let answer = collector.query(query).await.unwrap();
    let points = &answer.rows[0].points;
    assert_eq!(points.first().unwrap(), &(bucket("2025-12-27"), Some(Ok(1))));
    assert_eq!(points.last().unwrap(), &(bucket("2025-12-31"), Some(Ok(5))));
    assert_eq!(answer.rows[0].value, Ok(15));
}
