//! The schedules of a store: those of all collections, with their changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use jiff::{
    SignedDuration, Timestamp,
    tz::{Offset, TimeZone},
};

use super::{
    retention::{KeptEra, Retention, shown},
    schedule::{Era, Schedule, ScheduleError},
    spans::spans,
};
use crate::{Bucket, BucketRange, CollectionName, Period, PeriodError};

/// The schedule of every collection: one for all, with exceptions for single collections, and every change since the first
/// count. A store records it, and its text is one line for each era; a period that is not kept for ever has the seconds for which its
/// buckets are kept after their end:
///
/// ```text
/// beginning UTC day
/// 2026-11-21T00:00:00Z Europe/Berlin hour:7776000s,day app-events=minute:172800s,day
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedules {
    /// In order, never empty; the first one has no beginning.
    entries: Vec<Entry>,
    default: Schedule,
    own: BTreeMap<CollectionName, Schedule>,
}

/// Zone and periods from `since` on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    since: Timestamp,
    zone: TimeZone,
    stored: Stored,
    own: BTreeMap<CollectionName, Stored>,
}

/// Stored periods, and how long each is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    /// From fine to coarse, no period twice.
    periods: Vec<Period>,
    /// Of some of the periods; the others are kept for ever.
    retention: Retention,
}

/// The part of the schedules of a store that a configuration demands. The rest is as the store has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// IANA zone of days and coarser periods. UTC in a store without a recorded schedule.
    pub zone: Option<TimeZone>,
    /// Stored periods of every collection that has none of its own. `day` in a store without a recorded schedule.
    pub periods: Option<Vec<Period>>,
    /// Stored periods of single collections.
    pub own: BTreeMap<CollectionName, Vec<Period>>,
    /// Retention of every collection that has none of its own; a stored period that it does not name is kept for ever. In a store
    /// without a recorded schedule everything is kept for ever.
    pub retention: Option<Retention>,
    /// Retention of single collections.
    pub own_retention: BTreeMap<CollectionName, Retention>,
    /// Changes a store that has another schedule, instead of refusing it.
    pub change: bool,
}

/// An error: the recorded schedule is not the configured one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{differences}; configure what the store has, or nothing, or ask for the change with `--change-schedule` (in a program \
     `change_schedule`)"
)]
pub struct ScheduleConflict {
    differences: String,
}

/// An error: the text of recorded schedules is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recorded schedule `{line}` cannot be read: {reason}")]
pub struct ScheduleTextError {
    line: String,
    reason: String,
}

/// Minimum time between the record of a change and the first event time by which it has effect: every running writer asks for the
/// record much more often.
const MIN_NOTICE: SignedDuration = SignedDuration::from_mins(5);

impl ScheduleConfig {
    /// Returns the demand for `periods`, in the zone of the store.
    pub fn of_periods(periods: impl IntoIterator<Item = Period>) -> Self {
        Self { periods: Some(periods.into_iter().collect()), ..Self::default() }
    }

    /// Returns this demand without retention: by it, nothing expires.
    #[must_use]
    pub fn without_retention(&self) -> Self {
        Self { retention: None, own_retention: BTreeMap::new(), ..self.clone() }
    }

    /// Returns the schedules of a store without a record.
    ///
    /// # Errors
    /// [`ScheduleError`]: a set of periods is empty, the zone has no name, or a retention is set for a period that is not stored.
    pub fn schedules(&self) -> Result<Schedules, ScheduleError> {
        let unrecorded = Entry {
            since: Timestamp::MIN,
            zone: TimeZone::UTC,
            stored: Stored::new(&[Period::Day], &Retention::default()),
            own: BTreeMap::new(),
        };
        Schedules::of_entries(vec![self.wanted(&unrecorded)?])
    }

    /// Returns the entry that this configuration demands in place of `last`.
    fn wanted(&self, last: &Entry) -> Result<Entry, ScheduleError> {
        let zone = self.zone.as_ref().unwrap_or(&last.zone);
        if zone_name(zone).is_none() {
            return Err(ScheduleError::NamelessZone);
        }
        let check = |periods: &[Period], retention: Option<&Retention>| {
            retention.map_or(Ok(()), |retention| retention.check(periods))
        };
        let periods = self.periods.as_deref().unwrap_or(&last.stored.periods);
        check(periods, self.retention.as_ref())?;
        let stored = Stored::new(periods, self.retention.as_ref().unwrap_or(&last.stored.retention));
        let mut own = last.own.clone();
        for name in self.own.keys().chain(self.own_retention.keys()) {
            let has = last.own.get(name).unwrap_or(&stored);
            let periods = self.own.get(name).unwrap_or(&has.periods);
            let retention = self.own_retention.get(name);
            check(periods, retention)?;
            let retention = retention.or(self.retention.as_ref()).unwrap_or(&has.retention);
            own.insert(name.clone(), Stored::new(periods, retention));
        }
        Ok(Entry { since: last.since, zone: zone.clone(), stored, own })
    }

    /// Compares the newest recorded schedule with this configuration. Returns the schedules to record instead when it differs and
    /// the change is asked for. The change takes effect at the beginning of a day that is at least five minutes further away than
    /// `ahead`, the lead that event times may have; of a week, month or year where nothing finer is stored.
    ///
    /// # Errors
    /// [`ScheduleConflict`]: it differs, and no change is asked for.
    pub fn reconcile(
        &self,
        recorded: &Schedules,
        now: Timestamp,
        ahead: SignedDuration,
    ) -> Result<Option<Schedules>, ScheduleConflict> {
        let last = recorded.last();
        let wanted =
            self.wanted(last).map_err(|error| ScheduleConflict { differences: error.to_string() })?;
        let differences = self.differences(last, &wanted);
        if differences.is_empty() {
            return Ok(None);
        }
        let conflict = |differences| Err(ScheduleConflict { differences });
        if !self.change {
            return conflict(differences.join("; "));
        }
        let notice = now.saturating_add(MIN_NOTICE).and_then(|at| at.saturating_add(ahead));
        let notice = notice.unwrap_or(Timestamp::MAX);
        let Some(since) = last.next_boundary(notice.max(last.since)) else {
            return conflict("no day is left for a change of the schedule".to_owned());
        };
        let entry = Entry { since, ..wanted };
        let entries = recorded.entries.iter().cloned().chain([entry]).collect();
        match Schedules::of_entries(entries) {
            Ok(changed) => Ok(Some(changed)),
            Err(error) => conflict(error.to_string()),
        }
    }

    fn differences(&self, last: &Entry, wanted: &Entry) -> Vec<String> {
        let mut differences = Vec::new();
        if zone_name(&wanted.zone) != zone_name(&last.zone) {
            let (has, wants) = (shown_zone(&last.zone), shown_zone(&wanted.zone));
            differences.push(format!("the store counts in the zone `{has}`, and `{wants}` is configured"));
        }
        let mut differ = |of: &str, has: &Stored, wants: &Stored| {
            if wants.periods != has.periods {
                let (has, wants) = (list(&has.periods), list(&wants.periods));
                differences
                    .push(format!("the store has the periods `{has}`{of}, and `{wants}` is configured"));
            }
            for period in wants.periods.iter().filter(|period| has.periods.contains(period)) {
                let (has, wants) = (has.retention.of(*period), wants.retention.of(*period));
                if has != wants {
                    let (has, wants) = (shown(has), shown(wants));
                    differences.push(format!(
                        "the store keeps {period} buckets{of} `{has}`, and `{wants}` is configured"
                    ));
                }
            }
        };
        differ("", &last.stored, &wanted.stored);
        for name in self.own.keys().chain(self.own_retention.keys()).collect::<BTreeSet<_>>() {
            let has = last.own.get(name).unwrap_or(&last.stored);
            differ(&format!(" for `{name}`"), has, &wanted.own[name]);
        }
        differences
    }
}

impl Stored {
    fn new(periods: &[Period], retention: &Retention) -> Self {
        Self { periods: sorted(periods), retention: retention.limited_to(periods) }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, period) in self.periods.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            f.write_str(period.name())?;
            if let Some(keep) = self.retention.of(*period) {
                write!(f, ":{}s", keep.as_secs())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Stored {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for word in text.split(',') {
            let (period, keep) = match word.split_once(':') {
                None => (word, None),
                Some((period, keep)) => {
                    let seconds = keep.strip_suffix('s').and_then(|text| text.parse::<u32>().ok());
                    let seconds = seconds.ok_or_else(|| format!("`{keep}` is no time to be kept"))?;
                    (period, Some(SignedDuration::from_secs(seconds.into())))
                }
            };
            let period: Period = period.parse().map_err(|error: PeriodError| error.to_string())?;
            if period == Period::All && keep.is_some() {
                return Err("`all` has no end".to_owned());
            }
            entries.push((period, keep));
        }
        let periods: Vec<_> = entries.iter().map(|(period, _)| *period).collect();
        Ok(Self::new(&periods, &entries.into_iter().collect()))
    }
}

impl Entry {
    /// Returns the first instant after `moment` at which a day begins and no instant of an earlier day follows, and with it a
    /// bucket of the finest stored period of every collection.
    fn next_boundary(&self, moment: Timestamp) -> Option<Timestamp> {
        let zone = &self.zone;
        let finest = self.own.values().chain([&self.stored]).filter_map(|stored| stored.periods.first());
        // UTC spans begin often enough, and nothing contains the beginning of `all`.
        let coarse: Vec<_> = finest.filter(|period| period.is_civil() && **period != Period::All).collect();
        let ends_by = |day, start: Timestamp| {
            spans(BucketRange::one(day), zone).last().is_none_or(|span| span.end <= start.as_second())
        };
        let mut day = Bucket::containing(Period::Day, moment, zone).ok()?;
        loop {
            let next = day.next()?;
            let start = next.start_instant(zone);
            let begins = |period: &&Period| next.rollup(**period, zone) != day.rollup(**period, zone);
            if start > moment && ends_by(day, start) && coarse.iter().all(begins) {
                return Some(start);
            }
            day = next;
        }
    }
}

impl Schedules {
    /// Returns schedules that store `periods` in `zone`, and the periods of `own` for the collections named there.
    ///
    /// # Errors
    /// [`ScheduleError`]: a set of periods is empty, or the zone has no name.
    pub fn new(
        zone: &TimeZone,
        periods: &[Period],
        own: &BTreeMap<CollectionName, Vec<Period>>,
    ) -> Result<Self, ScheduleError> {
        let (zone, periods, own) = (Some(zone.clone()), Some(periods.to_vec()), own.clone());
        ScheduleConfig { zone, periods, own, ..ScheduleConfig::default() }.schedules()
    }

    fn of_entries(entries: Vec<Entry>) -> Result<Self, ScheduleError> {
        let timeline = |stored: &dyn Fn(&Entry) -> Stored| {
            let era = |entry: &Entry| Era::new(entry.since, &stored(entry).periods, entry.zone.clone());
            let mut schedule = Schedule { eras: vec![era(&entries[0])?], kept: Vec::new() };
            for entry in &entries[1..] {
                schedule.change(era(entry)?);
            }
            let ends = entries[1..].iter().map(|entry| entry.since).chain([Timestamp::MAX]);
            let kept = entries.iter().zip(ends).map(|(entry, until)| {
                let (since, zone, retention) = (entry.since, entry.zone.clone(), stored(entry).retention);
                KeptEra { since, until, zone, retention }
            });
            schedule.kept = kept.filter(|era| !era.retention.is_forever()).collect();
            Ok(schedule)
        };
        let default = timeline(&|entry| entry.stored.clone())?;
        let names = entries.iter().flat_map(|entry| entry.own.keys());
        let own = names.map(|name| {
            let stored = |entry: &Entry| entry.own.get(name).unwrap_or(&entry.stored).clone();
            Ok((name.clone(), timeline(&stored)?))
        });
        let own = own.collect::<Result<_, ScheduleError>>()?;
        Ok(Self { entries, default, own })
    }

    /// Returns the schedule of `collection`.
    pub fn of(&self, collection: &str) -> &Schedule {
        if self.own.is_empty() {
            return &self.default;
        }
        self.own.get(collection).unwrap_or(&self.default)
    }

    /// Returns the schedule of the collections without an exception.
    pub fn default_schedule(&self) -> &Schedule {
        &self.default
    }

    /// Lists the collections that have a schedule of their own.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = (&CollectionName, &Schedule)> {
        self.own.iter()
    }

    /// Returns the zone of days and coarser periods at `moment`.
    pub fn zone(&self, moment: Timestamp) -> &TimeZone {
        &self.default.era_at(moment).zone
    }

    /// Returns the beginning of the newest era, `None` for schedules that never changed.
    pub fn changed_at(&self) -> Option<Timestamp> {
        (self.entries.len() > 1).then(|| self.last().since)
    }

    /// Returns the number of the newest era. It rises by one with every change, and is 1 for schedules that never changed.
    pub fn revision(&self) -> usize {
        self.entries.len()
    }

    /// Returns true where both count alike until `moment`.
    pub fn agree_until(&self, other: &Self, moment: Timestamp) -> bool {
        let until = |schedules: &Self| -> Vec<Entry> {
            schedules.entries.iter().filter(|entry| entry.since <= moment).cloned().collect()
        };
        until(self) == until(other)
    }

    fn last(&self) -> &Entry {
        self.entries.last().expect("there is a first entry")
    }
}

fn sorted(periods: &[Period]) -> Vec<Period> {
    let mut periods = periods.to_vec();
    periods.sort_unstable();
    periods.dedup();
    periods
}

fn list(periods: &[Period]) -> String {
    periods.iter().map(|period| period.name()).collect::<Vec<_>>().join(",")
}

/// Returns the IANA name of a zone, or the offset of a zone that has no rules.
fn zone_name(zone: &TimeZone) -> Option<String> {
    let name = zone.iana_name().map(str::to_owned);
    name.or_else(|| zone.to_fixed_offset().ok().map(|offset| offset.to_string()))
}

/// Returns the name of a zone, for people.
fn shown_zone(zone: &TimeZone) -> String {
    zone_name(zone).unwrap_or_else(|| "zone without a name".to_owned())
}

fn zone_of(name: &str) -> Option<TimeZone> {
    if let Some(offset) = name.strip_prefix(['+', '-']) {
        let units = [3600, 60, 1].into_iter().zip(offset.split(':'));
        let seconds: i32 = units.map(|(unit, n)| Some(unit * n.parse::<i32>().ok()?)).sum::<Option<_>>()?;
        let offset = Offset::from_seconds(if name.starts_with('-') { -seconds } else { seconds });
        return Some(TimeZone::fixed(offset.ok()?));
    }
    TimeZone::get(name).ok().filter(|zone| !zone.is_unknown())
}

impl fmt::Display for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, entry) in self.entries.iter().enumerate() {
            if at == 0 {
                f.write_str("beginning")?;
            } else {
                write!(f, "\n{}", entry.since)?;
            }
            write!(f, " {} {}", shown_zone(&entry.zone), entry.stored)?;
            entry.own.iter().try_for_each(|(name, stored)| write!(f, " {name}={stored}"))?;
        }
        Ok(())
    }
}

impl FromStr for Schedules {
    type Err = ScheduleTextError;

    fn from_str(text: &str) -> Result<Self, ScheduleTextError> {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines() {
            let malformed =
                |reason: &str| ScheduleTextError { line: line.to_owned(), reason: reason.to_owned() };
            let entry = parse_entry(line, entries.is_empty()).map_err(|reason| malformed(&reason))?;
            if entries.last().is_some_and(|last| last.since >= entry.since) {
                return Err(malformed("it is not later than the line before"));
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(ScheduleTextError { line: text.to_owned(), reason: "it is empty".to_owned() });
        }
        let refused =
            |error: ScheduleError| ScheduleTextError { line: text.to_owned(), reason: error.to_string() };
        Self::of_entries(entries).map_err(refused)
    }
}

fn parse_entry(line: &str, is_first: bool) -> Result<Entry, String> {
    let mut words = line.split(' ');
    let since = match (words.next(), is_first) {
        (Some("beginning"), true) => Timestamp::MIN,
        (Some(text), false) => text.parse().map_err(|_| format!("`{text}` is not a time"))?,
        _ => return Err("it lacks its beginning".to_owned()),
    };
    let name = words.next().ok_or("it lacks a zone")?;
    let zone = zone_of(name).ok_or_else(|| format!("this machine does not know the zone `{name}`"))?;
    let stored = words.next().ok_or("it lacks periods")?.parse()?;
    let own = words.map(|word| {
        let (name, stored) = word.split_once('=').ok_or("a collection lacks `=`")?;
        Ok((CollectionName::new(name).map_err(|error| error.to_string())?, stored.parse()?))
    });
    Ok(Entry { since, zone, stored, own: own.collect::<Result<_, String>>()? })
}

#[cfg(test)]
mod tests;
