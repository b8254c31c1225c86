//! Flags that select metrics and group them.

use std::num::NonZeroUsize;

use anyhow::Result;
use clap::Args;
use countem_config::Config;
use countem_core::CollectionName;
use countem_query::{Compare, Group, LabelFilter, Metrics, Order, Query};

use crate::{commands::count, exit::UsageError, output::say};

/// Flags that select the metrics of a query, and say how they are added up.
#[derive(Debug, Args)]
pub(crate) struct SelectFlags {
    /// Only metrics of this name; `*` is any text, `?` any character
    metric: Option<String>,
    /// Only metrics whose name matches a regular expression as a whole
    #[arg(long, value_name = "REGEX", conflicts_with = "metric")]
    matching: Option<String>,
    /// Only the metric of this name and those below it in the hierarchy
    #[arg(long, value_name = "METRIC", conflicts_with_all = ["metric", "matching"])]
    under: Option<String>,
    /// Only metrics with such a label: country=DE, country!=DE, country=~D.|FR or country!~D.*; an absent label is empty
    #[arg(long = "where", value_name = "CONDITION")]
    labels: Vec<LabelFilter>,
    /// Add up metrics that have the same value of a label
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    by: Vec<String>,
    /// Add up metrics whose names have the same first levels
    #[arg(long, value_name = "NUMBER", conflicts_with = "by", value_parser = count)]
    level: Option<NonZeroUsize>,
    /// Text between two levels of a hierarchy [default: `collections.NAME.hierarchy` of the configuration, or else a dot]
    #[arg(long, value_name = "TEXT")]
    separator: Option<String>,
    /// Add up all selected metrics
    #[arg(long, conflicts_with_all = ["by", "level"])]
    sum: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Earlier {
    /// The range of as many days, weeks, months or years before
    Previous,
    /// The latest range before that begins on the same weekday
    Weekdays,
}

/// Order of rows.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum OrderFlag {
    /// The largest value first
    Value,
    /// Names in byte order
    Name,
    /// The largest change first; needs --compare
    Change,
}

impl SelectFlags {
    /// Returns the query for today. Unless `quiet`, says which separator of the configuration it uses.
    ///
    /// # Errors
    /// A [`UsageError`]: the regular expression cannot be used.
    pub(crate) fn query(&self, collection: &CollectionName, config: &Config, quiet: bool) -> Result<Query> {
        let separator = self.separator(collection, config, quiet);
        let mut query = Query::of([collection.clone()]);
        if let Some(name) = &self.metric {
            query = query.matching(name);
        }
        if let Some(pattern) = &self.matching {
            let metrics = Metrics::regex(pattern).map_err(|error| UsageError::new(error.to_string()))?;
            query = query.metrics(metrics);
        }
        if let Some(parent) = &self.under {
            query = query.metrics(Metrics::under(parent, separator));
        }
        for label in &self.labels {
            query = query.label(label.clone());
        }
        if let Some(group) = self.group(separator) {
            query = query.group(group);
        }
        Ok(query)
    }

    fn separator<'a>(&'a self, collection: &CollectionName, config: &'a Config, quiet: bool) -> &'a str {
        match (&self.separator, config.hierarchy(collection)) {
            (Some(separator), _) => separator,
            (None, None) => ".",
            (None, Some(separator)) => {
                if !quiet && (self.level.is_some() || self.under.is_some()) {
                    let key = format!("collections.{collection}.hierarchy");
                    say(format_args!("countem: levels are separated by `{separator}` (`{key}`)"));
                }
                separator
            }
        }
    }

    fn group(&self, separator: &str) -> Option<Group> {
        match (self.level, &self.by[..]) {
            (Some(depth), _) => Some(Group::Level { separator: separator.to_owned(), depth: depth.get() }),
            (None, []) => self.sum.then_some(Group::All),
            (None, keys) => Some(Group::Labels(keys.to_vec())),
        }
    }

    /// Returns true if not all metrics of the collection are selected.
    pub(crate) fn is_selective(&self) -> bool {
        self.metric.is_some() || self.matching.is_some() || self.under.is_some() || !self.labels.is_empty()
    }

    /// Returns the labels that are the columns of the rows, empty where each row is a metric.
    pub(crate) fn labels(&self) -> &[String] {
        &self.by
    }
}

impl From<Earlier> for Compare {
    fn from(earlier: Earlier) -> Self {
        match earlier {
            Earlier::Previous => Self::Previous,
            Earlier::Weekdays => Self::Weekdays,
        }
    }
}

impl From<OrderFlag> for Order {
    fn from(order: OrderFlag) -> Self {
        match order {
            OrderFlag::Value => Self::Value,
            OrderFlag::Name => Self::Name,
            OrderFlag::Change => Self::Change,
        }
    }
}
