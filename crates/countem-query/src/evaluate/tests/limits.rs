//! Queries that are refused.

use super::*;
use crate::Limits;

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[tokio::test]
async fn answer_beyond_a_limit_is_refused() {
    let world = november().await;
    let query = web().range(range("30d")).by_day();
    for (limits, name) in [
        (limits(|limits| limits.rows = 2), "rows"),
        (limits(|limits| limits.points = 4), "points"),
        (limits(|limits| limits.bytes = 20), "bytes"),
        (limits(|limits| limits.buckets = 29), "buckets"),
    ] {
        let error = world.error(&query.clone().limits(limits)).await;
        assert!(error.contains(&format!("the limit `{name}` of")), "{error}");
        let first = query.clone().limits(limits).limit(1).order(Order::Value);
        assert_eq!(world.reader.query(&first, now()).await.is_ok(), name != "buckets", "{name}");
    }
    let filled = query.fill(Fill::Zero).limits(limits(|limits| limits.points = 80));
    assert!(world.error(&filled).await.contains("`points` of 80"));
}

#[tokio::test]
async fn huge_ranges_are_refused_at_once() {
    let world = november().await;
    let began = std::time::Instant::now();
    for (text, step) in [("10y", Period::Second), ("0002..9000", Period::Day), ("all", Period::Minute)] {
        let error = world.error(&web().range(range(text)).by(step)).await;
        assert!(error.contains("`buckets`") || error.contains("stores no"), "{text}: {error}");
    }
    assert!(began.elapsed() < std::time::Duration::from_millis(500));
}

#[tokio::test]
async fn contradictions_are_refused() {
    let world = november().await;
    let cursor: Cursor = "web/x".parse().unwrap();
    for (query, why) in [
        (web().order(Order::Change), "earlier range"),
        (web().order(Order::Value).after(cursor.clone()), "order by name"),
        (web().reversed().after(cursor), "order by name"),
        (web().limit(0), "no rows"),
        (web().by_labels(Vec::<String>::new()), "needs a label"),
        (web().by_labels(["a", "b", "a"]), "twice"),
        (web().group(Group::Level { separator: String::new(), depth: 1 }), "separator"),
        (web().group(Group::Level { separator: ".".to_owned(), depth: 0 }), "first level"),
        (web().range(range("all")).compare(Compare::Previous), "no earlier range"),
        (web().range(range("2026-11")).by(Period::Month).compare(Compare::Weekdays), "weekday"),
        (web().range(range("0001")).compare(Compare::Previous), "no earlier range"),
        (web().range(range("2026-11-01..2026-11-20")).by(Period::Month), "not made up of whole"),
        (web().by_hour(), "stores no hour"),
    ] {
        let error = world.error(&query).await;
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn unfit_parts_are_errors_of_the_answer() {
    use jiff::{Span, ToSpan as _};
    let world = november().await;
    assert!(world.error(&Query::new("a b")).await.contains("collection name"));
    assert!(world.error(&web().and("").last(3.days())).await.contains("empty"));
    for span in [Span::new(), 1.day().hours(2), -3.days()] {
        assert!(world.error(&web().last(span)).await.contains("is not a time"), "{span}");
    }
    assert_eq!(values(&world.ask(&web().last(2.days())).await).len(), 3);
    assert_eq!(
        values(&world.ask(&web().last(1.month())).await),
        values(&world.ask(&web().range(range("2026-11"))).await)
    );
    assert_eq!(values(&world.ask(&web().bucket("2026-11-12".parse().unwrap())).await), [("GET 200", 4)]);
}
