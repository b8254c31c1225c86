//! Names of counters, made from the fields of a line: `collection:{template}`.

use std::fmt::Write as _;

use countem_core::{CollectionName, Labelled, MetricName};

use crate::{DefinitionError, Span, Wanted, function::Function};

/// A collection and a pattern for the name of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    collection: CollectionName,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Index of a wanted field, and the functions that are applied to its value one after the other.
    Field(usize, Vec<Function>, Place),
}

/// Place of a field in the name, which decides about what is escaped in its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a name without labels.
    Name,
    /// In front of labels, where a brace would begin others.
    BeforeLabels,
    /// Between the quotes of a label.
    LabelValue,
}

impl Template {
    /// Reads `collection:{template}` and adds the fields it names to `wanted`.
    ///
    /// `{{` and `}}` stand for single braces. Functions may follow a field, as in `{path|path_prefix(2)|lower}`. A template of a metric
    /// with labels, as `hits{{plan="free",agent="{agent}"}}`, makes [canonical](MetricName::labelled) names: sorted by key, with escaped
    /// values.
    ///
    /// # Errors
    /// A [`DefinitionError`] with the reason.
    pub fn parse(text: &str, wanted: &mut Wanted) -> Result<Self, DefinitionError> {
        let refuse = |why: String| DefinitionError::new(format!("cannot understand `--count {text}`: {why}"));
        let (collection, metric) = text.split_once(':').ok_or_else(|| {
            refuse("expected a collection, a colon and a template, as in `web:{status}`".into())
        })?;
        let collection = CollectionName::new(collection).map_err(|error| refuse(error.to_string()))?;
        let parts = with_labels(parse_parts(metric, wanted).map_err(refuse)?);
        if let [Part::Literal(only)] = &parts[..] {
            MetricName::validate(only).map_err(|error| refuse(error.to_string()))?;
        }
        Ok(Self { collection, parts })
    }

    /// Returns the collection.
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// Makes the name of the metric from the fields that `spans` find in `text`. A missing field reads `absent`, an empty one `-`.
    ///
    /// The name may break the rules of metric names; [`MetricName::fit`] then gives the nearest one.
    ///
    /// # Errors
    /// Index of a field that is missing, and for which nothing stands.
    #[inline]
    pub fn render(
        &self,
        text: &[u8],
        spans: &[Span],
        absent: Option<&'static str>,
        out: &mut Vec<u8>,
    ) -> Result<(), usize> {
        out.clear();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
                Part::Field(field, functions, place) => {
                    let value = spans[*field].of(text).or(absent.map(str::as_bytes)).ok_or(*field)?;
                    let value = if value.is_empty() { b"-" } else { value };
                    let start = out.len();
                    match &functions[..] {
                        [] => out.extend_from_slice(value),
                        [only] => only.apply(value, out),
                        several => apply_all(several, value, out),
                    }
                    if *place != Place::Name {
                        escape(out, start, *place);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cold]
fn apply_all(functions: &[Function], value: &[u8], out: &mut Vec<u8>) {
    let result = functions.iter().fold(value.to_vec(), |value, function| {
        let mut result = Vec::new();
        function.apply(&value, &mut result);
        result
    });
    out.extend_from_slice(&result);
}

/// Escapes the value that begins at `start`.
#[cold]
fn escape(out: &mut Vec<u8>, start: usize, place: Place) {
    let mut value = String::new();
    for chunk in out[start..].utf8_chunks() {
        value.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string never fails.
            write!(value, "\\x{byte:02x}").ok();
        }
    }
    let escaped = match place {
        Place::LabelValue => Labelled::escaped(&value),
        Place::Name | Place::BeforeLabels => value.replace('{', r"\x7b").replace('}', r"\x7d").into(),
    };
    out.truncate(start);
    out.extend_from_slice(escaped.as_bytes());
}

/// Stands for the first field in the text of a template; those behind it in the code follow.
const FIRST_FIELD: u32 = 0x10_0000;

/// Puts the labels of a template in order. A template with something else in braces stays as it is.
fn with_labels(parts: Vec<Part>) -> Vec<Part> {
    let (mut text, mut fields) = (String::new(), Vec::new());
    for part in &parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Field(..) => {
                text.extend(char::from_u32(FIRST_FIELD + u32::try_from(fields.len()).unwrap_or(u32::MAX)));
                fields.push(part);
            }
        }
    }
    let labelled = Labelled::split(&text);
    if labelled.labels.is_empty() || labelled.labels.iter().any(|(key, _)| key.contains(is_field)) {
        return parts;
    }
    let mut sorted = Sorted { fields: &fields, parts: Vec::new(), literal: String::new() };
    sorted.push(labelled.name, Place::BeforeLabels);
    for (at, (key, value)) in labelled.labels.iter().enumerate() {
        sorted.literal.push(if at == 0 { '{' } else { ',' });
        sorted.literal.push_str(key);
        sorted.literal.push_str("=\"");
        sorted.push(value, Place::LabelValue);
        sorted.literal.push('"');
    }
    sorted.literal.push('}');
    sorted.parts.push(Part::Literal(sorted.literal));
    sorted.parts
}

fn is_field(char: char) -> bool {
    u32::from(char) >= FIRST_FIELD
}

/// The parts of a template with labels, in their order.
struct Sorted<'a> {
    fields: &'a [&'a Part],
    parts: Vec<Part>,
    /// Text behind the last part.
    literal: String,
}

impl Sorted<'_> {
    /// Adds `text`, in which characters stand for fields.
    fn push(&mut self, text: &str, place: Place) {
        for char in text.chars() {
            let at = u32::from(char).wrapping_sub(FIRST_FIELD) as usize;
            match self.fields.get(at) {
                Some(Part::Field(field, functions, _)) if is_field(char) => {
                    if !self.literal.is_empty() {
                        self.parts.push(Part::Literal(std::mem::take(&mut self.literal)));
                    }
                    self.parts.push(Part::Field(*field, functions.clone(), place));
                }
                _ if place == Place::LabelValue => {
                    self.literal.push_str(&Labelled::escaped(char.encode_utf8(&mut [0; 4])));
                }
                _ => self.literal.push(char),
            }
        }
    }
}

fn parse_parts(template: &str, wanted: &mut Wanted) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
        } else if brace == "}" {
            return Err("a `}` without its `{`; write `}}` for the character".to_owned());
        } else {
            let (name, after) =
                rest.split_once('}').ok_or("a `{` without its `}`; write `{{` for the character")?;
            let mut names = name.split('|').map(str::trim);
            let field = names.next().filter(|field| !field.is_empty() && !name.contains('{'));
            let field = field.ok_or_else(|| format!("`{{{name}}}` names no field"))?;
            let functions =
                names.map(Function::parse).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(wanted.index_of(field), functions, Place::Name));
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Format, Kind};

    fn render(template: &str, line: &str) -> Result<String, usize> {
        let mut wanted = Wanted::default();
        let template = Template::parse(template, &mut wanted).unwrap();
        let mut format = Format::new(Kind::Tsv, false, &wanted).unwrap();
        let mut spans = vec![Span::MISSING; wanted.names().len()];
        let mut out = Vec::new();
        let text = format.read(line.as_bytes(), &mut spans).unwrap();
        template.render(text, &spans, None, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn fields_and_literals_make_the_name() {
        assert_eq!(render("web:{2} {1}", "a\tb").unwrap(), "b a");
        assert_eq!(render("web:{1}{1}!", "a").unwrap(), "aa!");
        assert_eq!(render("web:total", "a").unwrap(), "total");
        assert_eq!(render("web:{{{1}}} }}{{", "a").unwrap(), "{a} }{");
        assert_eq!(render("web:a:b {1}", "x").unwrap(), "a:b x");
        assert_eq!(render("web:{1}|{2}", "a\t").unwrap(), "a|-");
        assert_eq!(render("web:{1|path_prefix(1)|lower} x", "/A/b").unwrap(), "/a x");
        assert_eq!(render("web:{3}", "a"), Err(0));
    }

    #[test]
    fn values_of_labels_are_escaped() {
        let one = |value: &str| render("web:h{{plan=\"free\",agent=\"{1}\"}}", value).unwrap();
        for value in [r"C:\new", r#"b""#, r#"x",plan="pro"#, "}", "{", ",", "", "\u{1f600}"] {
            let name = one(value);
            let labelled = Labelled::split(&name);
            let read = if value.is_empty() { "-" } else { value };
            assert_eq!((labelled.name, labelled.get("agent")), ("h", Some(read)), "{name}");
            assert_eq!(
                MetricName::labelled("h", [("plan", "free"), ("agent", read)]).unwrap().as_str(),
                name
            );
        }
        let name = render(r#"web:{1}{{b="{2}-{1}",a="x\"{2}"}}"#, "{n=\"1\"}\t2").unwrap();
        assert_eq!(name, r#"\x7bn="1"\x7d{a="x\"2",b="2-{n=\"1\"}"}"#);
        assert_eq!(Labelled::split(&name).get("b"), Some("2-{n=\"1\"}"));
        assert_eq!(render("web:{{\"a\":\"{1}\"}}", "\"").unwrap(), "{\"a\":\"\"\"}", "no labels");
    }

    #[test]
    fn malformed_template_is_refused_with_the_reason() {
        for (bad, why) in [
            ("web", "a colon"),
            ("we b:x", "collection name"),
            (":x", "collection name is empty"),
            ("web:", "metric name is empty"),
            ("web:{", "without its `}`"),
            ("web:{a", "without its `}`"),
            ("web:a}", "without its `{`"),
            ("web:{}", "names no field"),
            ("web:{a{b}", "names no field"),
            ("web:{|lower}", "names no field"),
            ("web:{a|upper}", "is no function"),
            ("web:a\nb", "metric name"),
        ] {
            let error = Template::parse(bad, &mut Wanted::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a{}:1/ ä]{0,12}") {
            drop(Template::parse(&text, &mut Wanted::default()));
        }

        #[test]
        fn escaped_text_is_rendered_as_it_was(text in "[a-z{} ]{1,20}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&format!("web:{escaped}"), "x").unwrap(), text);
        }
    }
}
