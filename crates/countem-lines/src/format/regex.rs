//! Lines described by a regular expression of the user.

use std::borrow::Cow;

use regex::bytes::{CaptureLocations, Regex as Pattern};

use crate::{DefinitionError, Reject, Span, Wanted, error::last_line, fields::as_text};

/// Finds the groups of a pattern.
#[derive(Debug, Clone)]
pub(super) struct Regex {
    pattern: Pattern,
    /// The group for each wanted field.
    groups: Vec<usize>,
    found: CaptureLocations,
    /// The current line, if it is no UTF-8: a pattern of Unicode text would end a value at such a byte.
    text: String,
    refusal: &'static str,
}

impl Regex {
    /// Prepares to find `wanted`: names of groups, or their numbers.
    ///
    /// # Errors
    /// A [`DefinitionError`] when the pattern is malformed or has no such group.
    pub(super) fn new(pattern: &str, wanted: &Wanted) -> Result<Self, DefinitionError> {
        let compiled = Pattern::new(pattern).map_err(|error| {
            DefinitionError::new(format!("cannot understand `--regex {pattern}`: {}", last_line(&error)))
        })?;
        let names: Vec<&str> = compiled.capture_names().flatten().collect();
        let mut groups = Vec::new();
        for name in wanted.names() {
            let named = compiled.capture_names().position(|group| group == Some(name));
            let numbered = || name.parse().ok().filter(|&number: &usize| number < compiled.captures_len());
            groups.push(named.or_else(numbered).ok_or_else(|| DefinitionError::unknown_field(name, &names))?);
        }
        Ok(Self {
            groups,
            found: compiled.capture_locations(),
            pattern: compiled,
            text: String::new(),
            refusal: "no match of the regular expression",
        })
    }

    /// Finds the wanted groups and returns the bytes in which `spans` lie: the line as text. A group that takes no part in the match
    /// is missing.
    ///
    /// # Errors
    /// The pattern matches nowhere in the line.
    pub(super) fn read_text<'a>(
        &'a mut self,
        line: &'a [u8],
        spans: &mut [Span],
    ) -> Result<&'a [u8], Reject> {
        match as_text(line) {
            Cow::Borrowed(_) => self.read(line, spans).map(|()| line),
            Cow::Owned(text) => {
                self.read(text.as_bytes(), spans)?;
                self.text = text;
                Ok(self.text.as_bytes())
            }
        }
    }

    /// Finds the wanted groups in the bytes of the line. A group that takes no part in the match is missing.
    ///
    /// # Errors
    /// The pattern matches nowhere in the line.
    pub(super) fn read(&mut self, line: &[u8], spans: &mut [Span]) -> Result<(), Reject> {
        if self.pattern.captures_read(&mut self.found, line).is_none() {
            return Err(Reject::Shape(self.refusal));
        }
        for (span, group) in spans.iter_mut().zip(&self.groups) {
            *span = self.found.get(*group).map_or(Span::MISSING, |(start, end)| Span::new(start, end));
        }
        Ok(())
    }

    /// Names the reason for which a line is refused.
    #[must_use]
    pub(super) fn refusing(self, refusal: &'static str) -> Self {
        Self { refusal, ..self }
    }
}

/// Returns whether `pattern` has a group called `name`; a malformed one has none.
pub(crate) fn has_group(pattern: &str, name: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.capture_names().any(|group| group == Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Wanted {
        names.iter().copied().collect()
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        let mut regex =
            Regex::new(r"^(?<level>\w+): (\d+)(?<tail>!)?", &wanted(&["2", "level", "tail"])).unwrap();
        let mut spans = [Span::MISSING; 3];
        let line = b"warn: 42";
        regex.read(line, &mut spans).unwrap();
        assert_eq!(spans.map(|span| span.of(line)), [Some(&b"42"[..]), Some(b"warn"), None]);
        assert!(regex.read(b"nothing", &mut spans).is_err());
        regex.read(b"a: 1 \xff", &mut spans).unwrap();
    }

    #[test]
    fn value_continues_behind_a_byte_without_meaning() {
        let mut regex = Regex::new("user=(?<u>[^ ]+) ", &wanted(&["u"])).unwrap();
        let mut spans = [Span::MISSING];
        for (line, value) in [(&b"user=Ren\xe9e ip"[..], r"Ren\xe9e"), ("user=Renée ip".as_bytes(), "Renée")]
        {
            let text = regex.read_text(line, &mut spans).unwrap().to_vec();
            assert_eq!(spans[0].of(&text), Some(value.as_bytes()));
        }
    }

    #[test]
    fn malformed_pattern_or_unknown_group_is_refused() {
        assert!(Regex::new("(", &wanted(&[])).is_err());
        let error = Regex::new("(?<level>.)", &wanted(&["lvl"])).unwrap_err().to_string();
        assert!(error.contains("`{lvl}`") && error.contains("{level}"), "{error}");
        assert!(Regex::new("(.)", &wanted(&["2"])).is_err());
    }
}
