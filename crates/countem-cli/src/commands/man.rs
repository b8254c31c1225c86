//! `countem man`

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};

use crate::{commands::Cli, exit::Exit};

/// Write the manual pages, for packages
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Man {
    /// Write `countem.1`, `countem-serve.1` and so on into this folder [default: print that of `countem`]
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<Exit> {
        let cli = Cli::command();
        match self.folder {
            Some(folder) => {
                let write = || {
                    fs::create_dir_all(&folder)?;
                    clap_mangen::generate_to(cli, &folder)
                };
                write().with_context(|| format!("cannot write into {}", folder.display()))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(cli).render(&mut page)?;
                io::stdout().write_all(&page)?;
            }
        }
        Ok(Exit::Ok)
    }
}
