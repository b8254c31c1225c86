//! The plaintext protocol of Graphite: `metric.path value timestamp`, with tags as `metric.path;tag=value`.

use countem_core::{CollectionName, MetricName, jiff::Timestamp};

use crate::{Counter, RowError, number::whole};

/// Reads a line as a counter of the second of its timestamp. Tags are labels.
///
/// # Errors
/// [`RowError`]: the line is no counter.
pub fn read(line: &str, collection: &CollectionName) -> Result<Counter, RowError> {
    let parts: Vec<_> = line.split_ascii_whitespace().collect();
    let [path, value, timestamp] = parts[..] else { return Err(RowError::Graphite(parts.len())) };
    let moment = whole(timestamp).filter(|second| *second >= 0);
    let moment = moment.and_then(|second| Timestamp::from_second(second).ok());
    let moment = moment.ok_or_else(|| RowError::Timestamp(timestamp.to_owned()))?;
    let mut tags = path.split(';');
    let name = tags.next().unwrap_or_default();
    let tag = |tag: &'_ str| match tag.split_once('=') {
        Some((key, value)) if !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(RowError::Tag(tag.to_owned())),
    };
    MetricName::validate(name)?;
    let metric = MetricName::labelled(name, tags.map(tag).collect::<Result<Vec<_>, _>>()?)?;
    let value = whole(value).ok_or_else(|| RowError::Value(value.to_owned()))?;
    Counter::at(collection, moment, metric, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<String, String> {
        let read = super::read(line, &CollectionName::new("web").unwrap());
        let counter = read.map_err(|error| error.to_string())?;
        Ok(format!("{}|{}|{}|{}", counter.collection, counter.bucket, counter.metric, counter.value))
    }

    #[test]
    fn lines_are_counters_of_a_second() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(read("a.b 5 1431857103"), ok("web|2015-05-17T10:05:03|a.b|5"));
        assert_eq!(read("a.b\t-5.0  1431857103.0 "), ok("web|2015-05-17T10:05:03|a.b|-5"));
        let labels = r#"web|2015-05-17T10:05:03|disk.used{dc="1",rack="a=b"}|5"#;
        assert_eq!(read("disk.used;rack=a=b;dc=1 5 1431857103"), ok(labels));
    }

    #[test]
    fn unclear_lines_are_refused() {
        for (line, why) in [
            ("a 5", "2 words"),
            ("a b 5 1431857103", "4 words"),
            ("a 5 -1", "timestamp `-1`"),
            ("a 5 now", "timestamp `now`"),
            ("a 5 1431857103.5", "timestamp `1431857103.5`"),
            ("a 5 1431857103000", "timestamp `1431857103000`"),
            ("a 1.5 1431857103", "value `1.5` is no whole number"),
            ("a nan 1431857103", "value `nan`"),
            ("a;b 1 1431857103", "tag `b`"),
            ("a;b= 1 1431857103", "tag `b=`"),
            ("a;=b 1 1431857103", "no key of a label"),
            ("a;b=1;b=2 1 1431857103", "twice"),
            (";b=1 1 1431857103", "metric name is empty"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
