//! `countem token`

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use countem_config::duration;
use countem_server::{Role, Token, Tokens};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::{Listing, say},
};

/// Give out and take back tokens for a server
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    action: Action,
    /// The file of tokens [default: `server.tokens` of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token, and print it; it is kept nowhere else
    New {
        /// Its holder
        name: String,
        /// Its rights: read, write, admin
        #[arg(long = "role", value_delimiter = ',', required = true, value_name = "ROLE")]
        roles: Vec<RoleFlag>,
        /// The collections it is for, each a name or a beginning with `*` [default: all]
        #[arg(long = "collection", value_delimiter = ',', value_name = "PATTERN")]
        collections: Vec<String>,
        /// When it ends, such as 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List the tokens
    List,
    /// Take a token back
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Clone, Copy)]
struct RoleFlag(Role);

impl FromStr for RoleFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = [Role::Read, Role::Write, Role::Admin].into_iter().find(|role| role.name() == text);
        role.map(Self).ok_or_else(|| "expected read, write or admin".to_owned())
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a time such as 12h or 90d".to_owned())
}

const AFTER: &str = "\
Examples:
  countem token new shop --role write --collection 'shop*' --tokens tokens.json
  countem token list --tokens tokens.json
  countem token revoke 1f2e3d4c --tokens tokens.json

A running server reads the file again at SIGHUP. To give a holder another token, make the
new one, hand it over, and then revoke the old one: any number are valid at once.";

#[derive(Debug, Serialize)]
struct Listed<'a> {
    tokens: Vec<&'a Token>,
}

impl TokenCommand {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let path = match self.tokens {
            Some(path) => path,
            None => global.load_config()?.server().tokens.clone().ok_or_else(|| {
                UsageError::new(
                    "name the file of tokens: `--tokens FILE`, or `server.tokens` in the configuration",
                )
            })?,
        };
        let mut tokens = Tokens::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        match self.action {
            Action::New { name, roles, collections, expires } => {
                let now = Timestamp::now();
                let expires = expires.map(|time| now.checked_add(time)).transpose()?;
                let text =
                    tokens.add(&name, roles.iter().map(|role| role.0).collect(), collections, now, expires);
                tokens.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
                println!("{text}");
            }
            Action::List => {
                let mut listing = Listing::new(&["id", "name", "roles", "collections", "created", "expires"]);
                for token in tokens.iter() {
                    let roles: Vec<_> = token.roles.iter().map(|role| role.name()).collect();
                    listing.push([
                        token.id.as_str().into(),
                        token.name.as_str().into(),
                        roles.join(",").as_str().into(),
                        token.collections.join(",").as_str().into(),
                        token.created.to_string().as_str().into(),
                        token.expires.map(|time| time.to_string()).unwrap_or_default().as_str().into(),
                    ]);
                }
                listing.print(global.output, &Listed { tokens: tokens.iter().collect() })?;
            }
            Action::Revoke { id } => {
                if !tokens.remove(&id) {
                    return Err(
                        NotFound::new(format!("there is no token `{id}` in {}", path.display())).into()
                    );
                }
                tokens.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
                if !global.quiet {
                    say(format_args!("countem: revoked; a running server takes it until it gets SIGHUP"));
                }
            }
        }
        Ok(Exit::Ok)
    }
}
