//! Changes of counters, for event streams.
//!
//! One task reads the counters of today once a second, while there is a stream that wants them, and notes what has changed. A stream
//! that was away asks for what changed since; values are sent, not differences, so one that is sent twice does no harm.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use countem::{Bucket, CollectionName, Collector, Counters};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks of which the changes are kept apart; a stream that is further behind gets them from the values.
const KEPT_LOOKS: usize = 64;

/// Changes of one look: metrics with their values.
type Changes = Arc<Vec<(String, i64)>>;

/// The counters of one collection as they were last seen.
#[derive(Debug, Default)]
struct Seen {
    bucket: Option<Bucket>,
    /// Values, each with the number of the look at which it changed last.
    values: BTreeMap<String, (i64, u64)>,
    /// The changes of the last looks.
    looks: VecDeque<(u64, Changes)>,
}

impl Seen {
    /// Notes the counters that `look` found.
    fn note(&mut self, look: u64, bucket: Bucket, counters: &Counters) {
        if self.bucket != Some(bucket) {
            *self = Self { bucket: Some(bucket), ..Self::default() };
        }
        let mut changes = Vec::new();
        for (metric, value) in counters.readable() {
            match self.values.get_mut(metric) {
                Some((known, _)) if *known == value => {}
                Some(known) => {
                    *known = (value, look);
                    changes.push((metric.to_owned(), value));
                }
                None => {
                    self.values.insert(metric.to_owned(), (value, look));
                    changes.push((metric.to_owned(), value));
                }
            }
        }
        if !changes.is_empty() {
            self.looks.push_back((look, Arc::new(changes)));
            if self.looks.len() > KEPT_LOOKS {
                self.looks.pop_front();
            }
        }
    }

    /// Returns what changed after the look `since`.
    fn after(&self, since: u64) -> Vec<(String, i64)> {
        let is_kept =
            self.looks.len() < KEPT_LOOKS || self.looks.front().is_some_and(|(look, _)| *look <= since);
        if !is_kept || since == 0 {
            let changed = self.values.iter().filter(|(_, (_, look))| *look > since);
            return changed.map(|(metric, (value, _))| (metric.clone(), *value)).collect();
        }
        let looks = self.looks.iter().filter(|(look, _)| *look > since);
        looks.flat_map(|(_, changes)| changes.iter().cloned()).collect()
    }
}

/// Collections that a stream wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    These(BTreeSet<CollectionName>),
}

/// The changes of all counters that a stream wants.
#[derive(Debug)]
pub(crate) struct Changed {
    state: Mutex<State>,
    looks: watch::Sender<u64>,
    /// Drawn at random, so that numbers of another process are not taken for those of this one.
    epoch: u32,
}

#[derive(Debug, Default)]
struct State {
    collections: BTreeMap<CollectionName, Seen>,
    /// Wishes of the open streams.
    streams: Vec<Weak<Wanted>>,
}

/// Position of a stream: `<epoch>-<look>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    epoch: u32,
    look: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.look)
    }
}

impl std::str::FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, look) = text.split_once('-').ok_or(())?;
        let epoch = u32::from_str_radix(epoch, 16).map_err(|_| ())?;
        Ok(Self { epoch, look: look.parse().map_err(|_| ())? })
    }
}

/// Changes of one collection: its bucket, and metrics with their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) collection: CollectionName,
    pub(crate) bucket: Bucket,
    pub(crate) values: Vec<(String, i64)>,
}

impl Changed {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), looks: watch::channel(0).0, epoch: rand::random() }
    }

    /// Opens a stream. It wants its collections for as long as the returned value lives.
    pub(crate) fn open(&self, wanted: Wanted) -> (Arc<Wanted>, watch::Receiver<u64>) {
        let wanted = Arc::new(wanted);
        let mut state = self.state.lock();
        state.streams.retain(|stream| stream.strong_count() > 0);
        state.streams.push(Arc::downgrade(&wanted));
        (wanted, self.looks.subscribe())
    }

    /// Returns the position of a stream that knows nothing, or knows what `last` names.
    pub(crate) fn position(&self, last: Option<Position>) -> Position {
        last.filter(|last| last.epoch == self.epoch && last.look <= *self.looks.borrow())
            .unwrap_or(Position { epoch: self.epoch, look: 0 })
    }

    /// Returns what changed after `position`, and the position behind it.
    pub(crate) fn after(&self, position: Position, wanted: &Wanted) -> (Vec<Change>, Position) {
        let state = self.state.lock();
        let look = *self.looks.borrow();
        let mut changes = Vec::new();
        for (collection, seen) in &state.collections {
            let is_wanted = match wanted {
                Wanted::All => true,
                Wanted::These(names) => names.contains(collection),
            };
            if let Some(bucket) = seen.bucket.filter(|_| is_wanted) {
                let values = seen.after(position.look);
                if !values.is_empty() {
                    changes.push(Change { collection: collection.clone(), bucket, values });
                }
            }
        }
        (changes, Position { epoch: self.epoch, look })
    }

    /// Returns the collections that open streams want; `None` if there is no stream.
    fn wanted(&self) -> Option<Wanted> {
        let mut state = self.state.lock();
        state.streams.retain(|stream| stream.strong_count() > 0);
        let mut union = BTreeSet::new();
        let streams: Vec<_> = state.streams.iter().filter_map(Weak::upgrade).collect();
        if streams.is_empty() {
            // No stream would see the changes: the next one begins with all values.
            state.collections.clear();
            return None;
        }
        for stream in streams {
            match &*stream {
                Wanted::All => return Some(Wanted::All),
                Wanted::These(names) => union.extend(names.iter().cloned()),
            }
        }
        Some(Wanted::These(union))
    }

    /// Looks once, if there is a stream.
    async fn look(&self, collector: &Collector) {
        let Some(wanted) = self.wanted() else { return };
        let found: Vec<_> = match wanted {
            Wanted::All => {
                match (collector.bucket(countem::Period::Day), collector.get_all_counters(None).await) {
                    (Ok(bucket), Ok(all)) => {
                        all.into_iter().map(|(name, counters)| (name, bucket, counters)).collect()
                    }
                    (_, Err(error)) => return tracing::debug!(%error, "could not look for changes"),
                    _ => return,
                }
            }
            Wanted::These(names) => {
                let mut found = Vec::new();
                for name in names {
                    let Ok(bucket) = collector.bucket(countem::Period::Day) else { return };
                    match collector.get_counters(name.as_str(), bucket).await {
                        Ok(counters) => found.push((name, bucket, counters)),
                        Err(error) => tracing::debug!(%error, "could not look for changes"),
                    }
                }
                found
            }
        };
        let mut state = self.state.lock();
        let look = *self.looks.borrow() + 1;
        for (name, bucket, counters) in found {
            state.collections.entry(name).or_default().note(look, bucket, &counters);
        }
        drop(state);
        self.looks.send_replace(look);
    }
}

/// Looks for changes until the process ends.
pub(crate) async fn watch_changes(changed: Arc<Changed>, collector: Collector) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        changed.look(&collector).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(values: &[(&str, i64)]) -> Counters {
        values.iter().map(|(metric, value)| ((*metric).to_owned(), Ok(*value))).collect()
    }

    #[test]
    fn stream_gets_what_changed_since() {
        let mut seen = Seen::default();
        let day = |text: &str| text.parse::<Bucket>().unwrap();
        let after = |seen: &Seen, look| {
            let mut values = seen.after(look);
            values.sort();
            values
        };
        seen.note(1, day("2026-11-20"), &counters(&[("a", 1), ("b", 1)]));
        seen.note(2, day("2026-11-20"), &counters(&[("a", 2), ("b", 1)]));
        assert_eq!(after(&seen, 0), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(after(&seen, 1), [("a".to_owned(), 2)]);
        assert_eq!(after(&seen, 2), []);
        for look in 3..200 {
            seen.note(look, day("2026-11-20"), &counters(&[("a", i64::try_from(look).unwrap()), ("b", 1)]));
        }
        assert_eq!(after(&seen, 2), [("a".to_owned(), 199)], "from the values");
        assert_eq!(seen.after(197).len(), 2, "from the looks");
        seen.note(200, day("2026-11-21"), &counters(&[("b", 7)]));
        assert_eq!(after(&seen, 199), [("b".to_owned(), 7)]);
    }

    #[test]
    fn position_of_another_process_is_none() {
        let changed = Changed::new();
        let own = changed.position(None);
        assert_eq!(own.to_string().parse(), Ok(own));
        let other = Position { epoch: changed.epoch ^ 1, look: 0 };
        assert_eq!(changed.position(Some(other)), own);
        assert_eq!(changed.position(Some(Position { look: 5, ..own })).look, 0, "it was never there");
    }
}
