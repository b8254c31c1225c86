//! Values as they were given, and their conversion to what a key wants.
//!
//! A file gives typed values, which must have the right type. The environment and the command line give text; it
//! is read as the type that the key has and never guessed, so that the password `007` stays `007`.

use std::{
    fmt::Display, num::NonZeroUsize, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};

use config::ValueKind;
use countem_core::{Period, jiff::tz};

use super::{CollectorsMax, DurabilityLevel, duration, nearest::nearest};
use crate::{StoreUri, uri::shown};

/// A value as it was given.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// From an environment variable or a flag.
    Text(String),
    /// From a file.
    Typed(ValueKind),
}

/// What is wrong with a value: the end of a sentence that began with the key.
pub(super) type Refusal = String;

pub(super) fn store_uri(given: &Given) -> Result<StoreUri, Refusal> {
    let text = given.text().ok_or_else(|| given.refuse("text such as \"sqlite://countem.db\""))?;
    StoreUri::new(text).map_err(|error| format!("is refused: {error}"))
}

/// Reads a whole number from 1 to `most`.
pub(super) fn whole<T: FromStr + PartialOrd + Display>(given: &Given, most: T) -> Result<T, Refusal> {
    let number = given.integer().and_then(|text| text.parse().ok()).filter(|number| *number <= most);
    number.ok_or_else(|| given.refuse(&format!("a whole number from 1 to {most}")))
}

pub(super) fn collectors_max(given: &Given, most: NonZeroUsize) -> Result<CollectorsMax, Refusal> {
    if given.text() == Some("auto") {
        return Ok(CollectorsMax::Auto);
    }
    match whole(given, most) {
        Ok(number) => Ok(CollectorsMax::Exactly(number)),
        Err(_) => Err(given.refuse(&format!("\"auto\" or a whole number from 1 to {most}"))),
    }
}

pub(super) fn fraction(given: &Given) -> Result<f64, Refusal> {
    let number = match given {
        Given::Text(text) => text.trim().parse().ok(),
        Given::Typed(ValueKind::Float(number)) => Some(*number),
        Given::Typed(_) => given.integer().and_then(|text| text.parse().ok()),
    };
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| given.refuse("a number from 0 to 1"))
}

pub(super) fn truth(given: &Given) -> Result<bool, Refusal> {
    match given {
        Given::Typed(ValueKind::Boolean(truth)) => Ok(*truth),
        Given::Text(text) if text.trim() == "true" => Ok(true),
        Given::Text(text) if text.trim() == "false" => Ok(false),
        _ => Err(given.refuse("true or false")),
    }
}

pub(super) fn span(given: &Given, allowed: RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let duration = given.text().and_then(duration::parse).filter(|duration| allowed.contains(duration));
    duration.ok_or_else(|| {
        let (least, most) = (duration::text(*allowed.start()), duration::text(*allowed.end()));
        given.refuse(&format!("text such as \"250ms\", \"10s\" or \"1h 30m\", from {least} to {most}"))
    })
}

pub(super) fn durability(given: &Given) -> Result<DurabilityLevel, Refusal> {
    match given.text().map(str::trim) {
        Some("memory") => Ok(DurabilityLevel::Memory),
        Some("journal") => Ok(DurabilityLevel::Journal),
        _ => Err(given.refuse("\"memory\" or \"journal\"")),
    }
}

pub(super) fn folder(given: &Given) -> Result<PathBuf, Refusal> {
    let path = given.text().filter(|path| !path.is_empty() && !path.chars().any(char::is_control));
    path.map(PathBuf::from).ok_or_else(|| given.refuse("the path of a folder"))
}

/// Reads how long something is kept; `None` is for ever.
pub(super) fn retention(
    given: &Given,
    allowed: RangeInclusive<Duration>,
) -> Result<Option<Duration>, Refusal> {
    if given.text() == Some("forever") {
        return Ok(None);
    }
    span(given, allowed)
        .map(Some)
        .map_err(|_| given.refuse("\"forever\" or text such as \"400d\", at least 1d"))
}

pub(super) fn zone(given: &Given) -> Result<tz::TimeZone, Refusal> {
    const ALLOWED: &str = "an IANA time zone such as \"UTC\" or \"Europe/Berlin\"";
    let name = given.text().ok_or_else(|| given.refuse(ALLOWED))?.trim();
    match tz::db().get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => {
            let names: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
            let near: Vec<_> =
                nearest(name, &names, '/', 3).into_iter().map(|name| format!("`{name}`")).collect();
            Err(format!("{}; did you mean {}?", given.refuse(ALLOWED), near.join(", ")))
        }
    }
}

/// Reads a set of periods and puts it in order, from fine to coarse.
pub(super) fn periods(given: &Given) -> Result<Vec<Period>, Refusal> {
    let all = || Period::ALL.map(Period::name);
    let form = match given {
        Given::Text(_) => "separated by commas",
        Given::Typed(_) => "in a list such as [\"hour\", \"day\"]",
    };
    let allowed = || format!("one or more of {} {form}", all().join(", "));
    let names = given.list().ok_or_else(|| given.refuse(&allowed()))?;
    if names.is_empty() {
        return Err(format!("is empty; allowed: {}", allowed()));
    }
    let mut periods = Vec::with_capacity(names.len());
    for name in names {
        periods.push(name.parse().map_err(|_| {
            let near = nearest(name, all(), ' ', 1).concat();
            format!("names the period `{}`; did you mean `{near}`? allowed: {}", shown(name), allowed())
        })?);
    }
    periods.sort_unstable();
    periods.dedup();
    Ok(periods)
}

impl Given {
    /// Ends the sentence about a key whose value is not what is `allowed`.
    pub(super) fn refuse(&self, allowed: &str) -> Refusal {
        format!("is {}; allowed: {allowed}", self.shown())
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Typed(ValueKind::String(text)) => Some(text),
            Self::Typed(_) => None,
        }
    }

    /// Returns the digits of a number that may be whole.
    fn integer(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.trim().to_owned()),
            Self::Typed(ValueKind::I64(number)) => Some(number.to_string()),
            Self::Typed(_) => None,
        }
    }

    fn list(&self) -> Option<Vec<&str>> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Text(text) => Some(text.split(',').map(str::trim).collect()),
            Self::Typed(ValueKind::Array(values)) => values
                .iter()
                .map(|value| match &value.kind {
                    ValueKind::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            Self::Typed(_) => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) if text.is_empty() => "empty".to_owned(),
            Self::Text(text) => format!("`{}`", shown(text)),
            // The quotes tell the text `"2"` of a file from the number `2`.
            Self::Typed(ValueKind::String(text)) => format!("`\"{}\"`", shown(text)),
            Self::Typed(ValueKind::Array(_)) => "a list".to_owned(),
            Self::Typed(ValueKind::Table(_)) => "a section".to_owned(),
            Self::Typed(value) => format!("`{value}`"),
        }
    }
}
