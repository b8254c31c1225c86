//! `countem completions`

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{commands::Cli, exit::Exit};

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

const AFTER: &str = "\
Examples:
  countem completions bash > ~/.local/share/bash-completion/completions/countem
  countem completions fish > ~/.config/fish/completions/countem.fish";

impl Completions {
    pub(super) fn run(self) -> Result<Exit> {
        // Written at once: closed output is then an error, where the generator would panic.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "countem", &mut script);
        io::stdout().write_all(&script)?;
        Ok(Exit::Ok)
    }
}
