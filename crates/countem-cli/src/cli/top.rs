//! `countem top`

use std::{cmp::Reverse, collections::BTreeMap, num::NonZeroUsize};

use anyhow::Result;
use clap::Args;
use countem_core::CollectionName;
use serde::Serialize;

use crate::{
    cli::{bucket::BucketFlags, get},
    exit::{Exit, say_unreadable},
    global::Global,
    output::Listing,
    store::{Effective, Timeout},
};

/// Read the largest counters of a collection
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Top {
    /// The collection
    collection: CollectionName,
    /// Number of counters
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "10", value_parser = number)]
    number: NonZeroUsize,
    #[command(flatten)]
    bucket: BucketFlags,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
Examples:
  countem top web
  countem top pages -n 3 --bucket 2015-05";

/// The largest counters first, as they are in JSON.
#[derive(Debug, Serialize)]
struct Ranking<'a> {
    collection: &'a str,
    bucket: String,
    counters: Vec<Ranked<'a>>,
    /// Counters without a value, which have no rank.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<&'a str, String>,
}

#[derive(Debug, Serialize)]
struct Ranked<'a> {
    metric: &'a str,
    value: i64,
}

fn number(text: &str) -> Result<NonZeroUsize, &'static str> {
    text.parse().map_err(|_| "expected how many counters, 1 or more")
}

impl Top {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let (bucket, counters) = self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let bucket = self.bucket.of(&reader).await?;
            let counters = reader.get_counters(&self.collection, bucket).await?;
            if counters.is_empty() {
                get::require(&reader, &self.collection).await?;
                get::say_nearest(&reader, &self.collection, bucket, global).await?;
            }
            Ok((bucket, counters))
        })?;
        // Counters come sorted by metric, and the sort is stable: equal values stay so.
        let mut ranked: Vec<_> =
            counters.readable().map(|(metric, value)| Ranked { metric, value }).collect();
        ranked.sort_by_key(|counter| Reverse(counter.value));
        ranked.truncate(self.number.get());

        let (collection, bucket) = (self.collection.as_str(), bucket.to_string());
        let mut listing = Listing::new(&["collection", "bucket", "metric", "value"]).hide(2);
        for Ranked { metric, value } in &ranked {
            listing.push([collection.into(), bucket.as_str().into(), (*metric).into(), (*value).into()]);
        }
        for (metric, why) in counters.unreadable() {
            listing.push([collection.into(), bucket.as_str().into(), metric.into(), Err(why).into()]);
        }
        let errors = counters.unreadable().map(|(metric, why)| (metric, why.to_string())).collect();
        listing.print(global.output, &Ranking { collection, bucket, counters: ranked, errors })?;
        Ok(say_unreadable([(collection, &counters)]))
    }
}
