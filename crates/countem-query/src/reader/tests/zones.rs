//! Days around the clock changes of all zones, read from a store.

use std::collections::{BTreeMap, HashSet};

use countem_core::{Batch, BatchId, Table, Writer};
use countem_store::MemoryStore;
use jiff::{
    Timestamp,
    tz::{self, TimeZone},
};

use super::*;

const DAY: i64 = 86_400;

/// The days around one clock change, with everything that decides how they are read.
struct Change {
    second: i64,
    /// Seconds from the change, and offset.
    offsets: Vec<(i64, i64)>,
    zone: TimeZone,
}

/// Returns the changes of all zones from 1990 to 2036, one of each kind: those at the same time of day with the same offsets
/// before and after.
fn changes() -> Vec<Change> {
    let (begin, end): (Timestamp, Timestamp) =
        ("1990-01-01T00:00:00Z".parse().unwrap(), "2037-01-01T00:00:00Z".parse().unwrap());
    let mut kinds = HashSet::new();
    let mut changes = Vec::new();
    for name in tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        for change in zone.following(begin).take_while(|change| change.timestamp() < end) {
            let second = change.timestamp().as_second();
            let before = Timestamp::from_second(second - 3 * DAY).unwrap();
            let mut offsets = vec![(i64::MIN, i64::from(zone.to_offset(before).seconds()))];
            let near = zone
                .following(before)
                .map(|near| (near.timestamp().as_second() - second, i64::from(near.offset().seconds())));
            offsets.extend(near.take_while(|(distance, _)| *distance < 3 * DAY));
            if kinds.insert((second.rem_euclid(DAY), offsets.clone())) {
                changes.push(Change { second, offsets, zone: zone.clone() });
            }
        }
    }
    changes
}

impl Change {
    /// The day of a second, as days since 1970.
    fn day(&self, second: i64) -> i64 {
        let from_change = second - self.second;
        let at = self.offsets.partition_point(|(since, _)| *since <= from_change) - 1;
        (second + self.offsets[at].1).div_euclid(DAY)
    }

    /// Counts in minutes of four days around the change: each minute near it, each quarter of an hour near a midnight, and each
    /// fourth hour.
    fn counts(&self) -> BTreeMap<i64, i64> {
        let quarters = (-192..192).map(|quarter| (self.second.div_euclid(900) + quarter) * 15);
        let is_near =
            |minute: i64| (-6..=6).any(|at| self.day((minute + at * 15) * 60) != self.day(minute * 60));
        let quarters = quarters.filter(|minute| minute % 240 == 0 || is_near(*minute));
        let minutes = (-32..32).map(|minute| self.second.div_euclid(60) + minute);
        quarters.chain(minutes).map(|minute| (minute, 1 + (minute % 9973).pow(2))).collect()
    }
}

fn id_of(period: Period, second: i64) -> Bucket {
    Bucket::containing(period, Timestamp::from_second(second).unwrap(), &TimeZone::UTC).unwrap()
}

async fn check(change: &Change, stored: &[Period]) -> usize {
    let counts = change.counts();
    let mut table = Table::new();
    for (minute, n) in &counts {
        let second = minute * 60;
        for period in stored {
            let bucket = match period {
                Period::Day => id_of(Period::Day, change.day(second) * DAY),
                _ => id_of(*period, second),
            };
            table.fold("web", "m", bucket, *n).unwrap();
        }
    }
    let store = MemoryStore::new();
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
    store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    let schedules = Schedules::new(&change.zone, stored, &BTreeMap::new()).unwrap();
    let reader = Reader::of_store(Arc::new(store), Arc::new(schedules));

    let metric = MetricName::new("m").unwrap();
    let mut sums = BTreeMap::<i64, i64>::new();
    for (minute, n) in &counts {
        *sums.entry(change.day(minute * 60)).or_default() += n;
    }
    let (mut exact, mut refused) = (Vec::new(), 0);
    for (day, sum) in &sums {
        let bucket = id_of(Period::Day, day * DAY);
        let got = reader.get(&web(), &metric, bucket).await;
        let series = reader.series(&web(), &metric, BucketRange::one(bucket)).await;
        let context = format!("{:?} {bucket} from {stored:?}: {got:?} {series:?}", change.zone);
        match (got, series) {
            (Ok(got), Ok(series)) => {
                assert_eq!(got, Some(*sum), "{context}");
                assert_eq!(series, BTreeMap::from([(bucket, *sum)]), "{context}");
                exact.push((bucket, *sum));
            }
            (Err(_), Err(_)) => refused += 1,
            _ => panic!("one of two is refused: {context}"),
        }
    }
    let days = BucketRange::new(
        id_of(Period::Day, sums.keys().next().unwrap() * DAY),
        id_of(Period::Day, sums.keys().next_back().unwrap() * DAY),
    );
    let series = reader.series(&web(), &metric, days.unwrap()).await;
    match series {
        Ok(series) => assert_eq!((series, refused), (exact.into_iter().collect(), 0), "{:?}", change.zone),
        Err(_) => assert!(refused > 0, "{:?}: no day is refused", change.zone),
    }
    for period in [Period::Week, Period::Month, Period::Year, Period::All] {
        let bucket = id_of(Period::Day, change.day(change.second) * DAY);
        let bucket = bucket.rollup(period, &TimeZone::UTC).unwrap();
        let days = sums.iter().filter(|(day, _)| {
            id_of(Period::Day, **day * DAY).rollup(period, &TimeZone::UTC) == Some(bucket)
        });
        let sum: i64 = days.map(|(_, sum)| sum).sum();
        match reader.get(&web(), &metric, bucket).await {
            Ok(got) => assert_eq!(got, Some(sum), "{:?} {bucket} from {stored:?}", change.zone),
            Err(_) => {
                assert!(period != Period::All && stored == [Period::Hour], "{:?} {bucket}", change.zone)
            }
        }
    }
    refused
}

/// Every kind of clock change that is in the database of zones, against arithmetic on minutes.
#[tokio::test]
async fn reads_around_clock_changes_are_exact_or_refused() {
    use Period::{Day, Hour, Minute};
    let changes = changes();
    assert!(changes.len() > 200, "{}", changes.len());
    let mut refused = 0;
    for change in &changes {
        for stored in [&[Minute][..], &[Minute, Hour], &[Day], &[Minute, Hour, Day]] {
            assert_eq!(check(change, stored).await, 0, "{:?} from {stored:?}", change.zone);
        }
        refused += check(change, &[Hour]).await;
    }
    assert!(refused > 0, "some zones are half an hour off");
}
