//! Documents of the Scala countem, as `mongoexport` writes them: one for each day, with the metrics as nested fields.

use std::{fmt, mem};

use countem_core::{Bucket, CollectionName, MetricName};
use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde_json::Value;

use crate::{
    Counter, RowError,
    number::{whole, whole_double},
};

/// Maximum length of a document. MongoDB takes 16 MiB, which is more as text.
const MAX_LEN: usize = 64 << 20;

/// Cuts a text into its documents: one after the other, as with `mongoexport`, or an array of them, as with `--jsonArray`.
#[derive(Debug, Default)]
pub struct Splitter {
    place: Place,
    text: Vec<u8>,
    /// Number of open braces and brackets of the document.
    depth: usize,
    is_string: bool,
    is_escaped: bool,
    /// Number of line breaks so far.
    lines: u64,
    /// The same before the document.
    begin: u64,
}

/// Position between documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// Between documents that are no array.
    Plain,
    /// After `[`.
    First,
    /// After `,`.
    Next,
    /// After a document of the array.
    After,
    /// After `]`.
    End,
}

/// The text of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    text: String,
    /// The line on which it begins.
    line: u64,
}

impl Splitter {
    /// Takes bytes up to the end of a document; returns their number, and the document if it is complete.
    ///
    /// # Errors
    /// [`RowError`]: there is something else than documents on the present [`line`](Self::line).
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<Document>), RowError> {
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' {
                self.lines += 1;
            }
            if self.depth == 0 {
                self.step(*byte)?;
                continue;
            }
            self.text.push(*byte);
            if self.text.len() > MAX_LEN {
                return Err(RowError::Document("the document is longer than 64 MiB".to_owned()));
            }
            if self.is_string {
                (self.is_string, self.is_escaped) =
                    (self.is_escaped || *byte != b'"', !self.is_escaped && *byte == b'\\');
                continue;
            }
            match byte {
                b'"' => self.is_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                self.place = if self.place == Place::Plain { Place::Plain } else { Place::After };
                let text = String::from_utf8(mem::take(&mut self.text));
                let text = text.map_err(|_| RowError::Document("the document is not UTF-8".to_owned()))?;
                return Ok((at + 1, Some(Document { text, line: self.begin + 1 })));
            }
        }
        Ok((bytes.len(), None))
    }

    /// Returns the number of the present line.
    pub fn line(&self) -> u64 {
        self.lines + 1
    }

    /// Ends the text.
    ///
    /// # Errors
    /// [`RowError`]: it ends within a document or an array.
    pub fn finish(&self) -> Result<(), RowError> {
        match (self.depth, self.place) {
            (0, Place::Start | Place::Plain | Place::End) => Ok(()),
            _ => Err(RowError::Document("the file is cut off: export it again".to_owned())),
        }
    }

    /// Takes a byte between documents.
    fn step(&mut self, byte: u8) -> Result<(), RowError> {
        self.place = match (byte, self.place) {
            (b' ' | b'\t' | b'\r' | b'\n', place) => place,
            (b'[', Place::Start) => Place::First,
            (b']', Place::First | Place::After) => Place::End,
            (b',', Place::After) => Place::Next,
            (b'{', place @ (Place::Start | Place::Plain | Place::First | Place::Next)) => {
                (self.depth, self.begin) = (1, self.lines);
                self.text.push(byte);
                if place == Place::Start { Place::Plain } else { place }
            }
            _ => {
                let byte = char::from(byte).escape_default();
                return Err(RowError::Document(format!("`{byte}` is not part of a document")));
            }
        };
        Ok(())
    }
}

impl Document {
    /// Returns the number of the line on which it begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Returns the day and its counters, by metric: nested fields are metrics with dots.
    ///
    /// # Errors
    /// Number of the line and [`RowError`]: the document has something else than whole numbers.
    pub fn read(&self, collection: &CollectionName) -> Result<(Bucket, Vec<Counter>), (u64, RowError)> {
        let mut fields = Fields::default();
        let mut json = serde_json::Deserializer::from_str(&self.text);
        let read = fields.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| {
            let line = self.line + u64::try_from(error.line()).unwrap_or_default().saturating_sub(1);
            let text = error.to_string();
            let why = text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why);
            (line, RowError::Document(why.to_owned()))
        })?;
        let refused = |error| (self.line, error);
        let Fields { day, mut found, .. } = fields;
        let day = day.ok_or_else(|| refused(RowError::Document("the document has no `_id`".to_owned())))?;
        // Another order of the fields is no other content.
        found.sort_unstable();
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(refused(RowError::Document(format!("`{}` is there twice", pair[0].0))));
        }
        let counter = |(metric, value): (String, i64)| {
            let metric = MetricName::new(&metric)?;
            Ok(Counter { collection: collection.clone(), bucket: day, metric, value })
        };
        let counters = found.into_iter().map(counter).collect::<Result<_, RowError>>();
        Ok((day, counters.map_err(refused)?))
    }
}

/// Fields of a document that were read.
#[derive(Debug, Default)]
struct Fields {
    day: Option<Bucket>,
    /// The name of the present field, with those that it lies in.
    path: String,
    depth: usize,
    found: Vec<(String, i64)>,
}

impl Fields {
    fn push<E: de::Error>(&mut self, value: Option<i64>, shown: &dyn fmt::Display) -> Result<(), E> {
        match value {
            Some(value) if self.depth > 0 => self.found.push((self.path.clone(), value)),
            _ => return Err(self.refused(shown)),
        }
        Ok(())
    }

    fn refused<E: de::Error>(&self, shown: &dyn fmt::Display) -> E {
        E::custom(format_args!("`{}` is {shown}, no exact whole number", self.path))
    }

    /// Reads the rest of `{"$numberLong": "5"}` and its like.
    fn number<'de, A: MapAccess<'de>>(&mut self, key: &str, mut map: A) -> Result<(), A::Error> {
        let value: Value = map.next_value()?;
        let number = match (key, &value) {
            ("$numberInt" | "$numberLong", Value::String(text)) => text.parse().ok(),
            ("$numberDouble", Value::String(text)) => whole(text),
            _ => None,
        };
        let is_alone = map.next_key::<String>()?.is_none();
        self.push(number.filter(|_| is_alone), &format_args!("{{{}: {value}}}", Value::from(key)))
    }
}

impl<'de> DeserializeSeed<'de> for &mut Fields {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number in `{}`", self.path)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.push(Some(value), &value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.push(value.try_into().ok(), &value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.push(whole_double(value), &value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let length = self.path.len();
        let mut is_first = true;
        while let Some(key) = map.next_key::<String>()? {
            if mem::take(&mut is_first) && self.depth > 0 && key.starts_with('$') {
                return self.number(&key, map);
            }
            if self.depth == 0 && key == "_id" {
                let id: Value = map.next_value()?;
                let day = id.as_str().and_then(day).filter(|_| self.day.is_none());
                let why =
                    || de::Error::custom(format_args!("`_id` is {id}, not one day such as \"20140312\""));
                self.day = Some(day.ok_or_else(why)?);
                continue;
            }
            if self.depth > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if key.starts_with('$') {
                return Err(self.refused(&"a field of MongoDB"));
            }
            self.depth += 1;
            map.next_value_seed(&mut *self)?;
            self.depth -= 1;
            self.path.truncate(length);
        }
        Ok(())
    }
}

/// Reads `yyyyMMdd`.
fn day(text: &str) -> Option<Bucket> {
    let is_day = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_day.then(|| format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]).parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_by(text: &[u8], size: usize) -> Result<Vec<String>, String> {
        let (mut splitter, mut counters) = (Splitter::default(), Vec::new());
        let collection = CollectionName::new("web").unwrap();
        for mut bytes in text.chunks(size) {
            while !bytes.is_empty() {
                let (used, document) =
                    splitter.push(bytes).map_err(|error| format!("{}: {error}", splitter.line()))?;
                bytes = &bytes[used..];
                let Some(document) = document else { continue };
                let read = document.read(&collection);
                let (_, read) = read.map_err(|(line, error)| format!("{line}: {error}"))?;
                counters.extend(
                    read.iter()
                        .map(|counter| format!("{} {} {}", counter.bucket, counter.metric, counter.value)),
                );
            }
        }
        splitter.finish().map_err(|error| format!("{}: {error}", splitter.line()))?;
        Ok(counters)
    }

    fn read(text: &str) -> Result<Vec<String>, String> {
        read_by(text.as_bytes(), 7)
    }

    #[test]
    fn nested_fields_are_metrics_with_dots() {
        let one = r#"{"_id":"20140312","MyMethod":{"calls":5,"errors":{"io":1}}}"#;
        let counters = ["2014-03-12 MyMethod.calls 5", "2014-03-12 MyMethod.errors.io 1"];
        assert_eq!(read(one).unwrap(), counters);
        for text in [
            format!("[{one}]\n"),
            format!("[\n{},\n{{\"_id\":\"20140313\"}}]", one.replace(",", ",\n ")),
            format!("{one}\n\r\n{{ \"_id\" : \"20140313\" }}"),
            one.replace('5', "5.0").replace("\"io\":1", "\"io\":{\"$numberInt\":\"1\"}"),
            one.replace('5', r#"{"$numberLong":"5"}"#).replace("\"io\":1", r#""io":{"$numberDouble":"1.0"}"#),
        ] {
            assert_eq!(read(&text).unwrap(), counters, "{text}");
        }
        assert_eq!(read("[]"), Ok(Vec::new()));
        let odd = r#"{"b}\"":-9007199254740993,"a":{"$numberLong":"9223372036854775807"},"_id":"20140312"}"#;
        let counters = ["2014-03-12 a 9223372036854775807", "2014-03-12 b}\" -9007199254740993"];
        assert_eq!(read(odd).unwrap(), counters);
    }

    #[test]
    fn everything_else_is_refused_by_name_and_line() {
        let ok = "{\"_id\":\"20140311\"}\n";
        for (document, why) in [
            (r#"{"_id":"20140312","a":{"b":1.5}}"#, "2: `a.b` is 1.5, no exact whole number"),
            (
                "{\"_id\":\"20140312\",\n\"a\":\"5\"}",
                "3: invalid type: string \"5\", expected a whole number in `a`",
            ),
            (r#"{"_id":"20140312","a":null}"#, "whole number in `a`"),
            (r#"{"_id":"20140312","a":[1]}"#, "whole number in `a`"),
            (r#"{"_id":"20140312","a":true}"#, "whole number in `a`"),
            (r#"{"_id":"20140312","a":9223372036854775808}"#, "`a` is 9223372036854775808"),
            (r#"{"_id":"20140312","a":9007199254740993.0}"#, "`a` is 900719925474099"),
            (r#"{"_id":"20140312","a":{"$numberLong":"x"}}"#, r#"`a` is {"$numberLong": "x"}"#),
            (r#"{"_id":"20140312","a":{"$numberLong":"5","b":1}}"#, "`a` is"),
            (r#"{"_id":"20140312","a":{"$numberDouble":"NaN"}}"#, "`a` is"),
            (r#"{"_id":"20140312","a":{"$date":"2014"}}"#, r#"`a` is {"$date": "2014"}"#),
            (r#"{"_id":"20140312","a":{"b":1,"$c":2}}"#, "`a.$c` is a field of MongoDB"),
            (r#"{"_id":"20140312","a.b":1,"a":{"b":1}}"#, "2: `a.b` is there twice"),
            (r#"{"_id":"20140312","":1}"#, "2: metric name is empty"),
            (r#"{"_id":"20140230"}"#, "`_id` is \"20140230\""),
            (r#"{"_id":{"$oid":"5"}}"#, "`_id` is"),
            (r#"{"_id":"20140312","_id":"20140312"}"#, "`_id` is"),
            (r#"{"a":1}"#, "2: the document has no `_id`"),
            (r#"{"_id":"20140312""#, "2: the file is cut off"),
            (r#"{"_id":"20140312",}"#, "2: "),
            ("5", "2: `5` is not part of a document"),
            ("[]", "2: `[`"),
        ] {
            let error = read(&format!("{ok}{document}")).unwrap_err();
            assert!(error.contains(why), "{document}: {error}");
        }
        for text in ["[", "[{\"_id\":\"20140312\"},]", "[{\"_id\":\"20140312\"}", "[]]"] {
            read(text).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn size_of_reads_does_not_matter(text in "[\\[\\]{},\":\\\\ \n1a]{0,40}", size in 1_usize..9) {
            prop_assert_eq!(read_by(text.as_bytes(), size), read_by(text.as_bytes(), 100));
        }
    }
}
