//! The keys. Each is declared once: its comment in the file, its name, the field that holds it and its kind.
//!
//! The default of a key is what its field has in `Config::default`. A new key is one more entry of [`KEYS`].

use std::{
    num::{NonZeroU16, NonZeroUsize},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use toml::Value;

use crate::{
    Config,
    kind::{
        Address, Directory, File, Fraction, Hosts, Keep, Kind, Level, OfStore, Periods, Promise, Sockets,
        Span, Switch, Whole, WordOr, Zone,
    },
    raw::{RawValue, Refusal},
};

/// A key outside `[collections]`.
pub(crate) struct Key {
    pub(crate) section: &'static str,
    /// Name inside the section.
    pub(crate) key: &'static str,
    /// `section.key`.
    pub(crate) name: &'static str,
    /// Comment in the configuration file, line by line.
    pub(crate) comment: &'static [&'static str],
    /// Sets the value, which comes from a file in the folder if there is one.
    pub(crate) set: fn(&mut Config, &RawValue, Option<&Path>) -> Result<(), Refusal>,
    pub(crate) get: fn(&Config) -> Value,
}

macro_rules! keys {
    ($($(#[doc = $comment:literal])+ $section:ident.$key:ident => $($field:ident).+: $kind:expr;)*) => {
        /// Every key outside `[collections]`, in the order of the file.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            section: stringify!($section),
            key: stringify!($key),
            name: concat!(stringify!($section), ".", stringify!($key)),
            comment: &[$($comment),+],
            set: |config, raw, folder| {
                let value = $kind.read(raw)?;
                config.$($field).+ = match folder {
                    Some(folder) => $kind.inside(value, folder)?,
                    None => value,
                };
                Ok(())
            },
            get: |config| $kind.write(&config.$($field).+),
        },)*];
    };
}

keys! {
    /// Store of the counters: sqlite://PATH, mongodb://HOST/DATABASE, countem://HOST (another countem) or memory:// (gone
    /// when the process ends).
    store.uri => store_uri: Address;
    /// Storage actors, each with one batch under way; collections are spread over them. Raise it when one is always busy.
    store.lanes => engine.lanes: Whole(1..=1024);
    /// true: refuse to start while the store cannot be used. false: start, count in memory, and deliver once it can.
    store.required => engine.store_required: Switch;

    /// Approximate number of metrics in one document. More: fewer documents to read. Fewer: cheaper updates.
    mongodb.metrics_per_document => mongodb.metrics_per_document: Whole(NonZeroUsize::MIN..=MAX_METRICS);
    /// Number of documents that the writers of one counter are spread over. Raise it when many nodes flush the same
    /// counters.
    mongodb.writer_shards => mongodb.writer_shards: Whole(NonZeroU16::MIN..=MAX_SHARDS);
    /// Maximum duration of one request, waiting for the majority included.
    mongodb.deadline => mongodb.deadline: Span(TIMER);

    /// Minimum number of in-memory tables. Raise it when many threads start counting at the same moment.
    collectors.min => engine.collectors_min: Whole(1..=1024);
    /// Maximum number of in-memory tables, or "auto" for twice the number of cores. Lower it to save memory.
    collectors.max => engine.collectors_max: WordOr("auto", Whole(1..=1024));

    /// Time that counts gather before they go to the store. Longer: fewer writes, more to lose when the process is killed.
    flush.interval => engine.flush_interval: Span(TIMER);
    /// Fraction of the interval, 0 to 1, by which a flush may come earlier. Raise it when many nodes share one store.
    flush.jitter => engine.flush_jitter: Fraction;
    /// Number of pending counters that starts a flush before its time. Lower it to save memory.
    flush.counters => engine.flush_counters: Whole(1..=MAX_COUNTERS);
    /// Maximum number of counters in one batch. Lower it when single writes take the store too long.
    flush.batch_counters => engine.batch_counters: Whole(1..=MAX_COUNTERS);
    /// First wait after the store refused or did not answer; it grows from one attempt to the next.
    flush.retry_first => engine.retry_first: Span(TIMER);
    /// Longest wait between two attempts to store. Lower it to deliver sooner after an outage.
    flush.retry_longest => engine.retry_longest: Span(TIMER);

    /// IANA time zone of days, weeks, months and years; hours and finer are UTC. "store": that of the store, and UTC for a
    /// new one. The store keeps its zone: another one is refused, or changes it with `--change-schedule`.
    time.zone => engine.schedule.zone: OfStore(Zone);
    /// Stored periods: second, minute, hour, day, week, month, year, all. Coarser ones than stored are added up on read.
    /// "store": those of the store, and ["day"] for a new one. The store keeps them, as it does the zone.
    time.periods => engine.schedule.periods: OfStore(Periods);
    /// Time that the buckets of stored periods are kept after their end, such as ["minute=48h", "hour=90d"]; those of a
    /// period that is not named are kept forever. Expired buckets are removed, and reads of them refused. "store": as the
    /// store has it, and forever in a new one. The store keeps it, as it does the zone.
    time.retention => engine.schedule.retention: OfStore(Keep(RETENTION));
    /// Maximum age of the time of an increment. Raise it to take in older logs.
    time.past_window => engine.past_window: Span(WINDOW);
    /// Maximum lead of the time of an increment over this node's clock. Raise it for senders with bad clocks.
    time.future_window => engine.future_window: Span(WINDOW);

    /// Maximum number of metrics of a collection in one bucket; further ones are counted as `__overflow__`.
    limits.metrics_per_bucket => engine.metrics_per_bucket: Whole(1..=MAX_COUNTERS);
    /// Maximum number of label sets of a metric in one bucket; further ones count as `{__overflow__="true"}`.
    limits.label_sets => engine.label_sets: Whole(1..=MAX_COUNTERS);
    /// Maximum number of counters pending on this node; further ones are refused. About 160 bytes of memory each.
    limits.pending_counters => engine.pending_counters: Whole(1..=MAX_COUNTERS);
    /// true: write the first refused increment to standard error, in a process without a subscriber of `tracing`.
    limits.warn_on_stderr => engine.warn_on_stderr: Switch;

    /// Maximum age of the stored value in an answer of `increment_and_get`; this node's own counts are always all in it.
    /// Longer: fewer reads, and counts of other nodes are seen later. "0s": read the store for each answer.
    reads.stored_age => engine.stored_age: Span(WINDOW);

    /// Loss when the process is killed. "memory": what is not flushed. "journal": nothing acknowledged, else one tick.
    durability.level => durability.level: Level;
    /// Folder of the journal, on a local disk; it belongs to one process at a time.
    durability.dir => durability.dir: Directory;
    /// Time that increments gather before they are recorded. Shorter: less to lose, more disk writes.
    durability.tick => durability.tick: Span(TIMER);
    /// Maximum size of the journal in bytes. When it is full, increments are refused until the store took some.
    durability.max_bytes => durability.max_bytes: Whole(1..=1 << 50);
    /// Time that stored batches are kept for `countem replay` into a restored store, at most "2d". "0s": not at all.
    durability.keep_resolved => durability.keep_resolved: Span(REPLAY);

    /// Addresses on which `countem serve` serves HTTP. Another machine's requests need one that is not 127.0.0.1.
    server.listen => server.listen: Sockets;
    /// true: serve other machines without tokens or without TLS, where a proxy or the network keeps strangers out.
    server.insecure => server.insecure: Switch;
    /// Host names of requests besides localhost, so that no web page elsewhere can speak to this server.
    server.hosts => server.hosts: Hosts;
    /// File of tokens, which `countem token` writes. "none": everyone who reaches the server may do everything.
    server.tokens => server.tokens: WordOr("none", File);
    /// Certificate chain for TLS, in PEM, or "none".
    server.tls_cert => server.tls_cert: WordOr("none", File);
    /// Private key for TLS, in PEM, or "none".
    server.tls_key => server.tls_key: WordOr("none", File);
    /// Authorities of client certificates, in PEM; every client has to show one. "none": no client has to.
    server.tls_client_ca => server.tls_client_ca: WordOr("none", File);
    /// Guarantee of a write that asks for none: memory, journal or store.
    server.guarantee => server.guarantee: Promise;
    /// Weakest guarantee that a write may ask for.
    server.min_guarantee => server.min_guarantee: Promise;
    /// Strongest guarantee that a write may ask for. Lower it to keep clients from asking for a flush each.
    server.max_guarantee => server.max_guarantee: Promise;
    /// Maximum bytes of the body of a request, decompressed.
    server.max_body => server.max_body: Whole(1..=1 << 30);
    /// Maximum bytes of all bodies that are held at the same moment; requests beyond it are asked to come again.
    server.max_bodies => server.max_bodies: Whole(1..=1 << 40);
    /// Maximum number of increments in a request.
    server.max_items => server.max_items: Whole(1..=MAX_COUNTERS);
    /// Maximum number of open connections; further ones wait.
    server.max_connections => server.max_connections: Whole(1..=1_000_000);
    /// Maximum number of open event streams.
    server.max_streams => server.max_streams: Whole(0..=1_000_000);
    /// Maximum requests per second of one token, or of one address where there are no tokens. 0: no limit.
    server.rate => server.rate: Whole(0..=1_000_000_000);
    /// Time in which the head of a request has to arrive.
    server.head_timeout => server.head_timeout: Span(TIMER);
    /// Time in which the body of a request has to arrive.
    server.body_timeout => server.body_timeout: Span(TIMER);
    /// Time after which an idle connection is closed. Make it longer than that of a proxy in front.
    server.idle_timeout => server.idle_timeout: Span(TIMER);
    /// Time after which a write is answered although its guarantee does not hold yet; the answer says so.
    server.write_timeout => server.write_timeout: Span(TIMER);
    /// Time that a stopping server says so at `/readyz` before it takes no more requests. A balancer needs it.
    server.drain => server.drain: Span(WINDOW);

    /// Time that a shutdown tries to store what is pending. Keep it under the time the service manager grants.
    shutdown.deadline => engine.shutdown_deadline: Span(WINDOW);
}

/// Keys of a section `[collections.NAME]`.
pub(crate) const COLLECTION_KEYS: [&str; 3] = ["periods", "retention", "hierarchy"];

/// Keys of earlier versions, each with the one that took its place.
pub(crate) const REPLACED: [(&str, &str); 1] = [("mongodb.retention", "time.retention")];

const MAX_SHARDS: NonZeroU16 = NonZeroU16::new(1024).expect("1024 is not zero");
const MAX_METRICS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");
const MAX_COUNTERS: usize = u32::MAX as usize;

/// A century is for ever and still a moment that a clock can show.
const CENTURY: Duration = Duration::from_secs(36_525 * 24 * 3600);
/// Timers tick in milliseconds.
const TIMER: RangeInclusive<Duration> = Duration::from_millis(1)..=CENTURY;
const WINDOW: RangeInclusive<Duration> = Duration::ZERO..=CENTURY;
/// Two days after the end of a writer, stores may forget its bookkeeping, which a replay needs.
const REPLAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(2 * 24 * 3600);
/// With less, a bucket could be gone before its last counts are stored.
pub(crate) const RETENTION: RangeInclusive<Duration> = Duration::from_secs(3600)..=CENTURY;

/// Tells whether a rule holds.
type Rule = fn(&Config) -> bool;

/// Pairs of keys with a rule for their values: the first must not exceed the second.
pub(crate) const ORDERED: [(&str, &str, Rule); 4] = [
    ("server.min_guarantee", "server.guarantee", |config| {
        config.server.min_guarantee <= config.server.guarantee
    }),
    ("server.guarantee", "server.max_guarantee", |config| {
        config.server.guarantee <= config.server.max_guarantee
    }),
    ("collectors.min", "collectors.max", |config| {
        config.engine.collectors_max.is_none_or(|max| config.engine.collectors_min <= max)
    }),
    ("flush.retry_first", "flush.retry_longest", |config| {
        config.engine.retry_first <= config.engine.retry_longest
    }),
];

/// Finds a key outside `[collections]` by its name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

pub(crate) fn section_keys(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// Tells whether `path` is a key.
pub(crate) fn is_key(path: &[String]) -> bool {
    match path {
        [collections, _, key] if collections == "collections" => COLLECTION_KEYS.contains(&key.as_str()),
        [section, key] => section_keys(section).any(|known| known.key == key),
        _ => false,
    }
}

/// Returns the key of a path as TOML has it.
pub(crate) fn key_text<T: AsRef<str>>(path: &[T]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let segment = |text: &str| match !text.is_empty() && text.chars().all(bare) {
        true => text.to_owned(),
        false => format!("\"{text}\""),
    };
    path.iter().map(|text| segment(text.as_ref())).collect::<Vec<_>>().join(".")
}
