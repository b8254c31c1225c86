//! The aggregation table: many increments in, one delta per counter out.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{Bucket, CollectionName, Delta, Deltas, MetricName, NameError, delta::Entry};

/// Folds increments in place, keyed by (collection, metric, bucket).
///
/// A known counter costs one hash, one probe and two additions; only a new counter allocates, and that into three
/// growing arrays, never per counter. Memory follows distinct counters, not increments: about 45 bytes each plus their
/// names.
#[derive(Debug, Default)]
pub struct Table {
    index: HashTable<u32>,
    deltas: Deltas,
    hasher: CounterHasher,
}

/// Hashes counters, with seeds that differ from process to process. Clones hash alike.
///
/// A caller hashes before it locks the table, to hold the lock for less time.
#[derive(Debug, Clone, Default)]
pub struct CounterHasher(RandomState);

impl CounterHasher {
    /// Returns the hash of one counter.
    #[inline(always)]
    pub fn hash(&self, collection: &str, metric: &str, bucket: Bucket) -> u64 {
        let (collection, metric) = (collection.as_bytes(), metric.as_bytes());
        if collection.len().max(metric.len()) > SHORT {
            return self.hash_long(collection, metric, bucket);
        }
        // Lengths need no hashing: equality checks them, and a shifted boundary between the names is rare.
        let mut state = self.0.build_hasher();
        write_short(&mut state, collection);
        write_short(&mut state, metric);
        std::hash::Hash::hash(&bucket, &mut state);
        state.finish()
    }

    #[inline(never)]
    fn hash_long(&self, collection: &[u8], metric: &[u8], bucket: Bucket) -> u64 {
        let mut state = self.0.build_hasher();
        state.write(collection);
        state.write(metric);
        std::hash::Hash::hash(&bucket, &mut state);
        state.finish()
    }
}

/// Maximum length in bytes of a name that is hashed and compared without a call or a loop.
const SHORT: usize = 32;

/// Feeds a name of at most [`SHORT`] bytes to a hasher, in words that may overlap.
#[inline(always)]
fn write_short(state: &mut impl Hasher, name: &[u8]) {
    if let (Some(head), Some(tail)) = (name.first_chunk::<16>(), name.last_chunk::<16>()) {
        state.write_u128(u128::from_ne_bytes(*head));
        state.write_u128(u128::from_ne_bytes(*tail));
    } else if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        let (head, tail) = (u64::from_ne_bytes(*head), u64::from_ne_bytes(*tail));
        state.write_u128(u128::from(head) << 64 | u128::from(tail));
    } else if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        let (head, tail) = (u32::from_ne_bytes(*head), u32::from_ne_bytes(*tail));
        state.write_u64(u64::from(head) << 32 | u64::from(tail));
    } else if let (Some(first), Some(last)) = (name.first(), name.last()) {
        let middle = name[name.len() / 2];
        state.write_u32(u32::from(*first) << 16 | u32::from(middle) << 8 | u32::from(*last));
    }
}

/// Compares names of the same length, short ones without a call and without a loop.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match a.len() {
        16..=SHORT => {
            a.first_chunk::<16>() == b.first_chunk::<16>() && a.last_chunk::<16>() == b.last_chunk::<16>()
        }
        8..16 => a.first_chunk::<8>() == b.first_chunk::<8>() && a.last_chunk::<8>() == b.last_chunk::<8>(),
        _ => a == b,
    }
}

/// An error of folding: nothing was added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// A name breaks its rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The pending amount of this counter would leave the range of `i64`.
    #[error("pending amount of the counter would exceed the range of a 64-bit integer")]
    Overflow,
    /// The counter is new and the table is full.
    #[error("too many distinct counters are pending")]
    Full,
}

/// Capacity that every drained table keeps.
const KEPT_CAPACITY: usize = 1024;

impl Table {
    /// Returns an empty table that has not allocated yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty table whose counters are hashed by `hasher`.
    pub fn with_hasher(hasher: CounterHasher) -> Self {
        Self { hasher, ..Self::default() }
    }

    /// Adds one increment of `n`. A name is validated when its counter is new; a known counter has valid names.
    ///
    /// # Errors
    /// [`FoldError`]: nothing was added.
    #[inline]
    pub fn fold(&mut self, collection: &str, metric: &str, bucket: Bucket, n: i64) -> Result<(), FoldError> {
        let delta = Delta { collection, metric, bucket, n, increments: 1 };
        self.merge_within(delta, usize::MAX)
    }

    /// Adds a delta, but no new counter once the table holds `max`.
    ///
    /// # Errors
    /// [`FoldError`]: nothing was added.
    #[inline]
    pub fn merge_within(&mut self, delta: Delta<'_>, max: usize) -> Result<(), FoldError> {
        let hash = self.hasher.hash(delta.collection, delta.metric, delta.bucket);
        let Deltas { entries, names } = &mut self.deltas;
        let found = self.index.find(hash, |&at| is_counter(&entries[at as usize], names, &delta));
        match found {
            Some(&at) => {
                let entry = &mut entries[at as usize];
                entry.n = entry.n.checked_add(delta.n).ok_or(FoldError::Overflow)?;
                entry.increments += delta.increments;
                Ok(())
            }
            None => self.insert(hash, delta, max),
        }
    }

    /// Adds one increment to a counter that the table knows, given the hash of the counter by the table's own hasher. Returns
    /// false, and adds nothing, for an unknown counter and on overflow.
    ///
    /// Nearly every increment takes this path, so its values stay in registers: a locked instruction waits for every
    /// earlier store, also those to the stack.
    #[inline(always)]
    #[must_use]
    pub fn add_known(&mut self, hash: u64, collection: &str, metric: &str, bucket: Bucket, n: i64) -> bool {
        let Deltas { entries, names } = &mut self.deltas;
        let found = self.index.find(hash, |&at| {
            let Some(entry) = entries.get(at as usize) else { return false };
            let at = entry.names_at as usize;
            let (collection_len, metric_len) =
                (usize::from(entry.collection_len), usize::from(entry.metric_len));
            entry.bucket == bucket
                && collection_len == collection.len()
                && metric_len == metric.len()
                && names.as_bytes().get(at..at + collection_len + metric_len).is_some_and(|key| {
                    is_same(&key[..collection_len], collection.as_bytes())
                        && is_same(&key[collection_len..], metric.as_bytes())
                })
        });
        let Some(entry) = found.and_then(|&at| entries.get_mut(at as usize)) else { return false };
        let Some(sum) = entry.n.checked_add(n) else { return false };
        entry.n = sum;
        entry.increments += 1;
        true
    }

    /// Adds a delta without any limit on the number of counters.
    ///
    /// # Errors
    /// [`FoldError`]: nothing was added.
    pub fn merge(&mut self, delta: Delta<'_>) -> Result<(), FoldError> {
        self.merge_within(delta, usize::MAX)
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, hash: u64, delta: Delta<'_>, max: usize) -> Result<(), FoldError> {
        CollectionName::validate(delta.collection)?;
        MetricName::validate(delta.metric)?;
        if self.deltas.len() >= max {
            return Err(FoldError::Full);
        }
        let at = self.deltas.push(delta).ok_or(FoldError::Full)?;
        let (deltas, hasher) = (&self.deltas, &self.hasher);
        self.index.insert_unique(hash, at, |&at| hash_of(hasher, deltas, at));
        Ok(())
    }

    /// Returns the pending delta of one counter.
    pub fn get(&self, collection: &str, metric: &str, bucket: Bucket) -> Option<i64> {
        let wanted = Delta { collection, metric, bucket, n: 0, increments: 0 };
        let hash = self.hasher.hash(collection, metric, bucket);
        let Deltas { entries, names } = &self.deltas;
        let at = *self.index.find(hash, |&at| is_counter(&entries[at as usize], names, &wanted))?;
        Some(entries[at as usize].n)
    }

    /// Returns the number of distinct counters.
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Returns true when nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Lists the pending deltas.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Delta<'_>> + Clone {
        self.deltas.iter()
    }

    /// Returns the pending deltas.
    pub fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    /// Takes every delta out. The table keeps its index, so that a steady load does not grow it anew.
    pub fn drain(&mut self) -> Deltas {
        let counters = self.deltas.len();
        self.index.clear();
        if self.index.capacity() > KEPT_CAPACITY.max(counters.saturating_mul(8)) {
            self.index = HashTable::new();
        }
        let names = String::with_capacity(self.deltas.names.len());
        std::mem::replace(&mut self.deltas, Deltas { entries: Vec::with_capacity(counters), names })
    }

    /// Takes out at most `max` deltas.
    pub fn take(&mut self, max: usize) -> Deltas {
        if self.deltas.len() <= max {
            return self.drain();
        }
        let mut taken = Deltas::default();
        for _ in 0..max {
            let last = self.deltas.iter().next_back().expect("the table holds more than `max` deltas");
            let hash = self.hasher.hash(last.collection, last.metric, last.bucket);
            taken.push(last).expect("a part addresses fewer names than the whole");
            let at = self.deltas.entries.len() - 1;
            let indexed = self.index.find_entry(hash, |&found| found as usize == at);
            indexed.expect("every delta is in the index").remove();
            // Names are appended in the order of the entries, so the last entry owns the end of the arena.
            let entry = self.deltas.entries.pop().expect("the table holds more than `max` deltas");
            self.deltas.names.truncate(entry.names_at as usize);
        }
        // A large table that is taken apart must not stay in memory twice.
        if self.deltas.len() < self.deltas.entries.capacity() / 2 {
            self.deltas.entries.shrink_to_fit();
            self.deltas.names.shrink_to_fit();
            let (deltas, hasher) = (&self.deltas, &self.hasher);
            self.index.shrink_to(deltas.len(), |&at| hash_of(hasher, deltas, at));
        }
        taken
    }

    /// Exchanges the contents with those of `other`, so that a lock around the table is held only briefly.
    pub fn swap(&mut self, other: &mut Self) {
        std::mem::swap(self, other);
    }

    /// Empties the table after its deltas were merged elsewhere. It keeps its memory unless that is far more than this
    /// round needed.
    pub fn clear(&mut self) {
        let counters = self.deltas.len();
        let roomy = KEPT_CAPACITY.max(counters.saturating_mul(8));
        if self.deltas.entries.capacity() > roomy {
            *self = Self { hasher: self.hasher.clone(), ..Self::default() };
        } else {
            self.index.clear();
            self.deltas.entries.clear();
            self.deltas.names.clear();
        }
    }
}

#[inline]
fn is_counter(entry: &Entry, names: &str, delta: &Delta<'_>) -> bool {
    let collection_len = usize::from(entry.collection_len);
    let at = entry.names_at as usize;
    let key = &names.as_bytes()[at..at + collection_len + usize::from(entry.metric_len)];
    entry.bucket == delta.bucket
        && collection_len == delta.collection.len()
        && key[..collection_len] == *delta.collection.as_bytes()
        && key[collection_len..] == *delta.metric.as_bytes()
}

fn hash_of(hasher: &CounterHasher, deltas: &Deltas, at: u32) -> u64 {
    let entry = deltas.entries[at as usize];
    hasher.hash(entry.collection(&deltas.names), entry.metric(&deltas.names), entry.bucket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn day(n: i16) -> Bucket {
        Bucket::day(jiff::civil::date(2026, 1, 1).saturating_add(jiff::Span::new().days(n))).unwrap()
    }

    #[test]
    fn names_whose_concatenation_is_equal_are_different_counters() {
        let mut table = Table::new();
        table.fold("ab", "c", day(0), 1).unwrap();
        table.fold("a", "bc", day(0), 10).unwrap();
        table.fold("a", "bc", day(1), 100).unwrap();
        assert_eq!(table.get("ab", "c", day(0)), Some(1));
        assert_eq!(table.get("a", "bc", day(0)), Some(10));
        assert_eq!(table.get("a", "bc", day(1)), Some(100));
    }

    #[test]
    fn refused_increment_leaves_the_table_unchanged() {
        let mut table = Table::new();
        table.fold("c", "m", day(0), i64::MAX).unwrap();
        assert_eq!(table.fold("c", "m", day(0), 1), Err(FoldError::Overflow));
        assert!(matches!(table.fold("c", "", day(0), 1), Err(FoldError::Name(_))));
        assert!(matches!(table.fold("c d", "m", day(0), 1), Err(FoldError::Name(_))));
        let delta = Delta { collection: "c", metric: "new", bucket: day(0), n: 1, increments: 1 };
        assert_eq!(table.merge_within(delta, 1), Err(FoldError::Full));
        assert_eq!(table.drain().totals(), crate::Totals { counters: 1, increments: 1, n: i64::MAX.into() });
    }

    #[test]
    fn a_full_table_still_folds_into_known_counters() {
        let mut table = Table::new();
        let delta = Delta { collection: "c", metric: "m", bucket: day(0), n: 1, increments: 1 };
        table.merge_within(delta, 1).unwrap();
        table.merge_within(delta, 1).unwrap();
        assert_eq!(table.get("c", "m", day(0)), Some(2));
    }

    proptest! {
        /// Fold, take and drain in any order against a plain map.
        #[test]
        fn folded_increments_come_out_once(steps in prop::collection::vec((0..40_u8, 0..3_i16, -5..6_i64, 0..30_usize), 1..400)) {
            let mut table = Table::new();
            let (mut folded, mut taken) = (BTreeMap::new(), BTreeMap::new());
            let collect = |deltas: Deltas, taken: &mut BTreeMap<(String, Bucket), (i64, u64)>| {
                for delta in deltas.iter() {
                    let sum = taken.entry((delta.metric.to_owned(), delta.bucket)).or_default();
                    sum.0 += delta.n;
                    sum.1 += delta.increments;
                }
            };
            for (metric, on, n, action) in steps {
                let metric = format!("metric-{metric}");
                table.fold("c", &metric, day(on), n).unwrap();
                let sum: &mut (i64, u64) = folded.entry((metric, day(on))).or_default();
                sum.0 += n;
                sum.1 += 1;
                match action {
                    0 => collect(table.drain(), &mut taken),
                    1..5 => collect(table.take(action), &mut taken),
                    5 => {
                        let mut other = Table::new();
                        table.swap(&mut other);
                        other.iter().for_each(|delta| table.merge(delta).unwrap());
                        other.clear();
                        prop_assert!(other.is_empty());
                    }
                    _ => {}
                }
            }
            collect(table.drain(), &mut taken);
            prop_assert_eq!(folded, taken);
        }
    }
}
