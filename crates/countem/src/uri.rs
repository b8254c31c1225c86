//! Addresses of stores, which may hold a password that must not be shown.

use std::fmt;

/// Address of a store: `sqlite://PATH`, `mongodb://HOST/DATABASE` or `memory://`.
///
/// `Display`, `Debug` and serialisation show `****` instead of a password; only [`expose`](Self::expose) returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUri(String);

/// Says why a text is not the address of a store, without repeating what could be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUriError {
    /// The text does not begin with `SCHEME://`.
    #[error("store URI does not begin with a scheme; allowed: {ALLOWED}")]
    NoScheme,
    /// There is no store of this scheme.
    #[error("unknown kind of store `{scheme}://`; allowed: {ALLOWED}")]
    UnknownScheme {
        /// The scheme as it was written.
        scheme: String,
    },
    /// Nothing follows the scheme.
    #[error("store URI `{scheme}://` is incomplete; allowed: {ALLOWED}")]
    Incomplete {
        /// The scheme.
        scheme: String,
    },
    /// Something follows the path of a SQLite file, as in other programs' URIs.
    #[error("`sqlite://` takes a path and nothing else; `?` begins an option")]
    SqliteOption,
    /// The text has a line break or another control character.
    #[error("store URI has the control character {character:?}")]
    Control {
        /// The first one.
        character: char,
    },
    /// The text was copied from somewhere that hides passwords.
    #[error("store URI has `{MASK}` where a password was hidden; put the password there")]
    Masked,
}

const ALLOWED: &str = "sqlite://PATH, mongodb://HOST/DATABASE, memory://";
const SCHEMES: [&str; 4] = ["sqlite", "mongodb", "mongodb+srv", "memory"];
const MASK: &str = "****";

impl StoreUri {
    /// Checks the form of `text`. Whether there is such a store shows when it is opened.
    ///
    /// # Errors
    /// [`StoreUriError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, StoreUriError> {
        let (scheme, rest) = split_scheme(text);
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            return Err(StoreUriError::Control { character });
        }
        if scheme.is_empty() {
            return Err(StoreUriError::NoScheme);
        }
        if !SCHEMES.contains(&scheme) {
            return Err(StoreUriError::UnknownScheme { scheme: shown(scheme) });
        }
        if rest.is_empty() && scheme != "memory" {
            return Err(StoreUriError::Incomplete { scheme: scheme.to_owned() });
        }
        if scheme == "sqlite" && rest.contains('?') {
            return Err(StoreUriError::SqliteOption);
        }
        if scheme != "sqlite" && [":****@", "=****"].iter().any(|masked| rest.contains(masked)) {
            return Err(StoreUriError::Masked);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns what stands before `://`.
    pub fn scheme(&self) -> &str {
        split_scheme(&self.0).0
    }

    /// Returns the whole address with its password, for the code that opens the store.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Default for StoreUri {
    fn default() -> Self {
        Self("sqlite://countem.db".to_owned())
    }
}

impl std::str::FromStr for StoreUri {
    type Err = StoreUriError;

    fn from_str(text: &str) -> Result<Self, StoreUriError> {
        Self::new(text)
    }
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&redact(&self.0))
    }
}

impl fmt::Debug for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact(&self.0), f)
    }
}

#[cfg(feature = "config")]
impl serde::Serialize for StoreUri {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const LONGEST_SHOWN: usize = 100;

/// Returns what may be shown of a text the user wrote: one line, not endless, no password.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = escaped(&redact(text)).take(LONGEST_SHOWN + 1).collect();
    if let Some((at, _)) = shown.char_indices().nth(LONGEST_SHOWN) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// Escapes what would break the line or hide; quotes and backslashes stay, for keys and Windows paths.
pub(crate) fn escaped(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|c| match c {
        '"' | '\'' | '\\' => vec![c],
        _ => c.escape_debug().collect(),
    })
}

/// Replaces what is or may be a password in an address, also in one that is malformed: it rather hides too much.
pub(crate) fn redact(text: &str) -> String {
    let (scheme, rest) = split_scheme(text);
    let start = &text[..text.len() - rest.len()];
    if scheme == "sqlite" {
        return text.to_owned();
    }
    // A password that nobody percent-encoded may itself have `@`, `:`, `/` or `?`, hence the last and the first.
    let mut shown = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{start}{user}:{MASK}@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    if let Some((before, query)) = shown.split_once('?') {
        let pairs: Vec<_> = query.split('&').map(redact_pair).collect();
        shown = format!("{before}?{}", pairs.join("&"));
    }
    shown
}

fn redact_pair(pair: &str) -> String {
    const SECRET: [&str; 4] = ["password", "secret", "token", "authmechanismproperties"];
    match pair.split_once('=') {
        Some((name, _)) if SECRET.iter().any(|word| name.to_lowercase().contains(word)) => {
            format!("{name}={MASK}")
        }
        _ => pair.to_owned(),
    }
}

/// Splits `mongodb://host` into `mongodb` and `host`; the scheme is empty where there is none.
fn split_scheme(text: &str) -> (&str, &str) {
    match text.split_once("://") {
        Some((scheme, rest))
            if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_password_is_replaced_and_the_rest_is_shown() {
        for (uri, shown) in [
            ("mongodb://user:pass@host/", "mongodb://user:****@host/"),
            ("mongodb://user:p@ss:/?w@a:1,b:2/db", "mongodb://user:****@a:1,b:2/db"),
            ("mongodb+srv://user:@host", "mongodb+srv://user:****@host"),
            ("mongodb://user@host:27017/db", "mongodb://user@host:27017/db"),
            ("mongodb://host:27017/db?replicaSet=rs0", "mongodb://host:27017/db?replicaSet=rs0"),
            (
                "mongodb://h/?tlsCertificateKeyFilePassword=x&a=b",
                "mongodb://h/?tlsCertificateKeyFilePassword=****&a=b",
            ),
            ("sqlite://me:1@home/count.db", "sqlite://me:1@home/count.db"),
            ("user:pass@host", "user:****@host"),
            ("user:a://b@host", "user:****@host"),
        ] {
            assert_eq!(redact(uri), shown);
        }
    }

    #[test]
    fn what_is_no_store_is_refused_without_its_password() {
        for (uri, said) in [
            ("countem.db", "store URI does not begin with a scheme"),
            ("user:hunter2@host", "store URI does not begin with a scheme"),
            ("mongo://user:hunter2@host", "unknown kind of store `mongo://`; allowed: sqlite://PATH"),
            ("sqlite://", "store URI `sqlite://` is incomplete"),
            ("mongodb://user:hunter2@\nhost", r"store URI has the control character '\n'"),
            ("sqlite://countem.db?mode=ro", "`sqlite://` takes a path and nothing else"),
            ("mongodb://user:****@host", "store URI has `****` where a password was hidden"),
        ] {
            let error = StoreUri::new(uri).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_password_is_ever_shown(password in "[^\\pC]{0,8}<§>[^\\pC]{0,8}", host in "[a-z.:0-9]{1,12}") {
            let uri = StoreUri::new(&format!("mongodb://anna:{password}@{host}/db?w=1")).unwrap();
            let shown = [uri.to_string(), format!("{uri:?}"), super::shown(uri.expose())];
            prop_assert!(shown.iter().all(|text| !text.contains('§')), "{:?}", shown);
            prop_assert_eq!(&shown[0], &format!("mongodb://anna:****@{host}/db?w=1"));
        }
    }
}
