//! Labels and hierarchies.

use countem_core::{Labelled, MetricName};

use super::*;
use crate::LabelFilter;

fn filter(text: &str) -> LabelFilter {
    text.parse().unwrap()
}

async fn signups() -> World {
    let mut world = World::new("UTC", &[Period::Day]);
    let labelled =
        |labels: &[(&str, &str)]| MetricName::labelled("m", labels.iter().copied()).unwrap().to_string();
    let metrics = [
        ("m".to_owned(), 1),
        (labelled(&[("plan", "")]), 2),
        (labelled(&[("plan", "a")]), 4),
        (labelled(&[("plan", "a"), ("country", "DE")]), 8),
        (r#"m{plan="a",country="DE"}"#.to_owned(), 16),
        (labelled(&[("plan", "b"), ("country", "say \"},{\\\n🦀")]), 32),
        ("mm".to_owned(), 64),
        ("m{".to_owned(), 128),
    ];
    let counted: Vec<_> =
        metrics.iter().map(|(metric, n)| ("web", "2026-11-20", metric.as_str(), *n)).collect();
    world.count(&counted).await;
    world
}

#[tokio::test]
async fn absent_label_has_the_empty_value() {
    let world = signups().await;
    let query = web().metrics(Metrics::named("m"));
    let answer = world.ask(&query.clone().by_labels(["plan"])).await;
    assert_eq!(values(&answer), [(r#"{plan=""}"#, 3), (r#"{plan="a"}"#, 28), (r#"{plan="b"}"#, 32)]);
    assert_eq!(answer.total, Some(Ok(63)));
    for (condition, total) in [
        ("plan=", 3),
        ("plan=a", 28),
        ("plan!=a", 35),
        ("plan!=", 60),
        ("plan=~a|b", 60),
        ("plan=~a.", 0),
        ("plan!~a|b", 3),
        ("country=DE", 24),
        ("country=~(?s).*🦀", 32),
        ("nosuch=", 63),
    ] {
        let answer = world.ask(&query.clone().label(filter(condition))).await;
        assert_eq!(answer.total, Some(Ok(total)), "{condition}");
    }
    let both = query.label(filter("plan=a")).label(filter("country!=DE"));
    assert_eq!(world.ask(&both).await.total, Some(Ok(4)));
}

#[tokio::test]
async fn names_select_with_and_without_labels() {
    let world = signups().await;
    for (pattern, total) in [
        ("m", 63),
        ("m*", 255),
        ("mm", 64),
        ("?", 63),
        ("m{", 128),
        (r#"m{plan="a"}"#, 4),
        (r#"m{plan="a"*"#, 4 + 16),
        ("*", 255),
        ("", 0),
        ("x*", 0),
    ] {
        assert_eq!(world.ask(&web().matching(pattern)).await.total, Some(Ok(total)), "{pattern}");
    }
    for (pattern, total) in [("m", 63), ("m+", 127), ("(?i)M", 63), ("m.*", 255), ("", 0)] {
        let metrics = Metrics::regex(pattern).unwrap();
        assert_eq!(world.ask(&web().metrics(metrics)).await.total, Some(Ok(total)), "{pattern}");
    }
    let exact = Metrics::Exact(MetricName::new("m").unwrap());
    assert_eq!(world.ask(&web().metrics(exact)).await.total, Some(Ok(1)));
}

#[test]
fn unfit_patterns_are_refused_at_once() {
    for (pattern, why) in [
        ("(", "unclosed group"),
        ("a)b(c", "unopened group"),
        ("(a{1000}){1000}", "too large"),
        ("\\", "incomplete escape"),
        ("(?=x)", "look-around"),
    ] {
        let error = Metrics::regex(pattern).unwrap_err().to_string();
        assert!(error.contains(why) && error.lines().count() == 1, "{pattern}: {error}");
    }
    // The time of a match is linear in the name, whatever the pattern.
    let began = std::time::Instant::now();
    let slow = Metrics::regex("(a*)*(a*)*(a|aa)+$b").unwrap();
    let name = "a".repeat(512);
    assert!(!slow.selects(&Labelled::split(&name), &name));
    assert!(began.elapsed() < std::time::Duration::from_secs(1));
    for text in ["", "=DE", "country", "!x", "country!"] {
        assert!(text.parse::<LabelFilter>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn levels_of_a_hierarchy_are_summed() {
    let mut world = World::new("UTC", &[Period::Day]);
    let names =
        [("a", 1), ("a.b", 2), ("a.b.c", 4), ("a.b.d", 8), ("a.bb", 16), ("ab", 32), ("x.y{k=\"a.b\"}", 64)];
    let counted: Vec<_> = names.iter().map(|(name, n)| ("web", "2026-11-20", *name, *n)).collect();
    world.count(&counted).await;
    let level = |depth| web().group(Group::Level { separator: ".".to_owned(), depth });
    assert_eq!(values(&world.ask(&level(1)).await), [("a", 31), ("ab", 32), ("x", 64)]);
    let second = [("a", 1), ("a.b", 14), ("a.bb", 16), ("ab", 32), ("x.y", 64)];
    assert_eq!(values(&world.ask(&level(2)).await), second);
    for (parent, total) in [("a", 31), ("a.b", 14), ("a.b.c", 4), ("x", 64), ("b", 0)] {
        let answer = world.ask(&web().metrics(Metrics::under(parent, ".")).group(Group::All)).await;
        assert_eq!(answer.total, Some(Ok(total)), "{parent}");
    }
}
