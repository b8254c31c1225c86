//! `countem inc`

use anyhow::{Context, Result};
use clap::Args;
use countem_core::{CollectionName, Labelled, MetricName, Schedule, Table};
use countem_lines::{TimeFormat, Times};
use countem_query::Day;
use countem_store::{ErrorKind, StoreError};
use jiff::{Timestamp, tz::TimeZone};
use tokio::time::{Instant, timeout_at};

use crate::{
    commands::{
        bucket::{day_bucket, require_existence},
        whole_number,
    },
    exit::{Exit, UsageError},
    global::Global,
    ingest::delivery::{Counts, Delivery},
    output::say,
    store::{ChangeSchedule, Effective, Timeout},
};

/// Add to one counter
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Inc {
    /// The collection
    collection: CollectionName,
    /// The metric
    metric: MetricName,
    /// The amount to add, which may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true, value_parser = whole_number)]
    n: i64,
    /// Give the metric this label; more than one may be given, in any order
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Count on this day instead of now, as in 2015-05-17, today, yesterday or -7d
    #[arg(long, value_name = "DAY", allow_hyphen_values = true)]
    date: Option<Day>,
    /// Count at this time instead of now: RFC 3339, or a number since 1970 whose digits tell seconds, milliseconds, microseconds or
    /// nanoseconds; without an offset in the zone of the store
    #[arg(long, visible_alias = "at", value_name = "TIME", conflicts_with = "date")]
    time: Option<String>,
    #[command(flatten)]
    change: ChangeSchedule,
    #[command(flatten)]
    timeout: Timeout,
}

const IN_DOUBT: &str = "it may be stored or not: look before you count it again";

const AFTER: &str = "\
The command returns when the store has the count. It counts on past days and until
tomorrow: `time.past_window` and `time.future_window` bind services alone.

Examples:
  countem inc app-events MyMethod.calls
  countem inc stock apples -5
  countem inc app-events signups --label country=DE --label plan=pro
  countem inc web 'GET 200' 1632 --date 2015-05-17";

/// Parses `KEY=VALUE`; the value may be empty, and may have further equals signs.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in country=DE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Inc {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        // Labels in any order are the same counter, however they are given.
        let Labelled { name, labels } = Labelled::split(self.metric.as_str());
        let labels = labels.iter().map(|(key, value)| (*key, &**value));
        let more = self.label.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let metric = MetricName::labelled(name, labels.chain(more))
            .map_err(|error| UsageError::new(error.to_string()))?;
        let effective = Effective::load_within(global, &self.timeout)?;
        let collection = self.collection.as_str();
        let limit = self.timeout.limit();
        let end = Instant::now() + limit;
        self.timeout.block_on(async {
            let (store, schedules) = effective.open_writer(&self.change).await?;
            if effective.config.store_uri().scheme() == "memory" {
                say("countem: `memory://` ends with this command, and the count with it");
            }
            let now = Timestamp::now();
            let schedule = schedules.of(collection);
            let moment = self.moment(now, schedules.zone(now), schedule)?;
            let bucket = schedule.bucket_at(moment)?;
            if schedule.has_expired_everywhere(bucket, now) {
                anyhow::bail!("{moment} has expired: no stored period of `{collection}` is kept so long");
            }
            let periods = schedule.fan_out_kept(bucket, now).len();
            let mut table = Table::new();
            table.fold(collection, metric.as_str(), bucket, self.n)?;
            // One more attempt of the store may follow.
            let timeout = Some(end.saturating_duration_since(Instant::now()) / 2);
            let mut delivery = Delivery::new(store, schedules, &effective.engine, timeout);
            let counts = Counts { deltas: table.drain(), mark: None };
            let deliver = async {
                let stored = delivery.store(counts).await;
                delivery.finish(stored).await
            };
            // Ends before the whole command does, which would not know whether the count is stored.
            let Ok(delivered) = timeout_at(end - limit / 20, deliver).await else {
                let why = format!("the store did not answer within {limit:?}");
                return Err(anyhow::Error::from(StoreError::new(ErrorKind::InDoubt, why)).context(IN_DOUBT));
            };
            if let Some(failure) = delivered.failure {
                let is_in_doubt = failure.kind() == ErrorKind::InDoubt;
                let failure = anyhow::Error::from(failure);
                return Err(match is_in_doubt {
                    true => failure.context(IN_DOUBT),
                    false => failure,
                });
            }
            match delivered.quarantined.first() {
                None => Ok(Exit::Ok),
                Some(counter) => {
                    let buckets: Vec<_> =
                        delivered.quarantined.iter().map(|q| q.bucket.to_string()).collect();
                    let rest = if buckets.len() < periods { "; the other periods have it" } else { "" };
                    anyhow::bail!(
                        "cannot add {} to `{}` in {}: {}{rest}; it waits in quarantine, see `countem quarantine --help`",
                        counter.n,
                        counter.metric,
                        buckets.join(", "),
                        counter.reason
                    )
                }
            }
        })
    }

    /// Returns the moment of the increment: the beginning of the day for `--date`.
    fn moment(&self, now: Timestamp, zone: &TimeZone, schedule: &Schedule) -> Result<Timestamp> {
        // Other zones have the next day already.
        let last = zone.to_datetime(now).date().tomorrow().context("there is no day after this one")?;
        let refuse_later = |day| match day > last {
            true => {
                Err(UsageError::new(format!("{day} is in the future: `inc` counts on days until {last}")))
            }
            false => Ok(()),
        };
        if let Some(day) = self.date {
            let day = day_bucket(day, now, zone)?;
            refuse_later(day.date())?;
            require_existence(day, zone)?;
            return Ok(day.start_instant(zone));
        }
        let Some(text) = &self.time else { return Ok(now) };
        let mut times = Times::new(TimeFormat::Auto, zone.clone(), now);
        let second = times.second(text.as_bytes());
        if times.is_skipped() {
            let zone = zone.iana_name().unwrap_or("this zone");
            let why = "clocks were set forward over this time, and never showed it";
            return Err(UsageError::new(format!("`--time {text}`: {why} in {zone}")).into());
        }
        let second = second.ok_or_else(|| UsageError::new(format!("`--time {text}` is not a time: expected one such as 2015-05-17T10:05:03Z, or seconds since 1970")))?;
        let moment = Timestamp::from_second(second).context("time is out of range")?;
        if let Some(again) = times.repeated() {
            let again = Timestamp::from_second(again).context("time is out of range")?;
            let buckets =
                |moment| anyhow::Ok(schedule.fan_out(schedule.bucket_at(moment)?).collect::<Vec<_>>());
            if buckets(moment)? != buckets(again)? {
                let why = "clocks were set back, and showed this time twice: add its offset, as in";
                return Err(UsageError::new(format!("`--time {text}`: {why} {moment} or {again}")).into());
            }
        }
        refuse_later(zone.to_datetime(moment).date())?;
        Ok(moment)
    }
}
