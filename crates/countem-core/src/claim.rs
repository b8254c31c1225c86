//! Claims of idempotency keys: a request that is sent again under the same key counts once.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;

use crate::{Batch, BatchId};

/// Key of a request that may be sent again: 1 to 255 printable ASCII characters, in a scope.
///
/// Keys of two scopes have nothing to do with each other: a server takes the token of the client as scope. The text form is
/// `<scope>/<key>`; a scope has at most 64 printable ASCII characters and no slash, and may be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// An error: the text is no idempotency key, or no scope of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key has no characters.
    #[error("idempotency key is empty")]
    Empty,
    /// The key or its scope is too long.
    #[error("{what} is {length} bytes long, at most {max} are allowed")]
    TooLong {
        /// `idempotency key` or `scope`.
        what: &'static str,
        /// Length of the refused text in bytes.
        length: usize,
        /// Maximum length in bytes.
        max: usize,
    },
    /// The key or its scope has a character that it must not have.
    #[error(
        "{what} has {character:?} at byte {at}; allowed: printable ASCII characters, in a scope without `/`"
    )]
    Character {
        /// `idempotency key` or `scope`.
        what: &'static str,
        /// The first offending character.
        character: char,
        /// Byte offset of the character.
        at: usize,
    },
    /// The text form has no slash.
    #[error("`{0}` is not `<scope>/<key>`")]
    NoScope(String),
}

impl IdempotencyKey {
    /// Maximum length of a key in bytes, without its scope.
    pub const MAX_LEN: usize = 255;
    /// Maximum length of a scope in bytes.
    pub const MAX_SCOPE: usize = 64;

    /// Validates a key of no scope.
    ///
    /// # Errors
    /// [`KeyError`]: the broken rule.
    pub fn new(key: &str) -> Result<Self, KeyError> {
        Self::in_scope("", key)
    }

    /// Validates a key of `scope`.
    ///
    /// # Errors
    /// [`KeyError`]: the broken rule.
    pub fn in_scope(scope: &str, key: &str) -> Result<Self, KeyError> {
        check("scope", scope, Self::MAX_SCOPE, |c| c != '/')?;
        check("idempotency key", key, Self::MAX_LEN, |_| true)?;
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self(format!("{scope}/{key}").into()))
    }

    /// Returns the text form, `<scope>/<key>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(
    what: &'static str,
    text: &str,
    max: usize,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), KeyError> {
    if text.len() > max {
        return Err(KeyError::TooLong { what, length: text.len(), max });
    }
    match text.char_indices().find(|&(_, c)| !(matches!(c, ' '..='~') && is_allowed(c))) {
        None => Ok(()),
        Some((at, character)) => Err(KeyError::Character { what, character, at }),
    }
}

impl FromStr for IdempotencyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (scope, key) = text.split_once('/').ok_or_else(|| KeyError::NoScope(text.to_owned()))?;
        Self::in_scope(scope, key)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A claim of an idempotency key by an entry: one arrival of a request at one node. Of all entries under a key, a store lets one win.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The key.
    pub key: IdempotencyKey,
    /// Hash of the body of the request: the same key stands for one body.
    pub body: [u8; 32],
    /// Identity of the entry, which never comes back: its writer, and its position in `seq`.
    pub by: BatchId,
    /// Moment from which on the key may be claimed by another entry.
    pub expires_at: Timestamp,
    /// Counts of an entry that no journal keeps, as a batch without a mark: added in one step with the claim.
    pub batch: Option<Arc<Batch>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable_and_bounded() {
        for good in ["a", "a/b", "a b", "\"", "~", &"x".repeat(255)] {
            assert_eq!(IdempotencyKey::new(good).unwrap().as_str(), format!("/{good}"));
        }
        for bad in ["", "a\n", "\u{7f}", "ä", &"x".repeat(256)] {
            assert!(IdempotencyKey::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(IdempotencyKey::in_scope("a/b", "c").is_err());
        assert!(IdempotencyKey::in_scope(&"x".repeat(65), "c").is_err());
    }

    #[test]
    fn text_form_reads_back_scope_and_key() {
        for (scope, key) in [("", "a"), ("t", "a/b"), ("token 1", "/")] {
            let made = IdempotencyKey::in_scope(scope, key).unwrap();
            assert_eq!(made.as_str().parse::<IdempotencyKey>().unwrap(), made);
        }
        assert_ne!(IdempotencyKey::in_scope("a", "b").unwrap(), IdempotencyKey::new("a/b").unwrap());
        assert!("a".parse::<IdempotencyKey>().is_err());
    }
}
