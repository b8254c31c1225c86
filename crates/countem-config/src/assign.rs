//! Assigning entries of a layer to a configuration.

use std::path::Path;

use config::ValueKind;
use countem_core::{CollectionName, Period, Retention};
use countem_store_uri::shown;
use toml::Value;

use crate::{
    Config, Origin, Problem,
    keys::{self, COLLECTION_KEYS, KEYS, ORDERED, REPLACED, RETENTION, key_text, section_keys},
    kind::{Keep, Kind, Periods, Separator},
    layer::{Entry, PREFIX},
    nearest::nearest,
    raw::{RawValue, Refusal},
};

/// Assigns one entry.
///
/// # Errors
/// The problem with its key or its value; the configuration keeps what it had.
pub(crate) fn assign(config: &mut Config, entry: &Entry) -> Result<(), Problem> {
    let key = key_text(&entry.path);
    let problem = |text: String| Problem::of_key(&key, &entry.origin, text);
    let refused = |refusal| problem(format!("`{}` in {} {refusal}", shown(&key), entry.origin));
    let is_section = matches!(entry.value, RawValue::Typed(ValueKind::Table(_)));
    let path: Vec<_> = entry.path.iter().map(String::as_str).collect();
    match path[..] {
        ["collections"] if is_section => return Ok(()),
        ["collections", name] if is_section => {
            return collection_name(name).map(drop).map_err(refused);
        }
        ["collections"] | ["collections", _] => {
            return Err(refused(entry.value.refuse("a section [collections.NAME]")));
        }
        ["collections", name, "periods"] => {
            let name = collection_name(name).map_err(refused)?;
            let periods = Periods.read(&entry.value).map_err(refused)?;
            config.engine.schedule.own.insert(name, periods);
        }
        ["collections", name, "retention"] => {
            let name = collection_name(name).map_err(refused)?;
            let retention = Keep(RETENTION).read(&entry.value).map_err(refused)?;
            config.engine.schedule.own_retention.insert(name, retention);
        }
        ["collections", name, "hierarchy"] => {
            let name = collection_name(name).map_err(refused)?;
            let separator = Separator.read(&entry.value).map_err(refused)?;
            config.hierarchies.insert(name, separator);
        }
        [section] if is_section && section_keys(section).next().is_some() => return Ok(()),
        [section] if section_keys(section).next().is_some() => {
            let keys: Vec<_> = section_keys(section).map(|key| format!("`{}`", key.key)).collect();
            return Err(refused(entry.value.refuse(&format!("a section with the keys {}", keys.join(", ")))));
        }
        _ => match keys::find(&path.join(".")) {
            Some(known) => (known.set)(config, &entry.value, folder(&entry.origin)).map_err(refused)?,
            None => return Err(problem(unknown_key(&key, entry))),
        },
    }
    config.origins.insert(key, entry.origin.clone());
    Ok(())
}

/// Returns the folder in which relative paths of `origin` begin, `None` for the working directory.
fn folder(origin: &Origin) -> Option<&Path> {
    match origin {
        Origin::File(file) => file.parent(),
        _ => None,
    }
}

/// Adds the problems of values that are each allowed but contradict each other.
pub(crate) fn check_order(config: &Config, problems: &mut Vec<Problem>) {
    for (less, more, holds) in ORDERED {
        // A value that was refused left the default in place, which is not to be compared.
        let is_refused = problems.iter().any(|problem| [Some(less), Some(more)].contains(&problem.key()));
        if is_refused || holds(config) {
            continue;
        }
        let side = |name| {
            let value = match keys::find(name).map(|key| (key.get)(config)) {
                Some(Value::String(text)) => text,
                value => value.map(|value| value.to_string()).unwrap_or_default(),
            };
            format!("`{name}` is {value} ({})", config.origin(name))
        };
        let text = format!("{} and {}; allowed: `{less}` up to `{more}`", side(less), side(more));
        problems.push(Problem::of_key(less, config.origin(less), text));
    }
}

/// Adds a problem for each retention of a period that is configured not to be stored.
pub(crate) fn check_retention(config: &Config, problems: &mut Vec<Problem>) {
    let schedule = &config.engine.schedule;
    let mut check = |key: String, periods: Option<&Vec<Period>>, retention: &Retention| {
        let Some(periods) = periods else { return };
        for period in retention.periods().filter(|period| !periods.contains(period)) {
            let stored = periods.iter().map(|period| period.name()).collect::<Vec<_>>().join(", ");
            let origin = config.origin(&key);
            let text =
                format!("`{}` in {origin} names the period `{period}`; stored are: {stored}", shown(&key));
            problems.push(Problem::of_key(&key, origin, text));
        }
    };
    if let Some(retention) = &schedule.retention {
        check("time.retention".to_owned(), schedule.periods.as_ref(), retention);
    }
    for (name, retention) in &schedule.own_retention {
        let key = key_text(&["collections", name.as_str(), "retention"]);
        check(key, schedule.own.get(name).or(schedule.periods.as_ref()), retention);
    }
}

fn collection_name(name: &str) -> Result<CollectionName, Refusal> {
    CollectionName::new(name).map_err(|error| format!("is refused: {error}"))
}

fn unknown_key(key: &str, entry: &Entry) -> String {
    let candidates = candidates(entry);
    let path = entry.path.join(".");
    let near = match REPLACED.iter().find(|(old, _)| *old == path) {
        Some((_, new)) => (*new).to_owned(),
        None => nearest(&path, candidates.iter().map(|path| path.join(".")), '.', 1).concat(),
    };
    let unknown = format!("unknown key `{}` in {}", shown(key), entry.origin);
    let Some(path) = candidates.into_iter().find(|path| path.join(".") == near) else {
        return unknown + "; `countem config --default` shows all keys";
    };
    let mut text = format!("{unknown}; did you mean `{}`", shown(&key_text(&path)));
    if matches!(entry.origin, Origin::Variable(_)) {
        text += &format!(", set by `{}`", shown(&variable(&path)));
    }
    text + "?"
}

/// Returns the paths that an unknown one may have meant.
fn candidates(entry: &Entry) -> Vec<Vec<String>> {
    let keys = KEYS.iter().map(|key| vec![key.section.to_owned(), key.key.to_owned()]);
    match (&*entry.path, &entry.value) {
        ([_], RawValue::Typed(ValueKind::Table(_))) => {
            let mut sections: Vec<_> = keys.map(|path| path[..1].to_vec()).collect();
            sections.push(vec!["collections".to_owned()]);
            sections.sort_unstable();
            sections.dedup();
            sections
        }
        // A name with dots that is not quoted has become several segments.
        ([_, name @ .., _], _) if !name.is_empty() => {
            let collection = |key: &str| vec!["collections".to_owned(), name.join("."), key.to_owned()];
            COLLECTION_KEYS.map(collection).into_iter().chain(keys).collect()
        }
        _ => keys.collect(),
    }
}

/// Returns the environment variable of a key.
fn variable(path: &[String]) -> String {
    let segments = match path {
        [collections, name, key] => vec![collections.to_uppercase(), name.clone(), key.to_uppercase()],
        _ => path.iter().map(|segment| segment.to_uppercase()).collect(),
    };
    PREFIX.to_owned() + &segments.join("__")
}
