//! Metrics with labels, as one text: `signups{country="DE",plan="pro"}`.

use std::{borrow::Cow, fmt::Write as _};

use super::{MetricName, NameError, OVERFLOW_METRIC};

/// A metric's name without its labels, and the labels sorted by key.
///
/// Stores see the whole as an opaque name. Values are escaped as in the text format of Prometheus: `\\`, `\"` and `\n`; other
/// control characters are `\xNN`, byte by byte. A text in another order of keys is another counter of a store, with the same labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labelled<'a> {
    /// Text before the labels.
    pub name: &'a str,
    /// Keys and values, by key.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
}

/// An error: these labels make no metric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The whole text breaks a rule of metric names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name without labels has a brace.
    #[error("metric `{0}` has a brace; with labels, its own name can have none")]
    Brace(String),
    /// The key is empty or has a character that keys do not allow.
    #[error("`{}` is no key of a label; allowed: any text without spaces, control characters and `{{ }} = , \" \\`", .0.escape_debug())]
    Key(String),
    /// Two labels have the same key.
    #[error("label `{0}` is given twice")]
    Twice(String),
}

impl MetricName {
    /// Returns the metric of `name` with `labels`, in any order. Without labels it is the name itself.
    ///
    /// ```
    /// use countem_core::MetricName;
    ///
    /// let metric = MetricName::labelled("signups", [("plan", "pro"), ("country", "DE")])?;
    /// assert_eq!(metric.as_str(), r#"signups{country="DE",plan="pro"}"#);
    /// # Ok::<(), countem_core::LabelError>(())
    /// ```
    ///
    /// # Errors
    /// [`LabelError`]: the broken rule.
    pub fn labelled<K: AsRef<str>, V: AsRef<str>>(
        name: &str,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, LabelError> {
        let labels: Vec<_> = labels.into_iter().collect();
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        Ok(Self::new(&Self::labelled_text(name, &labels)?)?)
    }

    /// Returns the text of [`labelled`](Self::labelled) without a check of its length and of `name`, with one allocation for labels
    /// that are sorted.
    ///
    /// # Errors
    /// [`LabelError`]: the broken rule of labels.
    pub fn labelled_text<'a>(name: &'a str, labels: &[(&str, &str)]) -> Result<Cow<'a, str>, LabelError> {
        if labels.is_empty() {
            return Ok(name.into());
        }
        if name.contains(['{', '}']) {
            return Err(LabelError::Brace(name.to_owned()));
        }
        let sorted: Cow<'_, [_]> = if labels.is_sorted() {
            labels.into()
        } else {
            let mut labels = labels.to_vec();
            labels.sort_unstable();
            labels.into()
        };
        let lengths = sorted.iter().map(|(key, value)| key.len() + value.len() + 4);
        let mut text = String::with_capacity(name.len() + 1 + lengths.sum::<usize>());
        text.push_str(name);
        let mut before = None;
        for (key, value) in &*sorted {
            if !is_key(key) {
                return Err(LabelError::Key((*key).to_owned()));
            }
            if before == Some(key) {
                return Err(LabelError::Twice((*key).to_owned()));
            }
            text.push(if before.is_none() { '{' } else { ',' });
            text.push_str(key);
            text.push_str("=\"");
            text.push_str(&Labelled::escaped(value));
            text.push('"');
            before = Some(key);
        }
        text.push('}');
        Ok(text.into())
    }
}

impl<'a> Labelled<'a> {
    /// Splits `metric` into its name and its labels. A text without labels, or with something else in braces, is all name.
    pub fn split(metric: &'a str) -> Self {
        parse(metric).unwrap_or(Self { name: metric, labels: Vec::new() })
    }

    /// Returns `value` as it is written between the quotes of a label.
    pub fn escaped(value: &str) -> Cow<'_, str> {
        if !value.contains(|c: char| c.is_control() || matches!(c, '\\' | '"')) {
            return value.into();
        }
        let mut text = String::with_capacity(value.len() + 8);
        for char in value.chars() {
            match char {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str(r#"\""#),
                '\n' => text.push_str(r"\n"),
                char if char.is_control() => {
                    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                        // Writing to a string never fails.
                        write!(text, "\\x{byte:02x}").ok();
                    }
                }
                char => text.push(char),
            }
        }
        text.into()
    }

    /// Returns the value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by_key(&key, |(key, _)| key).ok()?;
        Some(&self.labels[at].1)
    }

    /// Returns the metric that takes the increments of all label sets of this name beyond their cap: `signups{__overflow__="true"}`.
    /// `None` without labels, and where the text would be too long.
    pub fn overflow(&self) -> Option<String> {
        let text = MetricName::labelled_text(self.name, &[(OVERFLOW_METRIC, "true")]).ok()?;
        (!self.labels.is_empty() && text.len() <= MetricName::MAX_LEN).then(|| text.into_owned())
    }
}

fn parse(metric: &str) -> Option<Labelled<'_>> {
    let (name, mut rest) = metric.strip_suffix('}')?.split_once('{')?;
    let mut labels = Vec::new();
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let end = value_end(after)?;
        labels.push((key, unescaped(&after[..end])?));
        match &after[end + 1..] {
            "" => break,
            more => rest = more.strip_prefix(',')?,
        }
    }
    labels.sort_unstable();
    let is_unique = labels.windows(2).all(|pair| pair[0].0 != pair[1].0);
    (!name.contains('}') && is_unique && labels.iter().all(|(key, _)| is_key(key)))
        .then_some(Labelled { name, labels })
}

/// Returns the position of the quote that ends a value.
fn value_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn is_key(key: &str) -> bool {
    let is_forbidden =
        |c: char| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}' | '=' | ',' | '"' | '\\');
    !key.is_empty() && !key.contains(is_forbidden)
}

/// Returns the value that was escaped as `text`, `None` where nothing is.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(text.into());
    }
    let mut value = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        value.push(match escape {
            b'\\' | b'"' => escape,
            b'n' => b'\n',
            b'x' => {
                let digits = str::from_utf8(rest.get(..2)?).ok()?;
                if digits.starts_with('+') {
                    return None;
                }
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
    }
    String::from_utf8(value).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn labelled(name: &str, labels: &[(&str, &str)]) -> Result<String, LabelError> {
        MetricName::labelled(name, labels.iter().copied()).map(|metric| metric.to_string())
    }

    #[test]
    fn labels_are_sorted_and_escaped() {
        let text = |labels: &[(&str, &str)]| labelled("signups", labels).unwrap();
        assert_eq!(text(&[]), "signups");
        assert_eq!(text(&[("plan", "pro"), ("country", "DE")]), r#"signups{country="DE",plan="pro"}"#);
        assert_eq!(text(&[("a", "say \"hi\" \\ \n\t")]), r#"signups{a="say \"hi\" \\ \n\x09"}"#);
        assert_eq!(text(&[("a", "")]), r#"signups{a=""}"#);
        assert_eq!(text(&[("http.method", "},b=\"🦀")]), r#"signups{http.method="},b=\"🦀"}"#);
        assert_eq!(labelled("", &[("a", "b")]).unwrap(), r#"{a="b"}"#);
    }

    #[test]
    fn unclear_labels_are_refused() {
        for (name, labels, why) in [
            ("m", &[("", "x")][..], "is no key of a label"),
            ("m", &[("a b", "x")], "is no key of a label"),
            ("m", &[("a\"", "x")], "is no key of a label"),
            ("m", &[("a", "x"), ("a", "y")], "twice"),
            ("m{", &[("a", "x")], "brace"),
            ("m\n", &[("a", "x")], "metric name"),
            ("m", &[("a", &*"x".repeat(600))], "at most 512"),
            ("", &[], "empty"),
        ] {
            let error = labelled(name, labels).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn other_braces_are_part_of_the_name() {
        for text in [
            "signups",
            "{}",
            "a{}",
            "a{b}",
            "a{b=c}",
            "a{b=\"c\"",
            "a{b=\"c\"} ",
            "a{b=\"c\",}",
            "a{b=\"\\q\"}",
            "a{b=\"1\",b=\"2\"}",
            "a{=\"1\"}",
            "a}b{c=\"1\"}",
            "a{b=\"\\x8\"}",
            "a{b=\"\\xff\"}",
            "a{b=\"c\"d=\"e\"}",
            "a{b=\"\\x+8\"}",
            "a{b=\"c\", d=\"e\"}",
        ] {
            assert_eq!(Labelled::split(text), Labelled { name: text, labels: Vec::new() }, "{text}");
        }
    }

    #[test]
    fn overflow_keeps_the_name_alone() {
        let overflow = |metric: &str| Labelled::split(metric).overflow();
        assert_eq!(overflow(r#"m{a="1",b="2"}"#).unwrap(), r#"m{__overflow__="true"}"#);
        let of_overflow = overflow(r#"m{__overflow__="true"}"#);
        assert_eq!(of_overflow.as_deref(), Some(r#"m{__overflow__="true"}"#));
        assert_eq!(overflow("m"), None);
        assert_eq!(overflow(&format!("{}{{a=\"1\"}}", "m".repeat(500))), None);
    }

    #[test]
    fn labels_in_any_order_are_found() {
        let split = Labelled::split(r#"m{b="2",a="1"}"#);
        assert_eq!(
            (split.name, split.get("a"), split.get("b"), split.get("c")),
            ("m", Some("1"), Some("2"), None)
        );
        assert_eq!(split, Labelled::split(r#"m{a="1",b="2"}"#));
    }

    proptest! {
        #[test]
        fn labels_survive_any_value_and_order(
            name in "[^{}\\p{Cc}]{0,8}", labels in prop::collection::btree_map("[a-z._-]{1,3}", any::<String>(), 1..5),
        ) {
            let labels: BTreeMap<String, String> =
                labels.into_iter().map(|(key, value)| (key, value.chars().take(9).collect())).collect();
            let metric = MetricName::labelled(&name, &labels).unwrap();
            let backwards = MetricName::labelled(&name, labels.iter().rev()).unwrap();
            prop_assert_eq!(&metric, &backwards);
            let split = Labelled::split(metric.as_str());
            prop_assert_eq!(split.name, name);
            let found: BTreeMap<_, _> =
                split.labels.into_iter().map(|(key, value)| (key.to_owned(), value.into_owned())).collect();
            prop_assert_eq!(found, labels);
        }

        #[test]
        fn splitting_never_panics(text in "[a{}=,\"\\\\xn0é]{0,16}") {
            let split = Labelled::split(&text);
            if !split.labels.is_empty() {
                let again = MetricName::labelled(split.name, split.labels.clone()).unwrap();
                prop_assert_eq!(Labelled::split(again.as_str()), split);
            }
        }
    }
}
