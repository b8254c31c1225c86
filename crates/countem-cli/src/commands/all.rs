//! `countem all`

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use countem_core::{Bucket, CollectionName};
use countem_query::Counters;
use serde::Serialize;

use crate::{
    commands::bucket::BucketFlags,
    exit::{Exit, say_unreadable},
    global::Global,
    output::{Format, Listing, say},
    store::{Effective, Timeout},
};

/// Read the counters of every collection
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct All {
    #[command(flatten)]
    bucket: BucketFlags,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
Examples:
  countem all
  countem all --date 2015-05-17 -o json";

/// The counters of one bucket, as they are in JSON.
#[derive(Debug, Serialize)]
struct Everything<'a> {
    bucket: String,
    collections: BTreeMap<&'a str, BTreeMap<&'a str, i64>>,
    /// By collection and metric.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<&'a str, BTreeMap<&'a str, String>>,
}

impl<'a> Everything<'a> {
    fn new(bucket: String, all: &'a BTreeMap<CollectionName, Counters>) -> Self {
        let collections = all.iter().map(|(name, counters)| (name.as_str(), counters.readable().collect()));
        let errors = all.iter().map(|(name, counters)| {
            let errors = counters.unreadable().map(|(metric, why)| (metric, why.to_string()));
            (name.as_str(), BTreeMap::from_iter(errors))
        });
        let errors = errors.filter(|(_, errors)| !errors.is_empty()).collect();
        Self { bucket, collections: collections.collect(), errors }
    }
}

impl All {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let (bucket, all) = self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let bucket = self.bucket.of(&reader).await?;
            Ok((bucket, reader.get_all_counters(bucket).await?))
        })?;
        if all.is_empty() && !global.quiet {
            say(format_args!("nothing was counted on {bucket}"));
        }
        print(bucket, &all, global.output)
    }
}

/// Prints the counters of one bucket by collection.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(
    bucket: Bucket,
    all: &BTreeMap<CollectionName, Counters>,
    output: Format,
) -> Result<Exit> {
    let bucket = bucket.to_string();
    let mut listing = Listing::new(&["bucket", "collection", "metric", "value"]).hide(1);
    for (collection, counters) in all {
        for (metric, value) in counters {
            let collection = collection.as_str().into();
            listing.push([bucket.as_str().into(), collection, metric.into(), value.into()]);
        }
    }
    listing.print(output, &Everything::new(bucket, all))?;
    Ok(say_unreadable(all.iter().map(|(name, counters)| (name.as_str(), counters))))
}
