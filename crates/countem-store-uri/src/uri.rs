//! Addresses of stores. They may hold a password, which is never shown.

use std::fmt;

use self::remote::{OPTIONS, Remote};
use crate::redact::{MASK, redact, shown, split_scheme};

mod remote;

/// Address of a store: `sqlite://PATH`, `mongodb://HOST/DATABASE`, `countem://HOST` or `memory://`.
///
/// `Display` and `Debug` show `****` instead of a password or token; only [`expose`](Self::expose) returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUri(String);

/// A text that is not the address of a store. Displays without passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUriError {
    /// The text does not begin with `SCHEME://`.
    #[error("store URI does not begin with a scheme{hint}; allowed: {ALLOWED}")]
    NoScheme {
        /// Text that names the address that was probably meant.
        hint: String,
    },
    /// There is no store of this scheme.
    #[error("unknown kind of store `{scheme}://`{hint}; allowed: {ALLOWED}")]
    UnknownScheme {
        /// The scheme as it was written.
        scheme: String,
        /// Text that names the address that was probably meant.
        hint: String,
    },
    /// Nothing follows the scheme.
    #[error("store URI `{scheme}://` is incomplete; allowed: {ALLOWED}")]
    Incomplete {
        /// The scheme.
        scheme: String,
    },
    /// A port is none.
    #[error("store URI has the port {port}; allowed: 1 to 65535")]
    Port {
        /// The digits.
        port: String,
    },
    /// The host of another countem is none.
    #[error(
        "`{host}` is no host of a countem; expected `countem://HOST` or `countem://HOST:PORT`, without a path"
    )]
    Host {
        /// The text in the place of the host.
        host: String,
    },
    /// The token before the host of another countem is none.
    #[error("what stands before `@` in the store URI is no token")]
    Token,
    /// An option of the address of another countem is none, or lacks another one.
    #[error("option of the store URI: {0}; allowed: {OPTIONS}")]
    RemoteOption(String),
    /// Something follows the path of a SQLite file, as in other programs' URIs.
    #[error("`sqlite://` takes a path and nothing else; `?` begins an option")]
    SqliteOption,
    /// SQLite's own name of a database in memory, which would be a file here.
    #[error("`{0}` is no file; `memory://` counts in memory")]
    InMemory(String),
    /// The text has a line break or another control character.
    #[error("store URI has the control character {character:?}")]
    Control {
        /// The first one.
        character: char,
    },
    /// The text is the redacted form of an address.
    #[error("store URI has `{MASK}` where a password was hidden; put the password there")]
    Masked,
}

const ALLOWED: &str = "sqlite://PATH, mongodb://HOST/DATABASE, countem://HOST, memory://";
const SCHEMES: [&str; 5] = ["sqlite", "mongodb", "mongodb+srv", "countem", "memory"];

impl StoreUri {
    /// Checks the form of `text`. The store itself is not touched before it is opened.
    ///
    /// # Errors
    /// [`StoreUriError`]: no scheme, an unknown one, nothing after it, or a masked password.
    pub fn new(text: &str) -> Result<Self, StoreUriError> {
        let (scheme, rest) = split_scheme(text);
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            return Err(StoreUriError::Control { character });
        }
        if scheme.is_empty() {
            // With an `@` it may be an address with a password.
            let is_path = !text.is_empty() && !text.contains('@');
            let hint = match is_path {
                true => format!(
                    "; did you mean `sqlite://{}`?",
                    shown(text.strip_prefix("sqlite:").unwrap_or(text))
                ),
                false => String::new(),
            };
            return Err(StoreUriError::NoScheme { hint });
        }
        if !SCHEMES.contains(&scheme) {
            return Err(StoreUriError::UnknownScheme {
                scheme: shown(scheme),
                hint: hint_of_http(scheme, rest),
            });
        }
        if rest.is_empty() && scheme != "memory" {
            return Err(StoreUriError::Incomplete { scheme: scheme.to_owned() });
        }
        if scheme == "sqlite" && rest.starts_with(":memory:") {
            return Err(StoreUriError::InMemory(shown(text)));
        }
        if scheme == "sqlite" && rest.contains('?') {
            return Err(StoreUriError::SqliteOption);
        }
        if scheme != "sqlite" && [":****@", "=****"].iter().any(|masked| rest.contains(masked))
            || scheme == "countem" && rest.starts_with("****@")
        {
            return Err(StoreUriError::Masked);
        }
        if scheme == "countem" {
            Remote::parse(rest)?;
        }
        if scheme != "sqlite"
            && let Some(port) = wrong_port(rest)
        {
            return Err(StoreUriError::Port { port: port.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns what stands before `://`.
    pub fn scheme(&self) -> &str {
        split_scheme(&self.0).0
    }

    /// Returns the parts of the address of another countem.
    #[cfg(feature = "remote")]
    pub(crate) fn remote(&self) -> Result<Remote, StoreUriError> {
        Remote::parse(split_scheme(&self.0).1)
    }

    /// Returns the whole address with its password, for the code that opens the store.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Returns a hint for the address of another countem as browsers have it, which may hold a token.
fn hint_of_http(scheme: &str, rest: &str) -> String {
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let tls = match scheme {
        "http" => "",
        "https" => "?tls=true",
        _ => return String::new(),
    };
    match Remote::parse(host) {
        Ok(_) if !rest.contains('@') => format!("; did you mean `countem://{host}{tls}`?"),
        _ => format!("; did you mean `countem://HOST{tls}`?"),
    }
}

/// Returns the digits after a host that are no port. Digits that may be those of a password are not looked at.
fn wrong_port(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = match authority.rsplit_once('@') {
        Some((_, hosts)) => hosts,
        None if rest.contains('@') => return None,
        None => authority,
    };
    let mut ports = hosts.split(',').filter_map(|host| Some(host.rsplit_once(':')?.1));
    ports.find(|port| {
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        is_number && !port.parse::<u16>().is_ok_and(|port| port > 0)
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_uri_is_refused_without_its_password() {
        for (uri, said) in [
            (
                "countem.db",
                "store URI does not begin with a scheme; did you mean `sqlite://countem.db`?; allowed: ",
            ),
            ("sqlite://:memory:", "`sqlite://:memory:` is no file; `memory://` counts in memory"),
            ("user:hunter2@host", "store URI does not begin with a scheme"),
            ("mongo://user:hunter2@host", "unknown kind of store `mongo://`; allowed: sqlite://PATH"),
            ("sqlite://", "store URI `sqlite://` is incomplete"),
            ("mongodb://user:hunter2@\nhost", r"store URI has the control character '\n'"),
            ("sqlite://countem.db?mode=ro", "`sqlite://` takes a path and nothing else"),
            ("sqlite:bad.db", "store URI does not begin with a scheme; did you mean `sqlite://bad.db`?; "),
            ("mongodb://user:hunter2@a:1,b:99999/x", "store URI has the port 99999; allowed: 1 to 65535"),
            ("mongodb://user:****@host", "store URI has `****` where a password was hidden"),
            ("countem://****@host", "store URI has `****` where a password was hidden"),
            ("countem://hunter2@host:0", "`host:0` is no host of a countem"),
            (
                "countem://hunter2@host?tls=maybe",
                "option of the store URI: `tls` is not understood; allowed: tls=true",
            ),
            (
                "countem://h/web",
                "`h/web` is no host of a countem; expected `countem://HOST` or `countem://HOST:PORT`",
            ),
            (
                "http://localhost:7070/api",
                "unknown kind of store `http://`; did you mean `countem://localhost:7070`?",
            ),
            (
                "https://c.example",
                "unknown kind of store `https://`; did you mean `countem://c.example?tls=true`?",
            ),
            ("http://hunter2@host", "unknown kind of store `http://`; did you mean `countem://HOST`?"),
        ] {
            let error = StoreUri::new(uri).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn password_is_never_shown(password in "[^\\pC]{0,8}<§>[^\\pC]{0,8}", host in "[a-z.]{1,12}(:[1-9][0-9]{0,3})?") {
            let uri = StoreUri::new(&format!("mongodb://anna:{password}@{host}/db?w=1")).unwrap();
            let shown = [uri.to_string(), format!("{uri:?}"), shown(uri.expose())];
            prop_assert!(shown.iter().all(|text| !text.contains('§')), "{:?}", shown);
            prop_assert_eq!(&shown[0], &format!("mongodb://anna:****@{host}/db?w=1"));
            let hidden = [format!("countem://{password}@{host}"), format!("http://{password}@{host}")].map(|uri| {
                let error = StoreUri::new(&uri).map_or_else(|error| error.to_string(), |uri| uri.to_string());
                error + &crate::redact::shown(&uri)
            });
            prop_assert!(hidden.iter().all(|text| !text.contains('§')), "{:?}", hidden);
        }
    }
}
