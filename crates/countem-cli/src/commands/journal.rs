//! The journal that a command works on.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use countem_journal::{ErrorKind, Journal, JournalConfig, JournalError, JournalReader, Recovered};

use crate::{exit::NotFound, store::Effective};

/// The flag `--journal`.
#[derive(Debug, Args)]
pub(crate) struct JournalFlag {
    /// The directory of the journal [default: the configured `durability.dir`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
}

impl JournalFlag {
    /// Returns the directory.
    pub(crate) fn dir<'a>(&'a self, effective: &'a Effective) -> &'a Path {
        self.journal.as_deref().unwrap_or(&effective.config.durability().dir)
    }

    /// Returns the configuration of the journal.
    pub(crate) fn config(&self, effective: &Effective) -> JournalConfig {
        let configured = effective.config.durability().to_journal_config();
        JournalConfig { dir: self.dir(effective).to_owned(), lanes: effective.engine.lanes, ..configured }
    }

    /// Opens the journal for reading, also while another process uses it.
    ///
    /// # Errors
    /// [`NotFound`] when there is none; else the error of the journal.
    pub(crate) fn read(&self, effective: &Effective) -> Result<JournalReader> {
        let dir = self.dir(effective);
        if !exists(dir) {
            let advice = "name its directory with `--journal`";
            return Err(NotFound::new(format!("there is no journal in `{}`: {advice}", dir.display())).into());
        }
        Ok(JournalReader::open(dir)?)
    }

    /// Opens the journal for writing; never creates one.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when another process uses it.
    pub(crate) fn open(&self, effective: &Effective, config: JournalConfig) -> Result<(Journal, Recovered)> {
        drop(self.read(effective)?);
        Journal::open(config).map_err(|error: JournalError| match error.kind() {
            ErrorKind::Locked => {
                anyhow::Error::new(error).context("the process that counts has to be stopped first")
            }
            _ => error.into(),
        })
    }
}

/// Returns whether there is a journal in `dir`.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join("journal.db").exists()
}
