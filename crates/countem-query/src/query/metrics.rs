//! Selections of metrics, by name and by label.

use std::fmt;

use countem_core::{Labelled, MetricName};
use regex::{Regex, RegexBuilder};

/// A selection of metrics by name.
///
/// Names and patterns are compared with the name of a metric without its labels, so that `signups` selects all of
/// `signups{country="DE"}`, `signups{country="FR"}` and `signups`. A pattern that has a brace is compared with the whole text.
#[derive(Debug, Clone, Default)]
pub enum Metrics {
    /// Every metric.
    #[default]
    All,
    /// This metric alone, labels included.
    Exact(MetricName),
    /// Metrics of this name, with any labels or none.
    Named(String),
    /// Metrics whose whole text begins with this.
    Prefix(String),
    /// Metrics that match a pattern.
    Pattern(Pattern),
}

/// A pattern of names.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Beginning of all names that match.
    prefix: String,
    regex: Regex,
    /// Compared with the whole text, labels included.
    is_whole: bool,
}

/// An error: the text is no regular expression, or one that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a regular expression that can be used: {why}")]
pub struct PatternError {
    pattern: String,
    why: String,
}

/// A condition on one label. A label that is absent has the empty value.
#[derive(Debug, Clone)]
pub struct LabelFilter {
    key: String,
    condition: Condition,
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Condition {
    Is(String),
    Matches(Regex),
}

/// An error: the text is no condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelFilterError {
    /// The text has no operator, or no key before it.
    #[error(
        "`{0}` is no condition on a label; one is such as country=DE, country!=DE, country=~D.|FR or country!~D.*"
    )]
    Malformed(String),
    /// The value is no regular expression.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Maximum size of a compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

impl Metrics {
    /// Returns the metrics of this name, with any labels or none; of a text with a brace, only itself.
    pub fn named(name: &str) -> Self {
        match MetricName::new(name) {
            Ok(metric) if name.contains('{') => Self::Exact(metric),
            _ => Self::Named(name.to_owned()),
        }
    }

    /// Returns the metrics that match a pattern as a whole, in which `*` is any text and `?` any character.
    pub fn glob(pattern: &str) -> Self {
        let Some(end) = pattern.find(['*', '?']) else { return Self::named(pattern) };
        let (prefix, rest) = pattern.split_at(end);
        let is_whole = pattern.contains('{');
        if rest == "*" {
            return if prefix.is_empty() { Self::All } else { Self::Prefix(prefix.to_owned()) };
        }
        let mut text = regex::escape(prefix);
        for char in rest.chars() {
            match char {
                '*' => text.push_str(".*"),
                '?' => text.push('.'),
                char => text.push_str(&regex::escape(char.encode_utf8(&mut [0; 4]))),
            }
        }
        match whole_regex(&text) {
            Ok(regex) => Self::Pattern(Pattern { prefix: prefix.to_owned(), regex, is_whole }),
            // A pattern of thousands of characters is longer than any name.
            Err(_) => Self::Named(pattern.to_owned()),
        }
    }

    /// Returns the metrics whose names, without labels, match a regular expression as a whole. Its time is linear in the name.
    ///
    /// # Errors
    /// [`PatternError`]: it is malformed, or its program too large.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Ok(Self::Pattern(Pattern { prefix: String::new(), regex: whole_regex(pattern)?, is_whole: false }))
    }

    /// Returns the metric `parent` and those below it in the hierarchy of `separator`.
    pub fn under(parent: &str, separator: &str) -> Self {
        let text = format!("{}({}.*)?", regex::escape(parent), regex::escape(separator));
        match whole_regex(&text) {
            Ok(regex) => Self::Pattern(Pattern { prefix: parent.to_owned(), regex, is_whole: false }),
            Err(_) => Self::Named(parent.to_owned()),
        }
    }

    /// Returns a text that every selected metric begins with.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::All => "",
            Self::Exact(metric) => metric.as_str(),
            Self::Named(text) | Self::Prefix(text) => text,
            Self::Pattern(pattern) => &pattern.prefix,
        }
    }

    /// Tells whether a metric is selected.
    pub fn contains(&self, metric: &str) -> bool {
        self.selects(&Labelled::split(metric), metric)
    }

    pub(crate) fn selects(&self, metric: &Labelled<'_>, whole: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => exact.as_str() == whole,
            Self::Named(name) => metric.name == name,
            Self::Prefix(text) => whole.starts_with(text),
            Self::Pattern(pattern) => {
                pattern.regex.is_match(if pattern.is_whole { whole } else { metric.name })
            }
        }
    }
}

impl LabelFilter {
    /// Returns the condition that the label `key` has this value.
    pub fn is(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), condition: Condition::Is(value.into()), is_negated: false }
    }

    /// Returns the condition that the value of the label `key` matches a regular expression as a whole.
    ///
    /// # Errors
    /// [`PatternError`]: it is malformed, or its program too large.
    pub fn matches(key: impl Into<String>, pattern: &str) -> Result<Self, PatternError> {
        let condition = Condition::Matches(whole_regex(pattern)?);
        Ok(Self { key: key.into(), condition, is_negated: false })
    }

    /// Returns the opposite condition.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { is_negated: !self.is_negated, ..self }
    }

    pub(crate) fn admits(&self, metric: &Labelled<'_>) -> bool {
        let value = metric.get(&self.key).unwrap_or_default();
        let is_met = match &self.condition {
            Condition::Is(text) => value == text,
            Condition::Matches(regex) => regex.is_match(value),
        };
        is_met != self.is_negated
    }
}

/// Parses `key=value`, `key!=value`, `key=~regex` and `key!~regex`.
impl std::str::FromStr for LabelFilter {
    type Err = LabelFilterError;

    fn from_str(text: &str) -> Result<Self, LabelFilterError> {
        let malformed = || LabelFilterError::Malformed(text.to_owned());
        let at = text.find(['=', '!']).filter(|at| *at > 0).ok_or_else(malformed)?;
        let (key, rest) = text.split_at(at);
        let operators = ["=~", "!~", "!=", "="];
        let operator = operators.into_iter().find(|operator| rest.starts_with(operator));
        let operator = operator.ok_or_else(malformed)?;
        let value = &rest[operator.len()..];
        let filter = if operator.ends_with('~') { Self::matches(key, value)? } else { Self::is(key, value) };
        Ok(if operator.starts_with('!') { filter.negated() } else { filter })
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Exact(metric) => metric.fmt(f),
            Self::Named(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Pattern(pattern) => f.write_str(pattern.regex.as_str()),
        }
    }
}

/// Compiles a pattern that a whole text has to match.
fn whole_regex(pattern: &str) -> Result<Regex, PatternError> {
    let error = |error: regex::Error| PatternError {
        pattern: pattern.chars().take(100).collect(),
        why: match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line says it; those before point to the place.
            error => {
                let text = error.to_string();
                let line = text.lines().next_back().unwrap_or_default();
                line.trim_start_matches("error: ").to_owned()
            }
        },
    };
    // Alone first: a pattern with a closing parenthesis too many would escape from the group.
    RegexBuilder::new(pattern).size_limit(MAX_REGEX).build().map_err(error)?;
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .dot_matches_new_line(true)
        .size_limit(MAX_REGEX)
        .build()
        .map_err(error)
}
