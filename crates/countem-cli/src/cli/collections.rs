//! `countem collections`

use anyhow::Result;
use clap::Args;
use countem_core::CollectionName;
use serde::Serialize;

use crate::{
    exit::Exit,
    global::Global,
    output::Listing,
    store::{Effective, Timeout},
};

/// List the collections that hold a counter
#[derive(Debug, Args)]
pub(crate) struct Collections {
    #[command(flatten)]
    timeout: Timeout,
}

/// The names, as they are in JSON.
#[derive(Debug, Serialize)]
struct Names<'a> {
    collections: Vec<&'a str>,
}

impl Collections {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let names =
            self.timeout.block_on(async { Ok(effective.open_reader().await?.collections().await?) })?;
        let mut listing = Listing::new(&["collection"]);
        for name in &names {
            listing.push([name.as_str().into()]);
        }
        listing.print(
            global.output,
            &Names { collections: names.iter().map(CollectionName::as_str).collect() },
        )?;
        Ok(Exit::Ok)
    }
}
