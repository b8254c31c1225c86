//! Increments in the body of a request: a JSON array, or NDJSON.

use std::{borrow::Cow, fmt};

use countem::{MetricName, Refusal, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::{Code, Problem};

/// An increment as it was sent.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item<'a> {
    #[serde(borrow)]
    pub(crate) collection: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) metric: Cow<'a, str>,
    #[serde(default = "one")]
    pub(crate) n: i64,
    #[serde(default, deserialize_with = "moment")]
    pub(crate) at: Option<Timestamp>,
    #[serde(default, borrow)]
    pub(crate) labels: Labels<'a>,
}

impl Item<'_> {
    /// Returns the text of the metric with its labels.
    ///
    /// # Errors
    /// They make no metric.
    pub(crate) fn metric_text(&self) -> Result<Cow<'_, str>, Refusal> {
        let labels: Vec<_> = self.labels.0.iter().map(|(key, value)| (&**key, &**value)).collect();
        Ok(MetricName::labelled_text(&self.metric, &labels)?)
    }
}

fn one() -> i64 {
    1
}

/// Labels, each key once.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Labels<'a>(pub(crate) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        /// Text that is borrowed where it can be.
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Labels<'de>, M::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Labels(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Reads an RFC 3339 time, or whole seconds since 1970.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<'a> {
        Seconds(i64),
        #[serde(borrow)]
        Text(Cow<'a, str>),
    }
    let time = match Written::deserialize(deserializer)? {
        Written::Seconds(seconds) => Timestamp::from_second(seconds),
        Written::Text(text) => text.parse(),
    };
    time.map(Some).map_err(de::Error::custom)
}

/// Reads a time of a parameter: RFC 3339, or whole seconds since 1970.
///
/// # Errors
/// It is neither.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<i64>().map_or_else(|_| text.parse(), Timestamp::from_second);
    time.map_err(|_| MOMENT.to_owned())
}

const MOMENT: &str = "expected a time such as 2026-11-20T12:00:00Z, or whole seconds since 1970";

/// Splits an NDJSON body into lines that are not blank, each with its number from 0.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    lines.filter(|(_, line)| !line.is_empty())
}

/// Splits a JSON array into its elements.
///
/// # Errors
/// The body is no JSON array.
pub(crate) fn elements(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => "the body is no JSON array of objects".to_owned(),
            serde_json::error::Category::Eof => format!("the JSON ends too early, at {place}"),
            _ => format!("the body is no JSON, at {place}"),
        };
        Problem::new(Code::BadBody, what)
    })
}

/// Reads one increment.
///
/// # Errors
/// The reason, for its sender.
pub(crate) fn parse(text: &[u8]) -> Result<Item<'_>, String> {
    serde_json::from_slice(text).map_err(|error| explain(text, &error))
}

/// Finds the reason why a text is no increment.
fn explain(text: &[u8], error: &serde_json::Error) -> String {
    use serde_json::Value;

    let Ok(value) = serde_json::from_slice::<Value>(text) else {
        return match std::str::from_utf8(text) {
            Ok(_) => format!("it is no JSON, at column {}", error.column()),
            Err(_) => "it is no UTF-8".to_owned(),
        };
    };
    let Value::Object(fields) = value else { return "an increment is a JSON object".to_owned() };
    for (name, value) in &fields {
        let problem = match (name.as_str(), value) {
            ("collection" | "metric", Value::String(_)) => None,
            ("collection" | "metric", _) => Some(format!("`{name}` has to be a text")),
            ("n", Value::Number(number)) if number.is_i64() => None,
            ("n", _) => Some(format!("`n` has to be a whole number from {} to {}", i64::MIN, i64::MAX)),
            ("at", Value::Number(number)) if number.is_i64() => number
                .as_i64()
                .and_then(|at| Timestamp::from_second(at).err())
                .map(|_| format!("`at`: {MOMENT}")),
            ("at", Value::String(at)) => at.parse::<Timestamp>().err().map(|_| format!("`at`: {MOMENT}")),
            ("at", _) => Some(format!("`at`: {MOMENT}")),
            ("labels", Value::Object(labels)) if labels.values().all(Value::is_string) => None,
            ("labels", _) => Some("`labels` has to be an object of texts".to_owned()),
            _ => Some(format!(
                "`{}` is unknown; there are collection, metric, n, at and labels",
                super::params::shown(name)
            )),
        };
        if let Some(problem) = problem {
            return problem;
        }
    }
    for name in ["collection", "metric"] {
        if !fields.contains_key(name) {
            return format!("`{name}` is missing");
        }
    }
    "a field is there twice".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_are_read() {
        let item = parse(br#"{"collection":"web","metric":"a\"b","n":-3,"at":"2026-11-20T12:00:00+01:00","labels":{"k":"v"}}"#);
        let item = item.unwrap();
        assert_eq!((&*item.collection, &*item.metric, item.n), ("web", "a\"b", -3));
        assert_eq!(item.at.unwrap().to_string(), "2026-11-20T11:00:00Z");
        assert_eq!(item.labels.0, [("k".into(), "v".into())]);
        assert_eq!(parse(br#"{"collection":"web","metric":"a"}"#).unwrap().n, 1);
    }

    #[test]
    fn only_whole_numbers_of_64_bits_are_amounts() {
        let n = |n: &str| {
            parse(format!(r#"{{"collection":"w","metric":"m","n":{n}}}"#).as_bytes()).map(|item| item.n)
        };
        assert_eq!(n("9007199254740993"), Ok(9_007_199_254_740_993));
        assert_eq!(n("9223372036854775807"), Ok(i64::MAX));
        for wrong in ["9223372036854775808", "1.0", "1e3", "\"5\"", "-0", "null", "true"] {
            assert!(n(wrong).unwrap_err().starts_with("`n` has to be a whole number"), "{wrong}");
        }
    }

    #[test]
    fn reasons_name_the_field() {
        let reason = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(reason(r#"{"metric":"m"}"#), "`collection` is missing");
        assert_eq!(
            reason(r#"{"collection":"w","metric":"m","x":1}"#),
            "`x` is unknown; there are collection, metric, n, at and labels"
        );
        assert_eq!(reason(r#"{"collection":"w","metric":"m","n":1,"n":2}"#), "a field is there twice");
        assert_eq!(reason(r#"{"collection":"w","metric":5}"#), "`metric` has to be a text");
        assert!(
            reason(r#"{"collection":"w","metric":"m","at":"noon"}"#).starts_with("`at`: expected a time")
        );
        assert_eq!(reason("[1]"), "an increment is a JSON object");
        assert_eq!(reason("{"), "it is no JSON, at column 1");
        assert!(elements(b"{}").unwrap_err().detail().contains("no JSON array"));
        assert_eq!(elements(b"[1, {}]").unwrap().len(), 2);
    }
}
