//! Tokens: secrets that are given out, of which only hashes are kept.
//!
//! A token is `countem_<id>_<secret>`. The secret has 256 random bits, so its plain SHA-256 tells nothing about it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use countem::Timestamp;
use rand::{RngCore as _, TryRngCore as _, rngs::OsRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read counters.
    Read,
    /// Count.
    Write,
    /// Correct and operate; includes the other two.
    Admin,
}

impl Role {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names the token, also in its text.
    pub id: String,
    /// Its holder, for people.
    pub name: String,
    /// Its rights.
    pub roles: Vec<Role>,
    /// The collections it is for, each a name or a beginning with `*`; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<String>,
    /// When it was made.
    #[serde(with = "as_text")]
    pub created: Timestamp,
    /// When it ends, `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text::optional")]
    pub expires: Option<Timestamp>,
    /// SHA-256 of the secret, in hexadecimal digits.
    sha256: String,
}

impl Token {
    /// Tells whether the token has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.iter().any(|own| *own == role || *own == Role::Admin)
    }

    /// Tells whether the token is for a collection.
    pub fn covers(&self, collection: &str) -> bool {
        let is_covered = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => collection.starts_with(beginning),
            None => pattern == collection,
        };
        self.covers_all() || self.collections.iter().any(is_covered)
    }

    /// Tells whether the token is for every collection.
    pub fn covers_all(&self) -> bool {
        self.collections.is_empty()
    }
}

/// The tokens of a file, by id.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    tokens: BTreeMap<String, Arc<Token>>,
}

/// The form of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tokens: Vec<Token>,
}

impl Tokens {
    /// Reads a file; one that does not exist has no token.
    ///
    /// # Errors
    /// The file cannot be read, or is not one of tokens.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let written: Written = serde_json::from_str(&text).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it is no file of tokens: {error}"))
        })?;
        Ok(Self {
            tokens: written.tokens.into_iter().map(|token| (token.id.clone(), Arc::new(token))).collect(),
        })
    }

    /// Writes the file anew, readable by its owner alone.
    ///
    /// # Errors
    /// The file cannot be written; the former one stays.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let written = Written { tokens: self.tokens.values().map(|token| (**token).clone()).collect() };
        let text = serde_json::to_string_pretty(&written)? + "\n";
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // A leftover of a process that was killed here.
        fs::remove_file(&beside).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// Makes a token, and returns its text, which is nowhere else.
    pub fn add(
        &mut self,
        name: &str,
        roles: Vec<Role>,
        collections: Vec<String>,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> String {
        let id = loop {
            let id = random_hex::<4>();
            if !self.tokens.contains_key(&id) {
                break id;
            }
        };
        let secret = random_hex::<32>();
        let sha256 = hash(&secret);
        let token = Token {
            id: id.clone(),
            name: name.to_owned(),
            roles,
            collections,
            created: now,
            expires,
            sha256,
        };
        self.tokens.insert(id.clone(), Arc::new(token));
        format!("countem_{id}_{secret}")
    }

    /// Removes a token, and tells whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        self.tokens.remove(id).is_some()
    }

    /// Lists the tokens by id.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values().map(|token| &**token)
    }

    /// Returns true if there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Finds the token of a text. Takes the same time for every wrong secret of an id.
    ///
    /// # Errors
    /// The text is no token of these, or has expired.
    pub(crate) fn find(&self, text: &str, now: Timestamp) -> Result<Arc<Token>, &'static str> {
        const WRONG: &str = "the token is not valid";
        let parts = text.strip_prefix("countem_").and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or(WRONG)?;
        let token = self.tokens.get(id).ok_or(WRONG)?;
        if !bool::from(hash(secret).as_bytes().ct_eq(token.sha256.as_bytes())) {
            return Err(WRONG);
        }
        match token.expires {
            Some(expires) if expires <= now => Err("the token has expired"),
            _ => Ok(Arc::clone(token)),
        }
    }
}

/// Times as RFC 3339 text.
mod as_text {
    use countem::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use super::{Deserializer, Serializer, Timestamp};

        #[expect(clippy::ref_option, reason = "serde passes a reference")]
        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    OsRng.unwrap_err().fill_bytes(&mut bytes);
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn token_is_found_until_it_ends() {
        let mut tokens = Tokens::default();
        let text = tokens.add(
            "shop",
            vec![Role::Write],
            vec!["shop".to_owned(), "web-*".to_owned()],
            at(0),
            Some(at(10)),
        );
        let token = tokens.find(&text, at(9)).unwrap();
        assert!(token.has(Role::Write) && !token.has(Role::Read));
        assert!(token.covers("shop") && token.covers("web-de") && !token.covers("shops"));
        assert!(tokens.find(&text, at(10)).is_err());
        assert!(tokens.find(&format!("{text}0"), at(9)).is_err());
        assert!(tokens.find("countem_00000000_", at(9)).is_err());
        assert!(tokens.remove(&token.id) && tokens.find(&text, at(9)).is_err());
    }

    #[test]
    fn file_keeps_tokens_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let mut tokens = Tokens::read(&path).unwrap();
        let text = tokens.add("a", vec![Role::Admin], Vec::new(), at(0), None);
        tokens.write(&path).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert!(!written.contains(text.rsplit_once('_').unwrap().1));
        assert!(Tokens::read(&path).unwrap().find(&text, at(1)).unwrap().has(Role::Read));
        fs::write(&path, "{}").unwrap();
        assert!(Tokens::read(&path).is_err());
    }
}
