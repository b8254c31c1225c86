//! `countem get`

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use countem_config::similar;
use countem_core::{Bucket, CollectionName, MetricName};
use countem_query::{Counters, ReadError, Reader};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::{
    commands::bucket::{BucketFlags, require_existence},
    exit::{Exit, NotFound, say_unreadable},
    global::Global,
    output::{Format, JsonCounters, Listing, say},
    store::{Effective, Timeout},
};

/// Read the counters of a collection
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Get {
    /// The collection
    collection: CollectionName,
    /// One metric instead of all; a table is then just its value
    metric: Option<MetricName>,
    #[command(flatten)]
    bucket: BucketFlags,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
Examples:
  countem get web
  countem get web 'GET 200' --date 2015-05-17
  countem get web --bucket 2015-05 -o json

A counter whose sum exceeds 64 bits, or whose stored value is no whole number, is
shown with an error in place of its value (in JSON under `errors`). The others are
printed, and the exit code is 6.";

/// The counters of one bucket, as they are in JSON.
#[derive(Debug, Serialize)]
struct Got<'a> {
    collection: &'a str,
    bucket: String,
    #[serde(flatten)]
    counters: JsonCounters<'a>,
}

impl Get {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let bucket = self.bucket.of(&reader).await?;
            let counters = self.read(&reader, bucket).await?;
            if counters.is_empty() {
                let schedules = reader.schedules().await?;
                require_existence(bucket, schedules.zone(bucket.start_instant(&TimeZone::UTC)))?;
                say_nearest(&reader, &self.collection, bucket, global).await?;
            }
            self.print(global.output, bucket, &counters)?;
            Ok(say_unreadable([(self.collection.as_str(), &counters)]))
        })
    }

    async fn read(&self, reader: &Reader, bucket: Bucket) -> Result<Counters> {
        let Self { collection, metric, .. } = self;
        let counters = match metric {
            None => reader.get_counters(collection, bucket).await?,
            Some(metric) => {
                let value = match reader.get(collection, metric, bucket).await {
                    Ok(value) => value.map(Ok),
                    Err(ReadError::Unreadable { why, .. }) => Some(Err(why)),
                    Err(error) => return Err(error.into()),
                };
                value.map(|value| (metric.to_string(), value)).into_iter().collect()
            }
        };
        if counters.is_empty() {
            require(reader, collection).await?;
        }
        if let Some(metric) = metric.as_ref().filter(|_| counters.is_empty()) {
            let others = reader.get_counters(collection, bucket).await?;
            let near = similar(metric.as_str(), others.metrics());
            return Err(not_found(
                &format!("`{metric}` was not counted in `{collection}` on {bucket}"),
                near,
            )
            .into());
        }
        Ok(counters)
    }

    fn print(&self, format: Format, bucket: Bucket, counters: &Counters) -> Result<()> {
        if let (Format::Table, Some(_)) = (format, &self.metric) {
            // The bare value, for scripts.
            return Ok(counters.readable().try_for_each(|(_, value)| writeln!(io::stdout(), "{value}"))?);
        }
        let (collection, bucket) = (self.collection.as_str(), bucket.to_string());
        let mut listing = Listing::new(&["collection", "bucket", "metric", "value"]).hide(2);
        for (metric, value) in counters {
            listing.push([collection.into(), bucket.as_str().into(), metric.into(), value.into()]);
        }
        listing.print(format, &Got { collection, bucket, counters: counters.into() })
    }
}

/// Says that `bucket` holds no counter, and which is the nearest one that does.
pub(super) async fn say_nearest(
    reader: &Reader,
    collection: &CollectionName,
    bucket: Bucket,
    global: &Global,
) -> Result<()> {
    if !global.quiet {
        let near = reader.nearest(collection, bucket).await?;
        let near = near.map(|near| format!("; the nearest is {near}")).unwrap_or_default();
        say(format_args!("nothing was counted in `{collection}` on {bucket}{near}"));
    }
    Ok(())
}

/// Checks that `collection` holds a counter.
///
/// # Errors
/// [`NotFound`], with the most similar name.
pub(super) async fn require(reader: &Reader, collection: &CollectionName) -> Result<()> {
    let known = reader.collections().await?;
    if known.contains(collection) {
        return Ok(());
    }
    let near = similar(collection.as_str(), known.iter().map(CollectionName::as_str));
    Err(not_found(&format!("there is no collection `{collection}`"), near).into())
}

fn not_found(what: &str, near: Option<&str>) -> NotFound {
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    NotFound::new(format!("{what}{hint}"))
}
