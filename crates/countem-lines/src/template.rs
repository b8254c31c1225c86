//! Names of counters, made from the fields of a line: `collection:{template}`.

use countem_core::{CollectionName, MetricName};

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
    Field(usize, Vec<Function>),
}

impl Template {
    /// Reads `collection:{template}` and adds the fields it names to `wanted`.
    ///
    /// `{{` and `}}` stand for single braces. Functions may follow a field, as in `{path|path_prefix(2)|lower}`.
    ///
    /// # Errors
    /// A [`DefinitionError`] with the reason.
    pub fn parse(text: &str, wanted: &mut Wanted) -> Result<Self, DefinitionError> {
        let refuse = |why: String| DefinitionError::new(format!("cannot understand `--count {text}`: {why}"));
        let (collection, metric) = text.split_once(':').ok_or_else(|| {
            refuse("expected a collection, a colon and a template, as in `web:{status}`".into())
        })?;
        let collection = CollectionName::new(collection).map_err(|error| refuse(error.to_string()))?;
        let parts = parse_parts(metric, wanted).map_err(refuse)?;
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
                Part::Field(field, functions) => {
                    let value = spans[*field].of(text).or(absent.map(str::as_bytes)).ok_or(*field)?;
                    let value = if value.is_empty() { b"-" } else { value };
                    match &functions[..] {
                        [] => out.extend_from_slice(value),
                        [only] => only.apply(value, out),
                        several => apply_all(several, value, out),
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
            parts.push(Part::Field(wanted.index_of(field), functions));
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
