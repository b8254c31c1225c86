//! `countem correct`

use anyhow::Result;
use clap::Args;
use countem_core::{CollectionName, MetricName};
use countem_engine::Correction;
use countem_query::Reader;

use crate::{
    commands::{bucket::BucketFlags, correction::CorrectionFlags, whole_number},
    exit::Exit,
    global::Global,
};

/// Add to a stored counter, or set it to a value
#[derive(Debug, Args)]
#[command(after_help = AFTER, group = clap::ArgGroup::new("amount").required(true))]
pub(crate) struct Correct {
    /// The collection
    collection: CollectionName,
    /// The metric
    metric: MetricName,
    /// The amount to add, which may be negative
    #[arg(long, value_name = "N", group = "amount", allow_negative_numbers = true, value_parser = whole_number)]
    add: Option<i64>,
    /// The value of the counter afterwards; counts that are added meanwhile come on top
    #[arg(long, value_name = "VALUE", group = "amount", allow_negative_numbers = true, value_parser = whole_number)]
    to: Option<i64>,
    #[command(flatten)]
    bucket: BucketFlags,
    #[command(flatten)]
    flags: CorrectionFlags,
}

const AFTER: &str = "\
The difference is counted at the beginning of the bucket, now for one that is not over,
in all stored periods that contain that moment. Correct a day to correct its month.

Examples:
  countem correct web 'GET 200' --to 1632 --date 2015-05-17 --reason 'log counted twice'
  countem correct stock apples --add -5 --reason 'recount' --author ann
  countem correct web visits --to 0 --date yesterday --dry-run";

impl Correct {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { collection, metric, add, to, bucket, flags } = self;
        flags.run(global, async |store, effective, _| {
            let bucket = bucket.of(&Reader::of_store(store, effective.schedules.clone())).await?;
            Ok(match (add, to) {
                (Some(n), _) => Correction::Add { collection, metric, bucket, n },
                (None, value) => {
                    Correction::Set { collection, metric, bucket, value: value.unwrap_or_default() }
                }
            })
        })
    }
}
