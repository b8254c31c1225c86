//! The keys: which there are, what each may be, and what is said about one that does not exist.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    ops::RangeInclusive,
    time::Duration,
};

use config::ValueKind;
use countem_core::CollectionName;

use crate::uri::shown;

use super::{
    CollectionConfig, Config, Origin, Problem, duration,
    given::{self, Given, Refusal},
    layer::{Entry, PREFIX},
    nearest::nearest,
};

/// A key outside `[collections]`.
pub(super) struct Key {
    /// `section.key`.
    pub(super) name: &'static str,
    set: fn(&mut Config, &Given) -> Result<(), Refusal>,
}

macro_rules! keys {
    ($($section:ident { $($key:ident = $read:expr;)* })*) => {
        /// Every key outside `[collections]`.
        pub(super) const KEYS: &[Key] = &[$($(Key {
            name: concat!(stringify!($section), ".", stringify!($key)),
            set: |config, given| {
                config.$section.$key = $read(given)?;
                Ok(())
            },
        },)*)*];
    };
}

keys! {
    store {
        uri = given::store_uri;
        lanes = |given| given::whole(given, MOST_LANES);
        required = given::truth;
    }
    mongodb {
        metrics_per_document = |given| given::whole(given, MOST_METRICS);
        writer_shards = |given| given::whole(given, MOST_LANES);
        retention = |given| given::retention(given, RETENTION);
        deadline = |given| given::span(given, TIMER);
    }
    collectors {
        min = |given| given::whole(given, MOST_COLLECTORS);
        max = |given| given::collectors_max(given, MOST_COLLECTORS);
    }
    flush {
        interval = |given| given::span(given, TIMER);
        jitter = given::fraction;
        counters = |given| given::whole(given, MOST_COUNTERS);
        batch_counters = |given| given::whole(given, MOST_COUNTERS);
        retry_first = |given| given::span(given, TIMER);
        retry_longest = |given| given::span(given, TIMER);
    }
    time {
        zone = given::zone;
        periods = given::periods;
        past_window = |given| given::span(given, WINDOW);
        future_window = |given| given::span(given, WINDOW);
    }
    limits {
        metrics_per_bucket = |given| given::whole(given, MOST_COUNTERS);
        pending_counters = |given| given::whole(given, MOST_COUNTERS);
    }
    durability {
        level = given::durability;
        dir = given::folder;
        tick = |given| given::span(given, TIMER);
        max_bytes = |given| given::whole(given, MOST_BYTES);
        keep_resolved = |given| given::span(given, REPLAY);
    }
    shutdown {
        deadline = |given| given::span(given, WINDOW);
    }
}

/// Every key of a collection.
const COLLECTION_KEYS: [&str; 1] = ["periods"];

const MOST_LANES: NonZeroU16 = NonZeroU16::new(1024).expect("1024 is not zero");
const MOST_BYTES: NonZeroU64 = NonZeroU64::new(1 << 50).expect("a pebibyte is not zero");
const MOST_METRICS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");
/// Stores may forget two days after a writer's end what a replay would need to tell what they have.
const REPLAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(2 * 24 * 3600);
/// A document that goes away on the day it was made is no counter.
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(24 * 3600)..=CENTURY;
const MOST_COLLECTORS: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
const MOST_COUNTERS: NonZeroUsize = NonZeroUsize::new(u32::MAX as usize).expect("the greatest is not zero");
/// Timers tick in milliseconds; a century is for ever and still a moment that a clock can show.
const TIMER: RangeInclusive<Duration> = Duration::from_millis(1)..=CENTURY;
const WINDOW: RangeInclusive<Duration> = Duration::ZERO..=CENTURY;
const CENTURY: Duration = Duration::from_secs(36_525 * 24 * 3600);

/// Sets one key of `config`, or says why it cannot be set.
pub(super) fn set(config: &mut Config, entry: &Entry) -> Result<(), Problem> {
    let key = key_text(&entry.path);
    let problem = |text: String| Problem::of_key(&key, &entry.origin, text);
    let refused = |refusal| problem(format!("`{}` in {} {refusal}", shown(&key), entry.origin));
    let is_section = matches!(entry.value, Given::Typed(ValueKind::Table(_)));
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
            let periods = given::periods(&entry.value).map_err(refused)?;
            config.collections.insert(name, CollectionConfig { periods });
        }
        [section] if is_section && section_keys(section).next().is_some() => return Ok(()),
        [section] if section_keys(section).next().is_some() => {
            let keys: Vec<_> = section_keys(section).map(|name| format!("`{name}`")).collect();
            return Err(refused(entry.value.refuse(&format!("a section with the keys {}", keys.join(", ")))));
        }
        _ => match find(&entry.path) {
            Some(known) => (known.set)(config, &entry.value).map_err(refused)?,
            None => return Err(problem(unknown_key(&key, entry))),
        },
    }
    config.provenance.origins.insert(key, entry.origin.clone());
    Ok(())
}

/// Adds the problems of values that are each allowed but not together.
pub(super) fn check_pairs(config: &Config, problems: &mut Vec<Problem>) {
    let Config { collectors, flush, .. } = config;
    if let Some(most) = collectors.max.exactly().filter(|most| collectors.min.get() > *most) {
        let values = (collectors.min.to_string(), most.to_string());
        contradiction(config, ["collectors.min", "collectors.max"], values, problems);
    }
    if flush.retry_first > flush.retry_longest {
        let values = (duration::text(flush.retry_first), duration::text(flush.retry_longest));
        contradiction(config, ["flush.retry_first", "flush.retry_longest"], values, problems);
    }
}

fn contradiction(config: &Config, keys: [&str; 2], values: (String, String), problems: &mut Vec<Problem>) {
    // What was refused has kept its default, which nobody compared with the other value.
    if problems.iter().any(|problem| keys.iter().any(|key| problem.key() == Some(key))) {
        return;
    }
    let [less, more] = keys;
    let (less_origin, more_origin) = (config.origin(less), config.origin(more));
    let (less_value, more_value) = values;
    let text = format!(
        "`{less}` is {less_value} ({less_origin}) and `{more}` is {more_value} ({more_origin}); \
         allowed: `{less}` up to `{more}`"
    );
    problems.push(Problem::of_key(less, less_origin, text));
}

/// Tells whether there is a key of this path.
pub(super) fn is_key(path: &[String]) -> bool {
    match path {
        [collections, _, key] if collections == "collections" => COLLECTION_KEYS.contains(&key.as_str()),
        _ => find(path).is_some(),
    }
}

/// Returns the key of a path as one would write it in TOML.
pub(super) fn key_text(path: &[String]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let segment = |text: &String| match !text.is_empty() && text.chars().all(bare) {
        true => text.clone(),
        false => format!("\"{text}\""),
    };
    path.iter().map(segment).collect::<Vec<_>>().join(".")
}

fn find(path: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|known| known.name.split('.').eq(path))
}

fn section_keys(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |known| known.name.strip_prefix(section)?.strip_prefix('.'))
}

fn collection_name(name: &str) -> Result<CollectionName, Refusal> {
    CollectionName::new(name).map_err(|error| format!("is refused: {error}"))
}

fn unknown_key(key: &str, entry: &Entry) -> String {
    let candidates = candidates(entry);
    let dotted = candidates.iter().map(|path| path.join("."));
    let near = nearest(&entry.path.join("."), dotted, '.', 1).concat();
    let path = candidates.into_iter().find(|path| path.join(".") == near).unwrap_or_default();
    let mut text = format!(
        "unknown key `{}` in {}; did you mean `{}`",
        shown(key),
        entry.origin,
        shown(&key_text(&path))
    );
    if matches!(entry.origin, Origin::Variable(_)) {
        text += &format!(", set by `{}`", shown(&variable(&path)));
    }
    text + "?"
}

/// Returns the paths that somebody who wrote this one could have meant.
fn candidates(entry: &Entry) -> Vec<Vec<String>> {
    let path_of = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
    let keys = KEYS.iter().map(|known| path_of(known.name));
    match (&*entry.path, &entry.value) {
        ([_], Given::Typed(ValueKind::Table(_))) => {
            let sections: BTreeSet<_> = keys.map(|path| path[..1].to_vec()).collect();
            sections.into_iter().chain([path_of("collections")]).collect()
        }
        // A name with dots that was not quoted has become several segments.
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
