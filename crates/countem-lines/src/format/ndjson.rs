//! One JSON object per line.

mod repair;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{DefinitionError, Reject, Span, Wanted};

/// Finds values by key or JSON pointer (RFC 6901) without building the object.
#[derive(Debug, Clone)]
pub(super) struct Ndjson {
    root: Node,
    /// The values of the current line, one after the other: a number as it is written, a text unescaped.
    text: Vec<u8>,
}

/// A value of the object that is wanted, or that holds wanted values.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Indices of the wanted fields that have this value.
    fields: Vec<usize>,
    children: Vec<(String, Node)>,
}

impl Ndjson {
    /// Prepares to find `wanted`: `key` of the outermost object, or `/a/b` for a pointer.
    ///
    /// # Errors
    /// A [`DefinitionError`] when one field is wanted both as a value and as an object.
    pub(super) fn new(wanted: &Wanted) -> Result<Self, DefinitionError> {
        let mut root = Node::default();
        for (field, name) in wanted.names().iter().enumerate() {
            let mut node = &mut root;
            match name.strip_prefix('/') {
                None => node = node.child(name.clone()),
                Some(pointer) => {
                    for part in pointer.split('/') {
                        node = node.child(part.replace("~1", "/").replace("~0", "~"));
                    }
                }
            }
            node.fields.push(field);
        }
        match root.conflict() {
            None => Ok(Self { root, text: Vec::new() }),
            Some(field) => {
                let name = &wanted.names()[field];
                Err(DefinitionError::new(format!("`{{{name}}}` is used as a value and as an object")))
            }
        }
    }

    /// Finds the wanted values and returns the bytes in which `spans` lie.
    ///
    /// Numbers that JSON does not have, escapes that only nginx writes, halves of surrogate pairs and unescaped control characters
    /// are read as they were meant.
    ///
    /// # Errors
    /// The line is no JSON object, or a wanted value is itself an object or an array, or two values.
    pub(super) fn read(&mut self, line: &[u8], spans: &mut [Span]) -> Result<&[u8], Reject> {
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(Reject::Shape(NOT_JSON));
        }
        let read = match self.parse(line, spans) {
            Err(Reject::Shape(_)) => match repair::repaired(line) {
                Some(repaired) => match self.parse(&repaired, spans) {
                    // The position of the second object would be that in the repaired line.
                    Err(Reject::Joined(_)) => Err(Reject::Shape(NOT_JSON)),
                    read => read,
                },
                None => Err(Reject::Shape(NOT_JSON)),
            },
            read => read,
        };
        read.map(|()| &self.text[..])
    }

    fn parse(&mut self, line: &[u8], spans: &mut [Span]) -> Result<(), Reject> {
        spans.fill(Span::MISSING);
        self.text.clear();
        let mut input = serde_json::Deserializer::from_slice(line);
        let mut found = Found { text: &mut self.text, spans, refusal: None };
        let read = Seed { node: &self.root, found: &mut found }.deserialize(&mut input);
        let refusal = found.refusal;
        match read {
            Ok(()) => {}
            Err(error) if error.is_eof() => return Err(Reject::Cut),
            Err(_) => return Err(Reject::Shape(NOT_JSON)),
        }
        if input.end().is_err() {
            let first = object_len(line).ok_or(Reject::Shape(NOT_JSON))?;
            return Err(Reject::Joined(first));
        }
        refusal.map_or(Ok(()), |why| Err(Reject::Value(why)))
    }
}

/// Returns the length of the object that `line` begins with, if another one follows it.
fn object_len(line: &[u8]) -> Option<usize> {
    let mut objects = serde_json::Deserializer::from_slice(line).into_iter::<IgnoredAny>();
    objects.next()?.ok()?;
    let end = objects.byte_offset();
    line[end..].trim_ascii_start().starts_with(b"{").then_some(end)
}

const NOT_JSON: &str = "not a JSON object";

impl Node {
    fn child(&mut self, key: String) -> &mut Self {
        let at = self.children.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.children.push((key, Self::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }

    /// Returns a field that is wanted as a value and also holds wanted values.
    fn conflict(&self) -> Option<usize> {
        let own = self.fields.first().filter(|_| !self.children.is_empty()).copied();
        own.or_else(|| self.children.iter().find_map(|(_, child)| child.conflict()))
    }

    fn get(&self, key: &str) -> Option<&Self> {
        self.children.iter().find(|(known, _)| known == key).map(|(_, child)| child)
    }
}

struct Found<'a> {
    text: &'a mut Vec<u8>,
    spans: &'a mut [Span],
    /// Reason for which a wanted value cannot be read.
    refusal: Option<&'static str>,
}

impl Found<'_> {
    /// Keeps a value in the form in which it becomes part of a name.
    fn keep(&mut self, raw: &str, fields: &[usize]) -> serde_json::Result<()> {
        let start = self.text.len();
        match raw.as_bytes().first() {
            Some(b'"') if !raw.contains('\\') => {
                self.text.extend_from_slice(&raw.as_bytes()[1..raw.len() - 1])
            }
            Some(b'"') => self.text.extend_from_slice(serde_json::from_str::<String>(raw)?.as_bytes()),
            Some(b'{' | b'[') => self.refusal = Some("a wanted value is an object or an array"),
            _ => self.text.extend_from_slice(raw.as_bytes()),
        }
        let span = Span::new(start, self.text.len());
        for field in fields {
            let before = std::mem::replace(&mut self.spans[*field], span);
            // The same key twice is clear only if it has the same value.
            if before != Span::MISSING && before.of(self.text) != span.of(self.text) {
                self.refusal = Some("a wanted key is there twice, with different values");
            }
        }
        Ok(())
    }
}

/// Walks one value of the input.
struct Seed<'a, 'f> {
    node: &'a Node,
    found: &'a mut Found<'f>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        if self.node.children.is_empty() && !self.node.fields.is_empty() {
            let raw: &RawValue = serde::Deserialize::deserialize(input)?;
            return self.found.keep(raw.get(), &self.node.fields).map_err(serde::de::Error::custom);
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut objects: Vec<&Node> = Vec::new();
        while let Some(node) = map.next_key_seed(Key(self.node))? {
            if let Some(node) = node.filter(|node| !node.children.is_empty()) {
                if objects.iter().any(|known| std::ptr::eq(*known, node)) {
                    self.found.refusal = Some("an object with a wanted key is there twice");
                }
                objects.push(node);
            }
            match node {
                Some(node) => map.next_value_seed(Seed { node, found: &mut *self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        for at in 0_usize.. {
            let more = match self.node.get(&at.to_string()) {
                Some(node) => seq.next_element_seed(Seed { node, found: &mut *self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // An object was expected and a plain value found: it holds no wanted value.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a key with the wanted ones without copying it.
struct Key<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str], line: &str) -> Result<Vec<Option<String>>, Reject> {
        let wanted = names.iter().copied().collect();
        let mut spans = vec![Span::MISSING; names.len()];
        let mut ndjson = Ndjson::new(&wanted).unwrap();
        let text = ndjson.read(line.as_bytes(), &mut spans)?;
        let text = |span: &Span| span.of(text).map(|text| String::from_utf8(text.to_vec()).unwrap());
        Ok(spans.iter().map(text).collect())
    }

    #[test]
    fn keys_and_pointers_find_their_values() {
        let line = r#"{"a":"x","b":{"c":[1,{"d":"y"}],"e/f":2.50},"/g":true,"n":null,"a~":-12345678901234567890123}"#;
        let names = ["a", "/b/c/1/d", "/b/c/0", "/b/e~1f", "/~1g", "n", "missing", "/b/missing", "/a~0"];
        let found = read(&names, line).unwrap();
        let found: Vec<_> = found.iter().map(|text| text.as_deref().unwrap_or("MISSING")).collect();
        let big = "-12345678901234567890123";
        assert_eq!(found, ["x", "y", "1", "2.50", "true", "null", "MISSING", "MISSING", big]);
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        let found = read(&["kä", "t"], r#"{"k\u00e4":"\ud83e\udd80 \"q\"","t":""}"#).unwrap();
        assert_eq!(found, [Some("🦀 \"q\"".to_owned()), Some(String::new())]);
    }

    #[test]
    fn line_without_object_or_plain_value_is_refused() {
        for bad in ["", "1", "[]", "{", r#"{"a":1}x"#, r#"{"a":}"#, r#"{"a":{}}"#, r#"{"a":[1]}"#, "{'a':1}"]
        {
            assert!(read(&["a"], bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(read(&["/a/b"], r#"{"a":"text"}"#).unwrap(), [None]);
    }

    #[test]
    fn meaning_beyond_the_standard_is_read() {
        for (line, expected) in [
            (r#"{"k":"x","l":NaN,"m":-Infinity}"#, "x"),
            (r#"{"k":NaN}"#, "NaN"),
            (r#"{"k":-Infinity}"#, "-Infinity"),
            (r#"{"k":"a\x22b"}"#, "a\"b"),
            (r#"{"k":"\xC3\xA4\xe9"}"#, r"ä\xe9"),
            (r#"{"k":"a\ud83d"}"#, "a\u{fffd}"),
            (r#"{"k":"\ude00\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            ("{\"k\":\"a\tb\"}", "a\tb"),
            (r#"{"k":"x","k":"x"}"#, "x"),
        ] {
            assert_eq!(read(&["k"], line).unwrap(), [Some(expected.to_owned())], "{line}");
        }
        let wanted: Wanted = ["k"].into_iter().collect();
        let mut ndjson = Ndjson::new(&wanted).unwrap();
        let found = ndjson.read(b"{\"k\":\"caf\xe9\"}", &mut [Span::MISSING]).unwrap();
        assert_eq!(found, br"caf\xe9");
    }

    #[test]
    fn unclear_objects_are_refused_with_the_reason() {
        assert_eq!(
            read(&["k"], r#"{"k":"x","k":"y"}"#),
            Err(Reject::Value("a wanted key is there twice, with different values"))
        );
        for twice in ["null", r#"{"b":1}"#, r#"{"c":1}"#] {
            let line = format!(r#"{{"a":{{"b":1}},"a":{twice}}}"#);
            assert!(matches!(read(&["/a/b"], &line), Err(Reject::Value(_))), "{line}");
        }
        assert_eq!(read(&["k"], r#"{"k":"x"}{"k":"y"}"#), Err(Reject::Joined(9)));
        assert_eq!(read(&["k"], r#"{"k":"x"} {"k":NaN}"#), Err(Reject::Joined(9)));
        assert_eq!(read(&["k"], r#"{"k":"x"#), Err(Reject::Cut));
        for bad in [r#"{"k":"\q"}"#, r#"{"k":NaNcy}"#, r#"{"k":"\u12"}"#, r#"{"k":"x"}]"#] {
            assert_eq!(read(&["k"], bad), Err(Reject::Shape(NOT_JSON)), "{bad}");
        }
    }

    #[test]
    fn field_is_either_a_value_or_an_object() {
        assert!(Ndjson::new(&["a", "/a/b"].into_iter().collect()).is_err());
    }
}
