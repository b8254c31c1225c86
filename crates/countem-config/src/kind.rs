//! Kinds of values: how a key's value is read, written and described.
//!
//! A kind also decides what is shown of a value: [`Address`] hides passwords.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use config::ValueKind;
use countem_core::{
    Period, Retention,
    jiff::{
        SignedDuration,
        tz::{self, TimeZone},
    },
};
use countem_store_uri::{StoreUri, shown};
use serde::Serialize;
use toml::Value;

use crate::{
    DurabilityLevel, duration, nearest,
    raw::{RawValue, Refusal},
};

mod server;

pub(crate) use server::{File, Hosts, Promise, Sockets};

pub(crate) trait Kind {
    /// Type of the field that holds the value.
    type Target;

    /// Describes the allowed values, for messages.
    fn allowed(&self) -> String;

    fn read(&self, raw: &RawValue) -> Result<Self::Target, Refusal>;

    /// Returns the value as it is meant in a file in `folder`: a relative path in it begins there.
    fn inside(&self, value: Self::Target, folder: &Path) -> Result<Self::Target, Refusal> {
        let _ = folder;
        Ok(value)
    }

    /// Returns the value as the configuration file has it, without passwords.
    fn write(&self, value: &Self::Target) -> Value;
}

/// Address of a store.
pub(crate) struct Address;

impl Kind for Address {
    type Target = StoreUri;

    fn allowed(&self) -> String {
        "text such as \"sqlite://countem.db\"".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<StoreUri, Refusal> {
        let text = raw.text().ok_or_else(|| raw.refuse(&self.allowed()))?;
        StoreUri::new(text).map_err(|error| format!("is refused: {error}"))
    }

    fn inside(&self, uri: StoreUri, folder: &Path) -> Result<StoreUri, Refusal> {
        let Some(path) = uri.expose().strip_prefix("sqlite://") else { return Ok(uri) };
        let path = folder.join(path);
        let text =
            path.to_str().ok_or("is in a folder whose name is not UTF-8; allowed: an absolute path")?;
        StoreUri::new(&format!("sqlite://{text}")).map_err(|error| format!("is refused: {error}"))
    }

    fn write(&self, uri: &StoreUri) -> Value {
        Value::String(uri.to_string())
    }
}

/// Whole number in a range.
pub(crate) struct Whole<T>(pub(crate) RangeInclusive<T>);

impl<T: FromStr + PartialOrd + Display + Serialize + Copy> Kind for Whole<T> {
    type Target = T;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, raw: &RawValue) -> Result<T, Refusal> {
        let number =
            raw.integer().and_then(|text| text.parse().ok()).filter(|number| self.0.contains(number));
        number.ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, number: &T) -> Value {
        Value::try_from(*number).expect("the range of a key fits into i64")
    }
}

/// Number from 0 to 1.
pub(crate) struct Fraction;

impl Kind for Fraction {
    type Target = f64;

    fn allowed(&self) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<f64, Refusal> {
        let number = match raw {
            RawValue::Typed(ValueKind::Float(number)) => Some(*number),
            _ => raw.integer().and_then(|text| text.parse().ok()),
        };
        number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, number: &f64) -> Value {
        Value::Float(*number)
    }
}

/// Text between two levels of a hierarchy.
pub(crate) struct Separator;

impl Kind for Separator {
    type Target = String;

    fn allowed(&self) -> String {
        "text such as \".\" or \"/\"".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<String, Refusal> {
        let text = raw.text().filter(|text| !text.is_empty() && !text.chars().any(char::is_control));
        text.map(str::to_owned).ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, separator: &String) -> Value {
        Value::String(separator.clone())
    }
}

/// `true` or `false`.
pub(crate) struct Switch;

impl Kind for Switch {
    type Target = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<bool, Refusal> {
        match raw {
            RawValue::Typed(ValueKind::Boolean(value)) => Ok(*value),
            RawValue::Text(text) if text.trim() == "true" => Ok(true),
            RawValue::Text(text) if text.trim() == "false" => Ok(false),
            _ => Err(raw.refuse(&self.allowed())),
        }
    }

    fn write(&self, value: &bool) -> Value {
        Value::Boolean(*value)
    }
}

/// Duration in a range.
pub(crate) struct Span(pub(crate) RangeInclusive<Duration>);

impl Kind for Span {
    type Target = Duration;

    fn allowed(&self) -> String {
        let (min, max) = (duration::text(*self.0.start()), duration::text(*self.0.end()));
        let examples = match *self.0.start() < duration::DAY {
            true => "\"250ms\", \"10s\" or \"1h 30m\"",
            false => "\"400d\"",
        };
        format!("text such as {examples}, from {min} to {max}")
    }

    fn read(&self, raw: &RawValue) -> Result<Duration, Refusal> {
        let duration = raw.text().and_then(duration::parse).filter(|duration| self.0.contains(duration));
        duration.ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, duration: &Duration) -> Value {
        Value::String(duration::text(*duration))
    }
}

/// A word that stands for `None`, or a value of another kind.
pub(crate) struct WordOr<K>(pub(crate) &'static str, pub(crate) K);

impl<K: Kind> Kind for WordOr<K> {
    type Target = Option<K::Target>;

    fn allowed(&self) -> String {
        format!("\"{}\" or {}", self.0, self.1.allowed())
    }

    fn read(&self, raw: &RawValue) -> Result<Self::Target, Refusal> {
        if raw.text() == Some(self.0) {
            return Ok(None);
        }
        self.1.read(raw).map(Some).map_err(|_| raw.refuse(&self.allowed()))
    }

    fn write(&self, value: &Self::Target) -> Value {
        value.as_ref().map_or_else(|| Value::String(self.0.to_owned()), |value| self.1.write(value))
    }
}

/// The word `store` for what the store has, or a value of another kind.
pub(crate) struct OfStore<K>(pub(crate) K);

impl<K: Kind> Kind for OfStore<K> {
    type Target = Option<K::Target>;

    fn allowed(&self) -> String {
        format!("\"store\" or {}", self.0.allowed())
    }

    fn read(&self, raw: &RawValue) -> Result<Self::Target, Refusal> {
        if raw.text() == Some("store") { Ok(None) } else { self.0.read(raw).map(Some) }
    }

    fn write(&self, value: &Self::Target) -> Value {
        value.as_ref().map_or_else(|| Value::from("store"), |value| self.0.write(value))
    }
}

/// Path of a directory.
pub(crate) struct Directory;

impl Kind for Directory {
    type Target = PathBuf;

    fn allowed(&self) -> String {
        "the path of a folder".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<PathBuf, Refusal> {
        let path = raw.text().filter(|path| !path.is_empty() && !path.chars().any(char::is_control));
        path.map(PathBuf::from).ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn inside(&self, path: PathBuf, folder: &Path) -> Result<PathBuf, Refusal> {
        Ok(folder.join(path))
    }

    fn write(&self, path: &PathBuf) -> Value {
        Value::String(path.to_string_lossy().into_owned())
    }
}

/// Durability level.
pub(crate) struct Level;

impl Kind for Level {
    type Target = DurabilityLevel;

    fn allowed(&self) -> String {
        "\"memory\" or \"journal\"".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<DurabilityLevel, Refusal> {
        match raw.text().map(str::trim) {
            Some("memory") => Ok(DurabilityLevel::Memory),
            Some("journal") => Ok(DurabilityLevel::Journal),
            _ => Err(raw.refuse(&self.allowed())),
        }
    }

    fn write(&self, level: &DurabilityLevel) -> Value {
        let name = match level {
            DurabilityLevel::Memory => "memory",
            DurabilityLevel::Journal => "journal",
        };
        Value::String(name.to_owned())
    }
}

/// IANA time zone.
pub(crate) struct Zone;

impl Kind for Zone {
    type Target = TimeZone;

    fn allowed(&self) -> String {
        "an IANA time zone such as \"UTC\" or \"Europe/Berlin\"".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<TimeZone, Refusal> {
        let refused = || raw.refuse(&self.allowed());
        let name = raw.text().ok_or_else(refused)?.trim();
        if let Ok(zone) = tz::db().get(name)
            && !zone.is_unknown()
        {
            return Ok(zone);
        }
        let names: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
        let near: Vec<_> =
            nearest(name, &names, '/', 3).into_iter().map(|name| format!("`{name}`")).collect();
        let hint =
            if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
        Err(refused() + &hint)
    }

    fn write(&self, zone: &TimeZone) -> Value {
        Value::String(zone.iana_name().unwrap_or("Etc/Unknown").to_owned())
    }
}

/// Set of periods, ordered from fine to coarse.
pub(crate) struct Periods;

impl Kind for Periods {
    type Target = Vec<Period>;

    fn allowed(&self) -> String {
        format!("one or more of {}", Period::ALL.map(Period::name).join(", "))
    }

    fn read(&self, raw: &RawValue) -> Result<Vec<Period>, Refusal> {
        let form = match raw {
            RawValue::Text(_) => "separated by commas",
            RawValue::Typed(_) => "in a list such as [\"hour\", \"day\"]",
        };
        let allowed = format!("{} {form}", self.allowed());
        let names = raw.list().ok_or_else(|| raw.refuse(&allowed))?;
        if names.is_empty() {
            return Err(format!("is empty; allowed: {allowed}"));
        }
        let mut periods = Vec::with_capacity(names.len());
        for name in names {
            periods.push(period(name, &allowed)?);
        }
        periods.sort_unstable();
        periods.dedup();
        Ok(periods)
    }

    fn write(&self, periods: &Vec<Period>) -> Value {
        Value::Array(periods.iter().map(|period| Value::from(period.name())).collect())
    }
}

fn period(name: &str, allowed: &str) -> Result<Period, Refusal> {
    name.parse().map_err(|_| {
        let near = nearest(name, Period::ALL.map(Period::name), ' ', 1);
        let hint = near.first().map(|near| format!(" did you mean `{near}`?")).unwrap_or_default();
        format!("names the period `{}`;{hint} allowed: {allowed}", shown(name))
    })
}

/// Times for which buckets of periods are kept, in a range.
pub(crate) struct Keep(pub(crate) RangeInclusive<Duration>);

impl Kind for Keep {
    type Target = Retention;

    fn allowed(&self) -> String {
        let (min, max) = (duration::text(*self.0.start()), duration::text(*self.0.end()));
        format!("periods, each with \"forever\" or a time from {min} to {max}, such as")
    }

    fn read(&self, raw: &RawValue) -> Result<Retention, Refusal> {
        let form = match raw {
            RawValue::Text(_) => "`minute=48h,hour=90d`",
            RawValue::Typed(_) => "[\"minute=48h\", \"hour=90d\"]",
        };
        let allowed = format!("{} {form}", self.allowed());
        let words = raw.list().ok_or_else(|| raw.refuse(&allowed))?;
        let mut entries: Vec<(Period, Option<SignedDuration>)> = Vec::with_capacity(words.len());
        for word in words {
            let refused = |why: &str| format!("has `{}`, which {why}; allowed: {allowed}", shown(word));
            let (name, keep) = word.split_once('=').ok_or_else(|| refused("has no `=`"))?;
            let period = period(name.trim(), &allowed)?;
            let keep = match keep.trim() {
                "forever" => None,
                text => {
                    let time = duration::parse(text)
                        .filter(|time| self.0.contains(time) && time.subsec_nanos() == 0);
                    let time = time.and_then(|time| SignedDuration::try_from(time).ok());
                    Some(time.ok_or_else(|| refused("has no such time"))?)
                }
            };
            if period == Period::All && keep.is_some() {
                return Err(refused("cannot expire, because it has no end"));
            }
            if entries.iter().any(|(other, _)| *other == period) {
                return Err(refused("is there twice"));
            }
            entries.push((period, keep));
        }
        Ok(entries.into_iter().collect())
    }

    fn write(&self, retention: &Retention) -> Value {
        let word = |(period, keep): (Period, Option<SignedDuration>)| {
            let keep = keep.map_or_else(|| "forever".to_owned(), |keep| duration::text(keep.unsigned_abs()));
            Value::from(format!("{period}={keep}"))
        };
        Value::Array(retention.iter().map(word).collect())
    }
}
