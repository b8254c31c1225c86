//! Problems of a configuration, in words a user can act on.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use countem_store_uri::{escaped, shown};

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Not set.
    Default,
    /// This file.
    File(PathBuf),
    /// The environment variable of this name.
    Variable(String),
    /// The flag of this name.
    Flag(String),
}

/// One problem of a configuration. Displays as one line, without passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    key: Option<String>,
    origin: Origin,
    text: String,
}

/// Every problem of a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// Returns the problems: first the file, then the environment, then the flags. There is at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    pub(crate) fn of_key(key: &str, origin: &Origin, text: String) -> Self {
        Self { key: Some(shown(key)), origin: origin.clone(), text }
    }

    pub(crate) fn of_layer(origin: &Origin, text: String) -> Self {
        Self { key: None, origin: origin.clone(), text }
    }

    /// Returns the key as it was written, such as `flush.interval`; none where the layer as a whole is wrong.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the origin of the value, or the layer, that has the problem.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => f.write_str(&shown_path(path)),
            Self::Variable(name) => write!(f, "environment variable `{}`", shown(name)),
            Self::Flag(name) => write!(f, "flag `{}`", shown(name)),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Returns a path as a message may repeat it: on one line, and as a whole.
pub(crate) fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy()).collect()
}
