//! OpenMetrics, with the beginning of each bucket as the timestamp.

use std::fmt::Write as _;

use countem_core::{Labelled, MetricName, Period, jiff::tz::TimeZone};

use crate::Record;

/// The first lines: all counters are samples of one gauge, since a bucket's value does not grow on from that of the bucket before.
pub const HEADER: &str =
    "# TYPE countem gauge\n# HELP countem Count of a bucket; the timestamp is its beginning.\n";
/// The last line.
pub const END: &str = "# EOF\n";

/// Labels of every sample.
const OWN: [&str; 3] = ["collection", "period", "metric"];

/// Appends a record that has a value as a sample. Days and coarser buckets begin in `zone`; the bucket `all` has no timestamp.
///
/// Labels of the metric are labels of the sample where Prometheus allows their keys and tells them apart from none; else the label
/// `metric` has them as text.
pub fn write(out: &mut String, record: &Record<'_>, zone: &TimeZone) {
    let Ok(value) = record.value else { return };
    let period = record.bucket.period();
    write!(out, "countem{{collection=\"{}\",period=\"{period}\",metric=\"", record.collection).ok();
    match split(record.metric) {
        Some(Labelled { name, labels }) => {
            push(out, name);
            for (key, value) in labels {
                write!(out, "\",{key}=\"").ok();
                push(out, &value);
            }
        }
        None => push(out, record.metric),
    }
    write!(out, "\"}} {value}").ok();
    if period != Period::All {
        write!(out, " {}", record.bucket.start_instant(zone).as_second()).ok();
    }
    out.push('\n');
}

/// Splits a metric whose labels can be those of a sample, without two metrics becoming one.
fn split(metric: &str) -> Option<Labelled<'_>> {
    let split = Labelled::split(metric);
    let is_key = |key: &str| {
        let mut chars = key.chars();
        chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
            && !OWN.contains(&key)
            // Those of Prometheus itself.
            && !key.starts_with("__")
    };
    let is_clear = !split.labels.is_empty()
        && split.labels.iter().all(|(key, value)| is_key(key) && !value.is_empty())
        // Not another text with the same labels in another order.
        && MetricName::labelled_text(split.name, &texts(&split)).is_ok_and(|text| text == metric);
    is_clear.then_some(split)
}

fn texts<'a>(split: &'a Labelled<'_>) -> Vec<(&'a str, &'a str)> {
    split.labels.iter().map(|(key, value)| (*key, &**value)).collect()
}

fn push(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str(r"\n"),
            char => out.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_where_they_are_clear() {
        let line = |metric: &str, bucket: &str| {
            let record = Record { collection: "web", bucket: bucket.parse().unwrap(), metric, value: Ok(-5) };
            let mut out = String::new();
            write(&mut out, &record, &TimeZone::get("Europe/Berlin").unwrap());
            out
        };
        let day = "2015-05-17";
        for (metric, labels) in [
            ("GET 200", r#"metric="GET 200""#),
            (r#"m{a="1",b="say \"hi\""}"#, r#"metric="m",a="1",b="say \"hi\"""#),
            (r#"m{b="2",a="1"}"#, r#"metric="m{b=\"2\",a=\"1\"}""#),
            (r#"m{a=""}"#, r#"metric="m{a=\"\"}""#),
            (r#"m{http.method="GET"}"#, r#"metric="m{http.method=\"GET\"}""#),
            (r#"m{metric="x"}"#, r#"metric="m{metric=\"x\"}""#),
            (r#"m{__name__="x"}"#, r#"metric="m{__name__=\"x\"}""#),
        ] {
            let expected = format!("countem{{collection=\"web\",period=\"day\",{labels}}} -5 1431813600\n");
            assert_eq!(line(metric, day), expected);
        }
        assert!(line("m", "2015-05-17T10").ends_with("} -5 1431856800\n"), "hours are those of UTC");
        assert!(line("m", "all").ends_with("} -5\n"));
    }
}
