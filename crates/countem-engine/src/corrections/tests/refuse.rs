//! Corrections without an exact result change nothing.

use super::*;

/// Checks that a correction is refused in these words, and changes nothing.
async fn refused(model: &Model, correction: Correction, words: &str) {
    let store = Arc::new(model.stored().await);
    let before = everything(&*store).await;
    let error = model.corrections(&store).correct(&correction, "tester", "why", now()).await.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(everything(&*store).await, before);
    assert!(store.marks("").await.unwrap().is_empty());
}

fn model(schedules: &str) -> Model {
    let mut model = Model::new(schedules);
    model.count("old", "2026-11-03T10:00:00Z", 5);
    model.count("new", "2026-11-20T10:00:00Z", 7);
    model.count("huge", "2026-11-03T10:00:00Z", i64::MAX);
    model
}

#[tokio::test]
async fn names_that_do_not_fit_are_refused() {
    let model = model("beginning UTC day,month");
    refused(&model, rename("old", "new", None), "`new` has counts already, in 2026-11-20: `merge`").await;
    refused(&model, rename("none", "other", None), "`none` was not counted in `web`").await;
    refused(&model, rename("old", "old", None), "cannot be moved to itself").await;
    refused(&model, delete(Some(&["old", "none"]), None), "`none` was not counted").await;
    refused(&model, delete(None, Some(range("2025"))), "nothing was counted in `web` in 2025").await;
    refused(&model, delete(Some(&[]), None), "no metric is named").await;
    let merge = |from: &str, to: &str| Correction::Merge {
        collection: web(),
        from: vec![metric(from)],
        to: metric(to),
        range: None,
    };
    refused(&model, merge("old", "huge"), "would be 9223372036854775812").await;
    let store = Arc::new(model.stored().await);
    for (author, reason, words) in [("", "why", "an author"), ("me", " ", "a reason")] {
        let refused = model.corrections(&store).correct(&merge("old", "new"), author, reason, now()).await;
        assert!(refused.unwrap_err().to_string().contains(words));
    }
}

#[tokio::test]
async fn rename_in_a_range_without_the_new_name() {
    let model = model("beginning UTC day,month");
    let store = Arc::new(model.stored().await);
    let week = Some(range("2026-11-01..2026-11-07"));
    model.corrections(&store).correct(&rename("old", "new", week), "me", "why", now()).await.unwrap();
    let after = everything(&*store).await;
    let value =
        |bucket: &str, metric: &str| after.get(&(bucket.parse().unwrap(), metric.to_owned())).copied();
    assert_eq!((value("2026-11-03", "new"), value("2026-11-20", "new")), (Some(5), Some(7)));
    assert_eq!((value("2026-11", "new"), value("2026-11", "old")), (Some(12), None));
}

#[tokio::test]
async fn part_of_a_stored_bucket_is_refused() {
    let part = Some(range("2026-11-01..2026-11-07"));
    let months = model("beginning UTC month");
    refused(&months, delete(Some(&["old"]), part), "is a part of 2026-11 that cannot be told").await;
    let hour = Some(range("2026-11-03T10"));
    refused(&model("beginning UTC day,all"), rename("old", "x", hour), "is a part of 2026-11-03").await;
    let moved = model("beginning UTC day\n2026-11-12T00:00:00Z Europe/Berlin day");
    refused(&moved, delete(Some(&["old"]), part), "the zone of the store changed").await;
}

#[tokio::test]
async fn one_counter_is_corrected_where_it_can_be() {
    let model = model("beginning UTC day,month");
    let set = |metric_name: &str, bucket: &str, value| Correction::Set {
        collection: web(),
        metric: metric(metric_name),
        bucket: bucket.parse().unwrap(),
        value,
    };
    refused(&model, set("old", "2026-12-01", 1), "in the future").await;
    refused(&model, set("huge", "2026-11-04", 1), "would leave the range of 64 bits").await;
    refused(&model, set("old", "2026-11-03T10", 1), "stores no hour buckets").await;
    let apia = Model::new("beginning Pacific/Apia day");
    refused(&apia, set("old", "2011-12-30", 1), "does not begin").await;
}

#[tokio::test]
async fn expired_parts_leave_coarser_sums_correctable() {
    let mut model = Model::new("beginning UTC minute:7200s,day,month");
    // The minutes of this day have expired; the store has them still.
    model.count("old", "2026-11-03T10:00:00Z", 5);
    let soon = Timestamp::now();
    model.counted.push(Counted { metric: "old".to_owned(), at: soon, n: 9 });
    let store = Arc::new(model.stored().await);
    model.corrections(&store).correct(&rename("old", "new", None), "me", "why", soon).await.unwrap();
    let after = everything(&*store).await;
    let old: Vec<_> = after.iter().filter(|((_, metric), _)| metric == "old").collect();
    let minute: Bucket = "2026-11-03T10:00".parse().unwrap();
    assert_eq!(old, [(&(minute, "old".to_owned()), &5)], "no reader sees it");
    let day: Bucket = "2026-11-03".parse().unwrap();
    assert_eq!(after[&(day, "new".to_owned())], 5);
}
