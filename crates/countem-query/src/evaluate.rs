//! Evaluation of queries.
//!
//! Metrics are read in pages, so that a query needs the memory of its answer and of one page, however many counters it adds up.

mod pages;
mod rows;

use std::collections::BTreeSet;

use countem_core::{Bucket, BucketRange, MetricName, Period, Schedules};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use self::{
    pages::{Pages, Requested, Selected, Spans},
    rows::{Finished, Found, exceeds},
};
use crate::{
    Answer, Compare, Cursor, Fill, Group, Metrics, Order, Query, QueryError, ReadError, Reader, Row,
    query::Problem, reader::parts,
};

/// Maximum number of chosen metrics that are read one by one.
const MAX_SINGLE: usize = if cfg!(test) { 3 } else { 100 };

impl Reader {
    /// Answers a query; `now` defines relative times.
    ///
    /// Every value is exact as of a moment after the call, and includes the pending counts of an engine. A value that cannot be told
    /// exactly is an error of its row, and spoils no other.
    ///
    /// # Errors
    /// [`QueryError`]: the query has no exact answer, exceeds a limit or contradicts itself, or the source cannot be read.
    pub async fn query(&self, query: &Query, now: Timestamp) -> Result<Answer, QueryError> {
        query.check()?;
        let schedules = self.schedules().await?;
        let zone = schedules.zone(now);
        let plan = match query.step {
            Some(step) => {
                let mut range = query.range.buckets(step, now, zone)?;
                let is_everything = range == BucketRange::every(step);
                if is_everything {
                    range = self.counted(query, &schedules, step, zone).await?.unwrap_or(range);
                }
                let plan = Plan::of(query, &schedules, range, self.source().now())?;
                if is_everything {
                    plan.refuse_removable(&schedules, self.source().now())?;
                }
                plan
            }
            None => Plan::coarsest(query, &schedules, now, zone, self.source().now())?,
        };
        let metric_rows = query.group == Group::Metric && !matches!(query.metrics, Metrics::Exact(_));
        // Of rows that are chosen among others, the points are read once they are chosen.
        let in_two_passes = query.limit.is_some() && query.step.is_some() && metric_rows;
        let found = self.found(query, &plan, query.step.is_some() && !in_two_passes, None).await?;
        let Finished { mut rows, has_more, unranked, total } = found.finish()?;
        if in_two_passes && !rows.is_empty() {
            let chosen = rows.iter().map(Row::cursor).collect();
            rows = self.found(query, &plan, true, Some(chosen)).await?.finish()?.rows;
        }
        let is_continued = has_more && query.order == Order::Name && !query.is_reversed;
        let answer = Answer {
            range: plan.requested.range,
            step: query.step,
            earlier: plan.requested.earlier,
            is_partial: is_over(plan.requested.range, now, zone).is_some_and(|is_over| !is_over),
            next: rows.last().filter(|_| is_continued).map(Row::cursor),
            rows,
            unranked,
            total,
        };
        fill(answer, query, now, zone)
    }

    /// Returns the buckets of `step` from the first to the last in which one of the collections has a counter, to stand for all
    /// time.
    async fn counted(
        &self,
        query: &Query,
        schedules: &Schedules,
        step: Period,
        zone: &TimeZone,
    ) -> Result<Option<BucketRange>, QueryError> {
        let mut ends: Option<(Bucket, Bucket)> = None;
        for collection in &query.collections {
            let schedule = schedules.of(collection.as_str());
            let mut covers_all = false;
            for period in schedule.ever_stored() {
                // Finer periods may be kept for a shorter time than coarser ones, or be stored since later.
                if covers_all || period == Period::All {
                    break;
                }
                covers_all = schedule.has_always_stored(period)
                    && schedule.kept_from(period, self.source().now()).is_none();
                let extent = self.source().extent(collection, BucketRange::every(period)).await?;
                let Some(extent) = extent else { continue };
                let end = extent.last().next().map_or(Timestamp::MAX, |next| next.start_instant(zone));
                let moments = [extent.first().start_instant(zone), end - SignedDuration::from_secs(1)];
                let [first, last] = moments.map(|moment| Bucket::containing(step, moment, zone));
                let (Ok(first), Ok(last)) = (first, last) else { return Ok(None) };
                let (earliest, latest) = ends.unwrap_or((first, last));
                ends = Some((earliest.min(first), latest.max(last)));
            }
        }
        Ok(ends.and_then(|(first, last)| BucketRange::new(first, last)))
    }

    /// Reads all collections of a query.
    async fn found<'q>(
        &self,
        query: &'q Query,
        plan: &Plan,
        by_bucket: bool,
        chosen: Option<BTreeSet<Cursor>>,
    ) -> Result<Found<'q>, QueryError> {
        let mut found = Found::new(query, chosen.clone());
        for spans in &plan.spans {
            let after = query.after.as_ref().filter(|_| query.group == Group::Metric);
            if after.is_some_and(|after| after.collection > spans.collection) {
                continue;
            }
            let after = after.filter(|after| after.collection == spans.collection);
            let is_early = query.order == Order::Name && !query.is_reversed && query.group == Group::Metric;
            let selected = match (&query.metrics, &chosen) {
                (Metrics::Exact(metric), _) => vec![Selected::One(metric.clone())],
                (_, Some(chosen)) if chosen.len() <= MAX_SINGLE => {
                    let chosen = chosen.iter().filter(|cursor| cursor.collection == spans.collection);
                    chosen
                        .filter_map(|cursor| MetricName::new(&cursor.name).ok().map(Selected::One))
                        .collect()
                }
                (metrics, _) => {
                    let rows = query.limit.filter(|_| is_early);
                    vec![Selected::pages(metrics.prefix(), after.map(|after| after.name.clone()), rows)]
                }
            };
            let requested = Requested { by_bucket, ..plan.requested };
            for select in selected {
                let mut pages = Pages { source: &**self.source(), spans, requested, select };
                while let Some(page) = pages.next().await? {
                    for (metric, sums) in page {
                        found.add(&spans.collection, metric, sums)?;
                    }
                    if found.is_full() {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Query {
    /// Checks that the parts of the query do not contradict each other.
    fn check(&self) -> Result<(), QueryError> {
        match self.problem.clone() {
            Some(Problem::Name(error)) => return Err(error.into()),
            Some(Problem::Range(error)) => return Err(error.into()),
            None => {}
        }
        let refuse = |why: &'static str| Err(QueryError::Contradiction { why });
        if self.order == Order::Change && self.compare.is_none() {
            return refuse("the order by change needs an earlier range to compare with");
        }
        if self.after.is_some() && (self.order != Order::Name || self.is_reversed) {
            return refuse("only an answer in the order by name can be continued");
        }
        if self.limit == Some(0) {
            return refuse("a limit of no rows has no answer");
        }
        match &self.group {
            Group::Labels(keys) if keys.iter().any(String::is_empty) => return refuse("a label has a name"),
            Group::Labels(keys) if keys.is_empty() => return refuse("a group by labels needs a label"),
            Group::Labels(keys) if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() => {
                return refuse("a label to group by is named twice");
            }
            Group::Level { separator, .. } if separator.is_empty() => {
                return refuse("the levels of a hierarchy need a separator");
            }
            Group::Level { depth: 0, .. } => return refuse("the first level of a hierarchy is 1"),
            _ => {}
        }
        exceeds("rows", self.limit.unwrap_or(0), self.limits.rows)
    }
}

/// Everything that is read for a query.
#[derive(Debug)]
struct Plan {
    requested: Requested,
    /// By collection.
    spans: Vec<Spans>,
}

impl Plan {
    /// Returns the plan of the coarsest buckets that make up the range and can be read.
    fn coarsest(
        query: &Query,
        schedules: &Schedules,
        now: Timestamp,
        zone: &TimeZone,
        clock: Timestamp,
    ) -> Result<Self, QueryError> {
        let mut refused = None;
        // The present moment would be all of the bucket that it lies in.
        let coarsest = if query.range.mentions_now() { query.range.period() } else { Period::All };
        for period in Period::ALL.into_iter().rev().filter(|period| *period <= coarsest) {
            match query.range.buckets(period, now, zone) {
                Ok(range) => match Self::of(query, schedules, range, clock) {
                    Ok(plan) => return Ok(plan),
                    // Finer buckets would be those of one of the zones.
                    Err(error @ QueryError::Read(ReadError::ZoneChanged { .. })) => return Err(error),
                    Err(error) => refused = refused.or(Some(error)),
                },
                Err(error) if period == Period::Second => {
                    return Err(refused.unwrap_or_else(|| error.into()));
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or(QueryError::Contradiction { why: "the range has no buckets" }))
    }

    fn of(
        query: &Query,
        schedules: &Schedules,
        range: BucketRange,
        clock: Timestamp,
    ) -> Result<Self, QueryError> {
        // Before anything is listed, however long the range is.
        let is_listed = query.step.is_some() || range.period() != Period::All;
        if is_listed && range.len() > query.limits.buckets {
            return Err(QueryError::Limit { limit: "buckets", max: query.limits.buckets });
        }
        let earlier = query.compare.map(|compare| earlier(compare, range)).transpose()?;
        if let Some(earlier) = earlier.filter(|earlier| earlier.period() == Period::Day)
            && earlier.iter().any(|day| !is_there(day, schedules.zone(clock)))
        {
            return Err(QueryError::Contradiction {
                why: "the earlier range has a day that a change of the date line left out",
            });
        }
        let spans = query.collections.iter().map(|collection| {
            Ok(Spans {
                collection: collection.clone(),
                range: parts(schedules, collection, range, clock)?,
                earlier: earlier
                    .map(|range| parts(schedules, collection, range, clock))
                    .transpose()?
                    .unwrap_or_default(),
            })
        });
        let spans = spans.collect::<Result<_, ReadError>>()?;
        Ok(Self { requested: Requested { range, earlier, by_bucket: false }, spans })
    }

    /// Refuses the plan of all time if some of the buckets that make it up may have been removed.
    fn refuse_removable(&self, schedules: &Schedules, now: Timestamp) -> Result<(), QueryError> {
        for spans in &self.spans {
            for part in &spans.range {
                let period = part.range().period();
                let schedule = schedules.of(spans.collection.as_str());
                if let Some(kept_from) = schedule.kept_from(period, now) {
                    let (collection, bucket) = (spans.collection.clone(), self.requested.range.first());
                    return Err(ReadError::Expired { collection, bucket, period, kept_from }.into());
                }
            }
        }
        Ok(())
    }
}

/// Returns the range with which `range` is compared.
fn earlier(compare: Compare, range: BucketRange) -> Result<BucketRange, QueryError> {
    let length = i64::try_from(range.len()).unwrap_or(i64::MAX);
    let week = match range.period() {
        Period::Second => 7 * 24 * 3600,
        Period::Minute => 7 * 24 * 60,
        Period::Hour => 7 * 24,
        Period::Day => 7,
        _ => 1,
    };
    let back = match compare {
        Compare::Previous => length,
        Compare::Weekdays if range.period() > Period::Week => {
            return Err(QueryError::Contradiction {
                why: "months and years do not begin on the same weekday",
            });
        }
        // Rounded up to whole weeks.
        Compare::Weekdays => length.saturating_add(week - 1) / week * week,
    };
    let none = QueryError::Contradiction { why: "there is no earlier range to compare with" };
    range.shifted(back.saturating_neg()).ok_or(none)
}

/// Tells whether the range ended before `now`; `None` for `all`.
fn is_over(range: BucketRange, now: Timestamp, zone: &TimeZone) -> Option<bool> {
    Some(range.last().next()?.start_instant(zone) <= now)
}

/// Returns false for a day that a change of the date line left out.
fn is_there(bucket: Bucket, zone: &TimeZone) -> bool {
    bucket.next().is_none_or(|next| bucket.start_instant(zone) < next.start_instant(zone))
}

/// Adds the points of buckets without a count.
fn fill(mut answer: Answer, query: &Query, now: Timestamp, zone: &TimeZone) -> Result<Answer, QueryError> {
    let value = match (query.step, query.fill) {
        (None, _) | (_, Fill::None) => return Ok(answer),
        (_, Fill::Zero) => Some(Ok(0)),
        (_, Fill::Gap) => None,
    };
    let buckets = answer.range.iter().take_while(|bucket| bucket.start_instant(zone) <= now);
    let buckets: Vec<_> = buckets.filter(|bucket| is_there(*bucket, zone)).collect();
    exceeds("points", answer.rows.len().saturating_mul(buckets.len()), query.limits.points)?;
    for row in &mut answer.rows {
        let known = std::mem::take(&mut row.points);
        let missing =
            buckets.iter().filter(|bucket| known.binary_search_by_key(bucket, |(at, _)| at).is_err());
        row.points = missing.map(|bucket| (*bucket, value.clone())).collect();
        row.points.extend(known);
        row.points.sort_unstable_by_key(|(bucket, _)| *bucket);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
