//! Names of collections and metrics, validated on construction.

mod fitted;
mod labels;

use std::{fmt, str::FromStr, sync::Arc};

pub use self::{
    fitted::Fitted,
    labels::{LabelError, Labelled},
};

/// Metric that receives the increments beyond the cardinality cap of a (collection, bucket), so that the
/// total of the bucket stays exact.
pub const OVERFLOW_METRIC: &str = "__overflow__";

/// Names one logical container of counters: `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
///
/// Cheap to clone. The narrow alphabet makes a collection usable as a MongoDB collection, a URL segment
/// and a file name without any escaping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

/// Names one counter inside a collection: 1 to 512 bytes of UTF-8 without control characters.
///
/// Dots, dollars, percent signs and emoji are ordinary characters: `a` and `a.b` are two counters that
/// have nothing to do with each other, in every store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricName(Arc<str>);

/// An error: the name breaks a rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("{what} name is empty")]
    Empty {
        /// `collection` or `metric`.
        what: &'static str,
    },
    /// The name is longer than its kind allows.
    #[error("{what} name is {length} bytes long, at most {max} are allowed")]
    TooLong {
        /// `collection` or `metric`.
        what: &'static str,
        /// Length of the refused name in bytes.
        length: usize,
        /// Maximum length in bytes.
        max: usize,
    },
    /// The name has a character that its kind does not allow.
    #[error("{what} name `{}` has {character:?} at byte {at}; allowed: {allowed}", .name.escape_debug())]
    Character {
        /// `collection` or `metric`.
        what: &'static str,
        /// The refused name.
        name: String,
        /// The first offending character.
        character: char,
        /// Byte offset of the character.
        at: usize,
        /// The alphabet in words.
        allowed: &'static str,
    },
}

impl CollectionName {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 100;

    /// Validates `name`.
    ///
    /// # Errors
    /// [`NameError`]: the broken rule.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::validate(name)?;
        Ok(Self(name.into()))
    }

    /// Validates `name` without allocating.
    ///
    /// # Errors
    /// [`NameError`]: the broken rule.
    pub fn validate(name: &str) -> Result<(), NameError> {
        check_length("collection", name, Self::MAX_LEN)?;
        let offender = name
            .char_indices()
            .find(|&(at, c)| !(c.is_ascii_alphanumeric() || at > 0 && matches!(c, '.' | '_' | '-')));
        match offender {
            None => Ok(()),
            Some((at, character)) => Err(NameError::Character {
                what: "collection",
                name: name.to_owned(),
                character,
                at,
                allowed: "letters, digits and `.`, `_`, `-` after the first character",
            }),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MetricName {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 512;

    /// Validates `name`.
    ///
    /// # Errors
    /// [`NameError`]: the broken rule.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::validate(name)?;
        Ok(Self(name.into()))
    }

    /// Validates `name` without allocating.
    ///
    /// # Errors
    /// [`NameError`]: the broken rule.
    pub fn validate(name: &str) -> Result<(), NameError> {
        check_length("metric", name, Self::MAX_LEN)?;
        match name.char_indices().find(|(_, c)| c.is_control()) {
            None => Ok(()),
            Some((at, character)) => Err(NameError::Character {
                what: "metric",
                name: name.to_owned(),
                character,
                at,
                allowed: "any UTF-8 but control characters",
            }),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty { what }),
        length if length > max => Err(NameError::TooLong { what, length, max }),
        _ => Ok(()),
    }
}

macro_rules! name_traits {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}
name_traits!(CollectionName);
name_traits!(MetricName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_are_any_text_without_control_characters() {
        for good in ["a", "a.b", "a..b", "$inc", "_id", "%2E", " ", "GET 200", "🦀", &"x".repeat(512)] {
            assert_eq!(MetricName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", "a\nb", "\u{85}", "\u{7f}", &"x".repeat(513)] {
            assert!(MetricName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn collection_names_fit_everywhere_unescaped() {
        for good in ["a", "0", "app-events", "a.b_c-d", &"x".repeat(100)] {
            assert_eq!(CollectionName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".a", "_countem", "-a", "a b", "a/b", "a$", "ä", "a\0", &"x".repeat(101)] {
            assert!(CollectionName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn refusal_names_the_character_and_its_position() {
        let error = MetricName::new("a\nb").unwrap_err().to_string();
        assert_eq!(
            error,
            r"metric name `a\nb` has '\n' at byte 1; allowed: any UTF-8 but control characters"
        );
        let error = MetricName::new("").unwrap_err().to_string();
        assert_eq!(error, "metric name is empty");
    }
}
