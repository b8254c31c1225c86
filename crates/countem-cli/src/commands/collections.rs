//! `countem collections`

use anyhow::Result;
use clap::Args;
use countem_core::{Bucket, CollectionName};
use countem_query::{ReadError, Reader};
use serde::Serialize;

use crate::{
    exit::{Exit, say_unreadable},
    global::Global,
    output::{Cell, Listing},
    store::{Effective, Timeout},
};

/// List the collections that hold a counter
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Collections {
    /// Show the first and the last bucket, the number of metrics and the sum of all counts. Reads every counter
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
Examples:
  countem collections
  countem collections -l -o json";

/// The names, as they are in JSON.
#[derive(Debug, Serialize)]
struct Names<'a> {
    collections: Vec<&'a str>,
}

/// The same with `--long`.
#[derive(Debug, Serialize)]
struct Details<'a> {
    collections: &'a [Detail],
}

/// One collection. Numbers that cannot be told exactly are `null` and named under `error`.
#[derive(Debug, Serialize)]
struct Detail {
    collection: String,
    first: Option<String>,
    last: Option<String>,
    metrics: Option<i64>,
    total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Collections {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let names = reader.collections().await?;
            if self.long {
                return show_details(&reader, &names, global).await;
            }
            let mut listing = Listing::new(&["collection"]);
            for name in &names {
                listing.push([name.as_str().into()]);
            }
            let collections = names.iter().map(CollectionName::as_str).collect();
            listing.print(global.output, &Names { collections })?;
            Ok(Exit::Ok)
        })
    }
}

async fn show_details(reader: &Reader, names: &[CollectionName], global: &Global) -> Result<Exit> {
    let (mut details, mut exit) = (Vec::new(), Exit::Ok);
    for name in names {
        let (detail, is_exact) = detail(reader, name).await?;
        details.push(detail);
        if !is_exact {
            exit = Exit::Partly;
        }
    }
    let mut listing = Listing::new(&["collection", "first", "last", "metrics", "total"]);
    for detail in &details {
        let text = |bucket: &Option<String>| Cell::Text(bucket.clone().unwrap_or_default());
        let number = |n: Option<i64>| match (n, &detail.error) {
            (Some(n), _) => Cell::Number(n),
            (None, why) => Cell::Error(why.clone().unwrap_or_default()),
        };
        listing.push([
            detail.collection.as_str().into(),
            text(&detail.first),
            text(&detail.last),
            number(detail.metrics),
            number(detail.total),
        ]);
    }
    listing.print(global.output, &Details { collections: &details })?;
    Ok(exit)
}

/// Returns what is known of a collection, and true where that is everything.
async fn detail(reader: &Reader, name: &CollectionName) -> Result<(Detail, bool)> {
    let ends = reader.extent(name).await?;
    let (first, last) = ends.map(|(first, last)| (first.to_string(), last.to_string())).unzip();
    let mut detail =
        Detail { collection: name.to_string(), first, last, metrics: None, total: None, error: None };
    match reader.get_counters(name, Bucket::ALL).await {
        Ok(counters) => {
            detail.metrics = i64::try_from(counters.len()).ok();
            let total = counters.readable().map(|(_, value)| i128::from(value)).sum::<i128>();
            let unreadable = say_unreadable([(name.as_str(), &counters)]);
            match i64::try_from(total) {
                _ if unreadable != Exit::Ok => detail.error = Some("a counter has no exact value".to_owned()),
                Ok(total) => detail.total = Some(total),
                Err(_) => detail.error = Some(format!("the sum {total} exceeds 64 bits")),
            }
        }
        Err(
            error @ (ReadError::Expired { .. }
            | ReadError::NotStored { .. }
            | ReadError::PeriodsChanged { .. }
            | ReadError::ZoneChanged { .. }),
        ) => detail.error = Some(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    let is_exact = detail.error.is_none();
    Ok((detail, is_exact))
}
