//! Filters of lines: `status=500`, `path~^/api/`, `bytes>1000`.

use regex::Regex;

use crate::{DefinitionError, Span, Wanted, error::last_line, fields::as_text, number::Decimal};

/// A condition on the value of one field.
#[derive(Debug, Clone)]
pub struct Filter {
    field: usize,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
    Less(Decimal),
    Greater(Decimal),
}

const SHAPE: &str = "a field and a value with `=`, `!=`, `~`, `<` or `>` between them, as in `status=500`";

impl Filter {
    /// Reads `field=value`, `field!=value`, `field~regex`, `field<number` or `field>number`, and adds the field to `wanted`. Spaces
    /// around the value, and quotes around that, are no part of it.
    ///
    /// # Errors
    /// A [`DefinitionError`] with the reason.
    pub fn parse(text: &str, wanted: &mut Wanted) -> Result<Self, DefinitionError> {
        let refuse = |why: String| DefinitionError::new(format!("cannot understand `--where {text}`: {why}"));
        let at = text.find(['=', '!', '~', '<', '>']).filter(|&at| at > 0);
        let (field, condition) = text.split_at(at.ok_or_else(|| refuse(format!("expected {SHAPE}")))?);
        let number = |text: &str| {
            Decimal::parse(text.trim())
                .ok_or_else(|| refuse(format!("`{text}` is no number, which `<` and `>` compare")))
        };
        let test = if let Some(value) = condition.strip_prefix("!=") {
            Test::NotEqual(unquoted(value).into())
        } else if let Some(pattern) = condition.strip_prefix("=~").or_else(|| condition.strip_prefix('~')) {
            Test::Matches(Regex::new(unquoted(pattern)).map_err(|error| refuse(last_line(&error)))?)
        } else if let Some(value) = condition.strip_prefix("==").or_else(|| condition.strip_prefix('=')) {
            Test::Equal(unquoted(value).into())
        } else if let Some(value) = condition.strip_prefix('<') {
            Test::Less(number(value)?)
        } else if let Some(value) = condition.strip_prefix('>') {
            Test::Greater(number(value)?)
        } else {
            return Err(refuse(format!("expected {SHAPE}")));
        };
        Ok(Self { field: wanted.index_of(field.trim().trim_start_matches('{').trim_end_matches('}')), test })
    }

    /// Tells whether the line with these fields is wanted. A missing field equals nothing, and is unequal to everything.
    pub fn admits(&self, text: &[u8], spans: &[Span]) -> bool {
        let value = spans[self.field].of(text);
        let number = || Decimal::parse(str::from_utf8(value?).ok()?.trim());
        match &self.test {
            Test::Equal(other) => value.is_some_and(|value| value == *other),
            Test::NotEqual(other) => value.is_none_or(|value| value != *other),
            Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(&as_text(value))),
            Test::Less(limit) => number().is_some_and(|number| number.compare(*limit).is_lt()),
            Test::Greater(limit) => number().is_some_and(|number| number.compare(*limit).is_gt()),
        }
    }
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Kind};

    fn admits(filter: &str, line: &str) -> bool {
        let mut wanted = Wanted::default();
        let filter = Filter::parse(filter, &mut wanted).unwrap();
        let mut format = Format::new(Kind::Tsv, false, &wanted).unwrap();
        let mut spans = vec![Span::MISSING; wanted.names().len()];
        let text = format.read(line.as_bytes(), &mut spans).unwrap();
        filter.admits(text, &spans)
    }

    #[test]
    fn conditions_compare_texts_and_numbers() {
        for (filter, line, expected) in [
            ("1=500", "500", true),
            ("1=500", "0500", false),
            ("{1}!=500", "404", true),
            ("2!=500", "404", true),
            ("2=", "404", false),
            ("1~^5..$", "503", true),
            ("1~^5..$", "5030", false),
            ("1>1e3", "1000.5", true),
            ("1>1000", "999", false),
            ("1<0", "-0.5", true),
            ("1<10", "9", true),
            ("1<10", "x", false),
            ("1=a=b", "a=b", true),
            ("1 == 500", "500", true),
            ("1 != '500'", "500", false),
            ("1=\" 500\"", " 500", true),
            ("1 =~ ^5", "500", true),
            ("1 = '", "'", true),
        ] {
            assert_eq!(admits(filter, line), expected, "{filter} on {line}");
        }
    }

    #[test]
    fn pattern_meets_bytes_without_meaning() {
        let mut wanted = Wanted::default();
        let filter = Filter::parse("1~^/[^/]+/x$", &mut wanted).unwrap();
        let line = b"/caf\xe9/x";
        assert!(filter.admits(line, &[Span::new(0, line.len())]));
    }

    #[test]
    fn malformed_filter_is_refused_with_the_reason() {
        for (bad, why) in [
            ("status", "as in `status=500`"),
            ("=5", "as in"),
            ("a!5", "as in"),
            ("a~(", "regex"),
            ("a<x", "is no number"),
        ] {
            let error = Filter::parse(bad, &mut Wanted::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
