//! Comparison of the buckets of coarser periods with those of finer ones that make them up.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};
use countem_core::{Bucket, CollectionName, Period, Schedule, Schedules, hash::fnv128, jiff::Timestamp};
use countem_transfer::Counter;

use super::rows::{Rows, refused};

/// Periods of the rows of each collection, with the line of the first row of each.
pub(crate) type Found = BTreeMap<CollectionName, BTreeMap<Period, u64>>;

/// Two periods of a collection whose buckets have to agree.
struct Pair {
    fine: Period,
    coarse: Period,
    /// From here on the buckets of the finer period hold, and keep, all counts that those of the coarser one do.
    since: Timestamp,
}

/// The pairs of the collections that have rows of several periods.
struct Pairs<'a> {
    by_collection: BTreeMap<&'a CollectionName, (&'a Schedule, Vec<Pair>)>,
    now: Timestamp,
}

/// Sums of the rows of one coarser bucket.
struct Sums {
    coarse: i128,
    fine: i128,
}

/// A bucket whose sums are compared, and the share of a row in them.
#[derive(Clone, Copy)]
struct Share {
    bucket: Bucket,
    fine: Period,
    is_coarse: bool,
}

/// Checks that every bucket of a coarser period is the sum of those of the next finer one that nests in it, so that no two reads of the
/// store could disagree.
///
/// # Errors
/// They differ: names the bucket and both numbers.
pub(crate) fn check(rows: &mut Rows, found: &Found, schedules: &Schedules, now: Timestamp) -> Result<()> {
    let pairs = Pairs::new(found, schedules, now);
    if pairs.by_collection.is_empty() {
        return Ok(());
    }
    // By hash, so that a name of any length takes little memory. What agrees is removed.
    let mut differences: HashMap<u128, i128> = HashMap::new();
    rows.rewind()?;
    while let Some((_, row)) = rows.next()? {
        pairs.shares(&row, |share| {
            let sign = if share.is_coarse { 1 } else { -1 };
            let key = key(&row, share.bucket);
            let difference = differences.entry(key).or_default();
            *difference += sign * i128::from(row.value);
            if *difference == 0 {
                differences.remove(&key);
            }
        });
    }
    if differences.is_empty() {
        return Ok(());
    }
    rows.rewind()?;
    let mut first: Option<(u64, Counter, Share)> = None;
    let mut sums = Sums { coarse: 0, fine: 0 };
    while let Some((line, row)) = rows.next()? {
        pairs.shares(&row, |share| {
            let key_of_row = key(&row, share.bucket);
            if first.is_none() && differences.contains_key(&key_of_row) {
                first = Some((line, row.clone(), share));
            }
            if first.as_ref().is_some_and(|(_, of, first)| key(of, first.bucket) == key_of_row) {
                let sum = if share.is_coarse { &mut sums.coarse } else { &mut sums.fine };
                *sum += i128::from(row.value);
            }
        });
    }
    let Some((line, row, Share { bucket, fine, .. })) = first else {
        bail!("`{}` was changed while it was read; nothing was imported", rows.name());
    };
    let (metric, collection, coarse, Sums { coarse: of_coarse, fine: of_fine }) =
        (&row.metric, &row.collection, bucket.period(), sums);
    let why = format!(
        "`{metric}` of `{collection}` is {of_coarse} in {bucket}, and the rows of its {fine} buckets add up to {of_fine}: import the rows of one period alone, into a store of it (`--set time.periods={coarse}`), or, where the finer ones had expired, into a new store that does not keep them either (`--set time.retention={fine}=30d`)"
    );
    Err(refused(rows.name(), line, why))
}

impl<'a> Pairs<'a> {
    fn new(found: &'a Found, schedules: &'a Schedules, now: Timestamp) -> Self {
        let pairs = found.iter().filter_map(|(collection, periods)| {
            let schedule = schedules.of(collection.as_str());
            let pairs: Vec<_> = periods
                .keys()
                .filter_map(|coarse| {
                    let mut finer = periods.range(..coarse).rev().map(|(fine, _)| *fine);
                    finer.find_map(|fine| Pair::new(fine, *coarse, schedule, now))
                })
                .collect();
            (!pairs.is_empty()).then_some((collection, (schedule, pairs)))
        });
        Self { by_collection: pairs.collect(), now }
    }

    /// Lists the compared buckets to which a row belongs.
    fn shares(&self, row: &Counter, mut each: impl FnMut(Share)) {
        let Some((schedule, pairs)) = self.by_collection.get(&row.collection) else { return };
        let (zone, period) = (schedule.last_zone(), row.bucket.period());
        for Pair { fine, coarse, since } in pairs {
            let bucket = match period {
                _ if period == *coarse => Some(row.bucket),
                _ if period == *fine => row.bucket.rollup(*coarse, zone),
                _ => None,
            };
            let is_compared = |bucket: &Bucket| {
                bucket.start_instant(zone) >= *since && !schedule.has_expired(*bucket, self.now)
            };
            if let Some(bucket) = bucket.filter(is_compared) {
                each(Share { bucket, fine: *fine, is_coarse: period == *coarse });
            }
        }
    }
}

impl Pair {
    /// Returns the pair, `None` where buckets of `fine` do not add up to those of `coarse`.
    fn new(fine: Period, coarse: Period, schedule: &Schedule, now: Timestamp) -> Option<Self> {
        let nested = schedule.nested_since(fine, coarse)?;
        let kept = schedule.kept_from(fine, now).map(|first| first.start_instant(schedule.last_zone()));
        Some(Self { fine, coarse, since: kept.map_or(nested, |kept| kept.max(nested)) })
    }
}

fn key(row: &Counter, bucket: Bucket) -> u128 {
    // No name has a control character.
    fnv128(format!("{}\n{bucket}\n{}", row.collection, row.metric).as_bytes())
}
