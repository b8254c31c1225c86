//! Laws of recorded schedules. A store has one record, so other laws may change it meanwhile: only the lines are compared that
//! belong to a revision.

use countem_core::{
    Period, ScheduleConfig, Schedules,
    jiff::{SignedDuration, Timestamp},
};
use parking_lot::Mutex;

use super::{Lane, apply::join_all};
use crate::Store;

/// Returns the schedules of the next revision, with `periods`.
fn next(recorded: Option<&Schedules>, periods: &[Period]) -> Schedules {
    let config = |periods: &[Period]| ScheduleConfig {
        change: true,
        ..ScheduleConfig::of_periods(periods.iter().copied())
    };
    let Some(recorded) = recorded else {
        return config(periods).schedules().expect("there are periods");
    };
    let changed = |periods: &[Period]| {
        let now = Timestamp::UNIX_EPOCH;
        let change = config(periods).reconcile(recorded, now, SignedDuration::ZERO);
        change.expect("a change that is asked for is no conflict")
    };
    // What is recorded already is no change; a second is stored beside it then.
    let with_seconds: Vec<_> = periods.iter().copied().chain([Period::Second]).collect();
    changed(periods).or_else(|| changed(&with_seconds)).expect("one of two schedules differs")
}

/// The lines of the first revisions.
fn until(schedules: &Schedules, revision: usize) -> Vec<String> {
    schedules.to_string().lines().take(revision).map(str::to_owned).collect()
}

async fn read(store: &dyn Store) -> Option<Schedules> {
    store.schedules().await.expect("the schedules are read")
}

async fn record(store: &dyn Store, schedules: &Schedules) -> Schedules {
    store.record_schedules(schedules).await.expect("recording succeeds")
}

pub(super) async fn recorded_schedules_are_read_back(store: &dyn Store, _: Lane) {
    let proposed = next(read(store).await.as_ref(), &[Period::Hour, Period::Day]);
    let recorded = record(store, &proposed).await;
    let revision = proposed.revision();
    // A store that keeps no record has nothing to read back; its engines go by their configuration.
    let Some(found) = read(store).await else { return };
    assert!(found.revision() >= revision, "{found}");
    assert_eq!(until(&found, revision), until(&recorded, revision));
}

pub(super) async fn a_change_of_older_schedules_is_not_recorded(store: &dyn Store, _: Lane) {
    let before = read(store).await;
    record(store, &next(before.as_ref(), &[Period::Day])).await;
    let Some(recorded) = read(store).await else { return };
    let late = next(before.as_ref(), &[Period::Minute, Period::Year]);
    let answer = record(store, &late).await;
    assert!(answer.revision() >= recorded.revision(), "{answer}");
    assert_ne!(until(&answer, late.revision()), until(&late, late.revision()), "it came too late");
    let now = read(store).await.expect("schedules are recorded");
    assert_eq!(until(&now, recorded.revision()), until(&recorded, recorded.revision()));
}

pub(super) async fn concurrent_changes_of_schedules_agree(store: &dyn Store, _: Lane) {
    let before = read(store).await;
    let [one, other] = [[Period::Hour, Period::Month], [Period::Minute, Period::Month]]
        .map(|periods| next(before.as_ref(), &periods));
    assert_ne!(one, other, "the law proposes two");
    let answers = Mutex::new(Vec::new());
    join_all([&one, &other].map(|proposed| async {
        let answer = record(store, proposed).await;
        answers.lock().push(answer);
    }))
    .await;
    let revision = one.revision();
    let Some(now) = read(store).await else { return };
    for answer in answers.into_inner() {
        assert_eq!(until(&answer, revision), until(&now, revision), "both see the same");
    }
}
