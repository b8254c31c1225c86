#![doc = include_str!("../README.md")]

use std::{fs, str};

use countem_config::{Config, Sources};
use countem_core::{Batch, Bucket, CollectionName, MetricName, Writer};

/// A law that holds for all inputs. A target panics where it does not.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: [(&str, Target); 4] =
    [("batch", batch), ("bucket_id", bucket_id), ("name", name), ("config", config)];

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
    // The rendering names the origin of each value, and every value of the second one is from the file.
    let origin = format!(" # {}", path.display());
    assert_eq!(again.to_toml().replace(&origin, ""), rendered.replace(&origin, ""));
}
