//! `countem delete`

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use clap::Args;
use countem_core::{CollectionName, MetricName};
use countem_engine::Correction;
use countem_query::TimeRange;

use crate::{
    commands::correction::CorrectionFlags,
    exit::{Exit, UsageError},
    global::Global,
    output::shown,
};

/// Remove counts for good
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Delete {
    /// The collection
    collection: CollectionName,
    /// The metrics
    #[arg(value_name = "METRIC", required_unless_present = "all", conflicts_with = "all")]
    metrics: Vec<MetricName>,
    /// All metrics of the collection
    #[arg(long)]
    all: bool,
    /// Only the counts of this range of time, such as 2015-05, 30d or 2015-05-01..2015-05-17
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<TimeRange>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: CorrectionFlags,
}

const AFTER: &str = "\
Everything is removed or nothing, also if this command is killed: the next one that reads
the store finishes it. Counts that services add meanwhile, or have not flushed yet, come
anew. Coarser buckets lose what is removed from their parts.

Examples:
  countem delete web 'GET /wp-login' --reason 'bots' --yes
  countem delete web --all --range 2015-05-17 --reason 'test traffic' --yes
  countem delete web --all --dry-run";

impl Delete {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { collection, metrics, all, range, yes, flags } = self;
        if !yes && !flags.is_dry_run() {
            confirm(&collection, if all { None } else { Some(&metrics) }, range)?;
        }
        let metrics = if all { None } else { Some(metrics) };
        flags.run(global, async |_, _, _| Ok(Correction::Delete { collection, metrics, range }))
    }
}

/// Asks on a terminal.
///
/// # Errors
/// A [`UsageError`]: the answer is no, or there is no terminal.
fn confirm(
    collection: &CollectionName,
    metrics: Option<&[MetricName]>,
    range: Option<TimeRange>,
) -> Result<()> {
    let what = match metrics {
        None => "all counts".to_owned(),
        Some([metric]) => format!("the counts of `{metric}`"),
        Some(metrics) => format!("the counts of {} metrics", metrics.len()),
    };
    let within = range.map_or_else(|| "of all time".to_owned(), |range| format!("in {range}"));
    if !io::stdin().is_terminal() {
        let why = format!(
            "{what} of `{collection}` {within} would be removed for good: add `--yes` if that is meant"
        );
        return Err(UsageError::new(why).into());
    }
    let question = format!("Remove {what} of `{collection}` {within} for good? [y/N] ");
    write!(io::stderr(), "{}", shown(&question))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(UsageError::new("nothing was removed").into()),
    }
}
