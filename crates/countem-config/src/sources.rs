//! Sources of a configuration.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The places where [`Config::load`](crate::Config::load) looks for values.
///
/// The default has none: no file, no environment, no flags, as tests and libraries need it; a program begins with
/// [`of_process`](Self::of_process).
#[derive(Clone, Default)]
pub struct Sources {
    pub(crate) file: Option<PathBuf>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) flags: Vec<Flag>,
}

/// One value from the command line.
#[derive(Clone)]
pub(crate) struct Flag {
    /// The flag as the user wrote it, such as `--store`.
    pub(crate) name: String,
    /// The key; none when a text that should have been `section.key=value` has no `=`.
    pub(crate) key: Option<String>,
    pub(crate) value: String,
}

impl Sources {
    /// Reads `countem.toml` in the working directory, if it is there, and the environment of this process.
    pub fn of_process() -> Self {
        Self::default().directory("").environment(std::env::vars_os())
    }

    /// Reads this file, which has to exist, instead of a `countem.toml` found in a directory.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_owned());
        self
    }

    /// Reads `countem.toml` in this directory if it is there and no file is named.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.directory = Some(path.as_ref().to_owned());
        self
    }

    /// Takes the variables that begin with `COUNTEM__`, and `COUNTEM_STORE` for `store.uri`; others are ignored, unless they are keys
    /// with single underscores, which are problems. Variables that Kubernetes sets for services, such as
    /// `COUNTEM_PORT=tcp://10.0.0.7:7070`, are ignored, too.
    ///
    /// `COUNTEM__FLUSH__INTERVAL` is `flush.interval`. The name of a collection is taken as it is:
    /// `COUNTEM__COLLECTIONS__app-events__PERIODS`.
    #[must_use]
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Sets `key`, such as `store.uri`, to the value of the flag `name`, such as `--store`. The last one wins.
    #[must_use]
    pub fn flag(mut self, name: &str, key: &str, value: &str) -> Self {
        self.flags.push(Flag { name: name.to_owned(), key: Some(key.to_owned()), value: value.to_owned() });
        self
    }

    /// Takes the text `section.key=value` of the flag `name`, such as `--set`. The last one wins.
    #[must_use]
    pub fn assignment(mut self, name: &str, text: &str) -> Self {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (Some(key.trim().to_owned()), value.to_owned()),
            None => (None, text.to_owned()),
        };
        self.flags.push(Flag { name: name.to_owned(), key, value });
        self
    }
}
