#![doc = include_str!("../README.md")]

mod rows;

use std::{fs, str};

use countem_config::{Config, Sources};
use countem_core::{
    Batch, Bucket, CollectionName, Labelled, MetricName, Period, Writer,
    jiff::{Timestamp, tz::TimeZone},
};
use countem_lines::{Format, Kind, Span, Template, TimeFormat, Times, Wanted};
use countem_query::TimeRange;

pub use rows::{document, row};

/// A law that holds for all inputs. A target panics where it does not.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: [(&str, Target); 10] = [
    ("batch", batch),
    ("bucket_id", bucket_id),
    ("name", name),
    ("labels", labels),
    ("config", config),
    ("line", line),
    ("time", time),
    ("range", range),
    ("row", row),
    ("document", document),
];

/// Decodes a frozen batch. What is accepted survives another round trip.
///
/// # Panics
/// When it does not.
pub fn batch(data: &[u8]) {
    let Ok(batch) = Batch::decode(data) else { return };
    let encoded = batch.encode();
    let again = Batch::decode(&encoded).expect("an encoded batch is valid");
    assert_eq!(again.id(), batch.id());
    assert_eq!(again.mark(), batch.mark());
    assert!(again.deltas().eq(batch.deltas()), "deltas differ after a round trip");
    assert_eq!(again.encode(), encoded);
}

/// Parses a bucket id. Every bucket has one id only.
///
/// # Panics
/// When another text means the same bucket.
pub fn bucket_id(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(bucket) = text.parse::<Bucket>() {
        assert_eq!(bucket.to_string(), text);
    }
}

/// Parses collections, metrics and writers. What is accepted is kept unchanged.
///
/// # Panics
/// When it is not.
pub fn name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(name) = CollectionName::new(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=100).contains(&text.len()) && text.is_ascii(), "accepted {text:?}");
    }
    if let Ok(name) = MetricName::new(text) {
        assert_eq!(name.as_str(), text);
        let is_plain = !text.chars().any(char::is_control);
        assert!((1..=512).contains(&text.len()) && is_plain, "accepted {text:?}");
    }
    if let Ok(writer) = text.parse::<Writer>() {
        assert_eq!(writer.as_str(), text);
        assert_eq!(Writer::new(writer.node(), writer.epoch()), writer);
    }
}

/// Splits a metric into its name and labels. Labels that are found make a metric of the same labels.
///
/// # Panics
/// When they do not.
pub fn labels(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let split = Labelled::split(text);
    if split.labels.is_empty() {
        assert_eq!(split.name, text);
        return;
    }
    let labels: Vec<_> = split.labels.iter().map(|(key, value)| (*key, &**value)).collect();
    let again = MetricName::labelled_text(split.name, &labels).expect("labels that are found are labels");
    assert_eq!(Labelled::split(&again), split);
    for (key, value) in labels {
        assert_eq!(split.get(key), Some(value));
    }
}

/// Parses a range of time. A range that is accepted reads back, and its buckets lie within it.
///
/// # Panics
/// When it does not, or they do not.
pub fn range(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(range) = text.parse::<TimeRange>() else { return };
    assert_eq!(range.to_string().parse(), Ok(range), "{text:?} is shown as {range}");
    let now = Timestamp::from_second(1_795_132_800).expect("the time is valid");
    for zone in ["UTC", "Australia/Lord_Howe", "Pacific/Apia"] {
        let zone = TimeZone::get(zone).expect("the zone is known");
        let Ok(moments) = range.resolve(now, &zone) else { continue };
        assert!(moments.start < moments.end, "{range} is {moments:?}");
        for period in Period::ALL {
            let Ok(buckets) = range.buckets(period, now, &zone) else { continue };
            assert!(buckets.first() <= buckets.last());
            if period.is_civil() && period != Period::All {
                assert!(buckets.first().start_instant(&zone) >= moments.start, "{range} in {zone:?}");
            }
        }
    }
}

/// Loads a configuration file. A configuration that is accepted loads again from its own rendering, with the same values,
/// unless the rendering hides a password: then it is refused by design.
///
/// # Panics
/// When it does not.
pub fn config(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("countem.toml");
    let load = |text: &[u8]| {
        fs::write(&path, text).expect("a temporary file can be written");
        Config::load(&Sources::default().file(&path))
    };
    let Ok(config) = load(data) else { return };
    let rendered = config.to_toml();
    if rendered.contains("****") {
        return;
    }
    let again = load(rendered.as_bytes()).unwrap_or_else(|error| {
        panic!(
            "{error}
{rendered}"
        )
    });
    // The rendering names the origin of each value, and every value of the second one is from the file, where paths begin in its
    // folder.
    let (origin, beside) = (format!(" # {}", path.display()), format!("{}/", folder.path().display()));
    let values = |rendered: &str| rendered.replace(&origin, "").replace(&beside, "");
    assert_eq!(values(&again.to_toml()), values(&rendered));
}

/// Reads a line in every format and makes a name of its fields. What is found lies in the text, and every name is a valid one.
///
/// # Panics
/// When it does not.
pub fn line(data: &[u8]) {
    let (line, rest) = data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    for (kind, ..) in Kind::ALL {
        let mut wanted = Wanted::default();
        let fields = match kind {
            Kind::Combined => "c:{host} {path} {agent|lower}",
            Kind::Common => "c:{vhost} {user} {bytes}",
            Kind::Syslog => "c:{severity} {app} {message}",
            Kind::Csv | Kind::Tsv => "c:{1} {3}",
            _ => "c:{a} {/b/0}",
        };
        let template = Template::parse(fields, &mut wanted).expect("the template is valid");
        let mut format = Format::new(kind, false, &wanted).expect("the format has these fields");
        let absent = format.absent();
        // The second line meets the state that the first one left.
        for line in [line, rest] {
            let mut spans = vec![Span::MISSING; wanted.names().len()];
            let Ok(text) = format.read(line, &mut spans) else { continue };
            assert!(text.len() <= 4 * line.len() + 64, "{} bytes of {}", text.len(), line.len());
            let mut name = Vec::new();
            if template.render(text, &spans, absent, &mut name).is_ok() {
                let (name, _) = MetricName::fit(&mut name);
                assert_eq!(MetricName::validate(name), Ok(()));
            }
        }
    }
    Kind::detect(data);
}

/// Reads a time in every notation. A text is read alike whatever was read before it.
///
/// # Panics
/// When it is not.
pub fn time(data: &[u8]) {
    for format in ["auto", "rfc3339", "unix", "unix-nanos", "clf", "%b %d %H:%M:%S"] {
        let format = TimeFormat::parse(format).expect("the format is valid");
        let times = || Times::new(format.clone(), TimeZone::UTC, Timestamp::UNIX_EPOCH);
        let mut used = times();
        used.second(b"2015-05-17T10:05:03Z");
        let second = used.second(data);
        assert_eq!(second, times().second(data));
        assert!(second.is_none_or(|second| Timestamp::from_second(second).is_ok()));
    }
}
