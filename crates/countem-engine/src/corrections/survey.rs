//! A look at everything that a correction would change, before it begins.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{
    Bucket, BucketRange, CollectionName, Delta, Deltas, MetricName, Schedules, Table, jiff::Timestamp,
};
use countem_query::{Group, Metrics, Query, ReadError, Reader, TimeRange};
use countem_store::{RowQuery, Select};

use super::{
    Correction, CorrectionEntry, CorrectionError, Corrections,
    levels::Levels,
    walk::{Buckets, Scope, Walk},
};

/// Maximum number of rows of a preview.
const MAX_ROWS: usize = 1000;

/// The counters that a correction would change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorrectionPreview {
    /// The correction, without identity, author and reason.
    pub entry: CorrectionEntry,
    /// The first stored counters that change, by bucket and metric.
    pub rows: Vec<PreviewRow>,
    /// The others are not listed.
    pub has_more: bool,
}

/// A stored counter before and after a correction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviewRow {
    /// The stored bucket.
    pub bucket: Bucket,
    /// The metric.
    pub metric: String,
    /// The value before; `None` where there is no such counter.
    pub before: Option<i64>,
    /// The value after; `None` where the counter is removed.
    pub after: Option<i64>,
}

/// Everything that a correction changes.
#[derive(Debug, Default)]
struct Survey {
    counters: u64,
    /// The first deltas.
    listed: Table,
    has_more: bool,
    /// Sums that are added to the target.
    added: BTreeMap<Bucket, i128>,
}

impl Corrections {
    /// Checks a correction, and returns its entry without author and reason; for one of a single counter with its deltas.
    pub(super) async fn prepare(
        &self,
        correction: &Correction,
        now: Timestamp,
    ) -> Result<(CorrectionEntry, Option<Deltas>), CorrectionError> {
        match correction {
            Correction::Add { collection, metric, bucket, .. }
            | Correction::Set { collection, metric, bucket, .. } => {
                let (entry, mut table) = self.one(correction, collection, metric, *bucket, now).await?;
                Ok((entry, Some(table.drain())))
            }
            _ => Ok((self.survey(correction, now).await?.0, None)),
        }
    }

    pub(super) async fn preview_of(
        &self,
        correction: &Correction,
        now: Timestamp,
    ) -> Result<CorrectionPreview, CorrectionError> {
        let (entry, listed, has_more) = match correction {
            Correction::Add { collection, metric, bucket, .. }
            | Correction::Set { collection, metric, bucket, .. } => {
                let (entry, table) = self.one(correction, collection, metric, *bucket, now).await?;
                (entry, table, false)
            }
            _ => {
                let (entry, survey) = self.survey(correction, now).await?;
                (entry, survey.listed, survey.has_more)
            }
        };
        let is_moved = !matches!(correction, Correction::Add { .. } | Correction::Set { .. });
        let mut rows = Vec::new();
        for delta in listed.iter() {
            let before = self.stored(correction.collection(), delta.metric, delta.bucket).await?;
            let after = before.unwrap_or_default().checked_add(delta.n);
            let goes = is_moved && after == Some(0) && entry.target.as_deref() != Some(delta.metric);
            rows.push(PreviewRow {
                bucket: delta.bucket,
                metric: delta.metric.to_owned(),
                before,
                after: after.filter(|_| !goes),
            });
        }
        rows.sort_by(|a, b| (a.bucket, &a.metric).cmp(&(b.bucket, &b.metric)));
        Ok(CorrectionPreview { entry, rows, has_more })
    }

    /// Returns the value of a stored counter.
    async fn stored(
        &self,
        collection: &CollectionName,
        metric: &str,
        bucket: Bucket,
    ) -> Result<Option<i64>, CorrectionError> {
        // What the store has is valid.
        let Ok(name) = MetricName::new(metric) else { return Ok(None) };
        let range = BucketRange::one(bucket);
        let query = RowQuery { collection: collection.clone(), range, select: Select::One(name) };
        let counters = self.store.read(&query, None).await?.remove(&bucket).unwrap_or_default();
        let unreadable = |why: &countem_store::Unreadable| {
            let why = why.clone();
            CorrectionError::Read(ReadError::Unreadable { metric: metric.to_owned(), bucket, why })
        };
        counters.get(metric).map_err(unreadable)
    }

    /// Checks a correction of one counter, and returns its deltas.
    async fn one(
        &self,
        correction: &Correction,
        collection: &CollectionName,
        metric: &MetricName,
        bucket: Bucket,
        now: Timestamp,
    ) -> Result<(CorrectionEntry, Table), CorrectionError> {
        let schedules = self.schedules().await?;
        let schedule = schedules.of(collection.as_str());
        let zone = schedules.zone(now);
        let start = bucket.start_instant(zone);
        if start > now {
            return Err(CorrectionError::refused(format!("{bucket} is in the future")));
        }
        let is_present = bucket.next().is_none_or(|next| now < next.start_instant(zone));
        let moment = if is_present { now } else { start };
        if Bucket::containing(bucket.period(), moment, schedules.zone(moment)).ok() != Some(bucket) {
            return Err(CorrectionError::refused(format!(
                "{bucket} does not begin in the zone of the store at that time: correct an hour or another day"
            )));
        }
        let reader = self.reader(&schedules);
        let before = reader.get(collection, metric, bucket).await?;
        let too_large = |bucket| {
            CorrectionError::refused(format!(
                "the value of `{metric}` in {bucket} would leave the range of 64 bits"
            ))
        };
        let n = match correction {
            Correction::Add { n, .. } => Some(*n),
            Correction::Set { value, .. } => value.checked_sub(before.unwrap_or_default()),
            _ => None,
        };
        let n = n.ok_or_else(|| too_large(bucket))?;
        let after = before.unwrap_or_default().checked_add(n).ok_or_else(|| too_large(bucket))?;
        let counted = schedule.bucket_at(moment).map_err(ReadError::from)?;
        if schedule.has_expired_everywhere(counted, now) {
            return Err(CorrectionError::refused(format!("{bucket} of `{collection}` has expired")));
        }
        let mut table = Table::new();
        let delta = Delta {
            collection: collection.as_str(),
            metric: metric.as_str(),
            bucket: counted,
            n,
            increments: 1,
        };
        for delta in delta.fan_out_kept(schedule, now) {
            let stored = self.stored(collection, metric.as_str(), delta.bucket).await?;
            let fits = stored.unwrap_or_default().checked_add(n).is_some();
            if !fits || table.merge(delta).is_err() {
                return Err(too_large(delta.bucket));
            }
        }
        let mut entry = entry(correction, now);
        entry.metrics = vec![metric.to_string()];
        entry.range = Some(bucket.to_string());
        (entry.counters, entry.amount) = (1, Some(n));
        (entry.before, entry.after) = (before, Some(after));
        Ok((entry, table))
    }

    /// Checks a correction of many counters, and looks at all of them.
    async fn survey(
        &self,
        correction: &Correction,
        now: Timestamp,
    ) -> Result<(CorrectionEntry, Survey), CorrectionError> {
        let schedules = self.schedules().await?;
        let (mut entry, range) = named(correction, &schedules, now)?;
        let scope = Scope::of(&entry)?;
        let levels = Levels::new(schedules.of(&entry.collection), entry.span, now);
        self.check_range(&entry, &levels, &schedules, correction).await?;
        let walk = Walk { store: &*self.store, scope: &scope, levels: &levels };
        let survey = walk.survey().await?;
        let found: Vec<_> = survey.1;
        if let Some(missing) = entry.metrics.iter().find(|metric| !found.contains(metric)) {
            let within = entry.range.as_ref().map_or(String::new(), |range| format!(" in {range}"));
            let (missing, collection) = (missing, &entry.collection);
            return Err(CorrectionError::NotFound(format!(
                "`{missing}` was not counted in `{collection}`{within}"
            )));
        }
        if found.is_empty() {
            let within = entry.range.as_ref().map_or(String::new(), |range| format!(" in {range}"));
            let collection = &entry.collection;
            return Err(CorrectionError::NotFound(format!("nothing was counted in `{collection}`{within}")));
        }
        let survey = survey.0;
        if let Some(target) = &scope.target {
            let is_new = matches!(correction, Correction::Rename { .. });
            self.check_target(&scope.collection, target, &levels, &survey, is_new).await?;
        }
        entry.counters = survey.counters;
        entry.amount = self.amount(&scope, range, &schedules, now).await;
        Ok((entry, survey))
    }

    /// Refuses a range of which a part cannot be told from the rest.
    async fn check_range(
        &self,
        entry: &CorrectionEntry,
        levels: &Levels,
        schedules: &Schedules,
        correction: &Correction,
    ) -> Result<(), CorrectionError> {
        let (Some((from, _)), Some(range)) = (entry.span, &entry.range) else { return Ok(()) };
        let zone_since = schedules.of(&entry.collection).zone_since();
        if from < zone_since.as_second() && zone_since != Timestamp::MIN {
            return Err(CorrectionError::refused(format!(
                "the zone of the store changed near {zone_since}: name a range after that, or none for all of time"
            )));
        }
        for bucket in levels.inexact().collect::<Vec<_>>() {
            let stored = self.store.extent(correction.collection(), BucketRange::one(bucket)).await?;
            if stored.is_some() {
                return Err(CorrectionError::refused(format!(
                    "{range} is a part of {bucket} that cannot be told from the rest: no finer buckets of all of it are stored; name a range of whole {} buckets, or none for all of time",
                    bucket.period()
                )));
            }
        }
        Ok(())
    }

    /// Refuses a target that would leave the range of 64 bits, or that has counts and should be new.
    async fn check_target(
        &self,
        collection: &CollectionName,
        target: &MetricName,
        levels: &Levels,
        survey: &Survey,
        is_new: bool,
    ) -> Result<(), CorrectionError> {
        let scope =
            Scope { collection: collection.clone(), sources: Some(vec![target.clone()]), target: None };
        let walk = Walk { store: &*self.store, scope: &scope, levels };
        let mut cursor = None;
        loop {
            let page = walk.next(cursor, Buckets::Touched).await?;
            for (bucket, _, value) in &page.rows {
                if is_new && *value != 0 && levels.is_whole(*bucket) {
                    return Err(CorrectionError::refused(format!(
                        "`{target}` has counts already, in {bucket}: `merge` adds to them"
                    )));
                }
                let sum = i128::from(*value) + survey.added.get(bucket).copied().unwrap_or_default();
                if i64::try_from(sum).is_err() {
                    return Err(CorrectionError::refused(format!(
                        "the value of `{target}` in {bucket} would be {sum}, which leaves the range of 64 bits"
                    )));
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        match survey.added.iter().find(|(_, sum)| i64::try_from(**sum).is_err()) {
            Some((bucket, sum)) => Err(CorrectionError::refused(format!(
                "the value of `{target}` in {bucket} would be {sum}, which leaves the range of 64 bits"
            ))),
            None => Ok(()),
        }
    }

    /// Returns the sum of the counts that are moved or removed, if it is known exactly.
    async fn amount(
        &self,
        scope: &Scope,
        range: TimeRange,
        schedules: &Arc<Schedules>,
        now: Timestamp,
    ) -> Option<i64> {
        let reader = self.reader(schedules);
        let query = || Query::of([scope.collection.clone()]).range(range).group(Group::All);
        let queries: Vec<_> = match &scope.sources {
            None => vec![query()],
            Some(sources) => {
                sources.iter().map(|source| query().metrics(Metrics::Exact(source.clone()))).collect()
            }
        };
        let mut sum = 0_i64;
        for query in queries {
            sum = sum.checked_add(reader.query(&query, now).await.ok()?.total?.ok()?)?;
        }
        Some(sum)
    }

    fn reader(&self, schedules: &Arc<Schedules>) -> Reader {
        Reader::of_store(Arc::clone(&self.store), Arc::clone(schedules))
    }
}

impl Walk<'_> {
    /// Looks at all counters, and returns which metrics of the scope were found; for all metrics the first one.
    async fn survey(&self) -> Result<(Survey, Vec<String>), CorrectionError> {
        let (mut survey, mut found) = (Survey::default(), Vec::<String>::new());
        let mut cursor = None;
        loop {
            let page = self.next(cursor, Buckets::Own).await?;
            let mut table = Table::new();
            for row in page.rows.iter().filter(|(bucket, ..)| self.levels.is_own(*bucket)) {
                self.fold(&mut table, row)?;
                survey.counters += 1;
                if (found.is_empty() || self.scope.sources.is_some()) && !found.contains(&row.1) {
                    found.push(row.1.clone());
                }
            }
            for delta in table.iter() {
                if self.scope.target.as_ref().is_some_and(|target| target.as_str() == delta.metric) {
                    *survey.added.entry(delta.bucket).or_default() += i128::from(delta.n);
                }
                survey.has_more |= survey.listed.merge_within(delta, MAX_ROWS).is_err();
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok((survey, found));
            }
        }
    }
}

/// Returns an entry with the collection and the kind.
fn entry(correction: &Correction, now: Timestamp) -> CorrectionEntry {
    CorrectionEntry {
        id: String::new(),
        at: now,
        author: String::new(),
        reason: String::new(),
        kind: correction.kind(),
        collection: correction.collection().to_string(),
        metrics: Vec::new(),
        file: None,
        target: None,
        range: None,
        span: None,
        counters: 0,
        amount: None,
        before: None,
        after: None,
        is_finished: true,
    }
}

/// Returns an entry with the names and instants of a correction, and its range.
fn named(
    correction: &Correction,
    schedules: &Schedules,
    now: Timestamp,
) -> Result<(CorrectionEntry, TimeRange), CorrectionError> {
    let mut entry = entry(correction, now);
    let (sources, target, range) = match correction {
        Correction::Rename { from, to, range, .. } => (Some(std::slice::from_ref(from)), Some(to), range),
        Correction::Merge { from, to, range, .. } => (Some(&from[..]), Some(to), range),
        Correction::Delete { metrics, range, .. } => (metrics.as_deref(), None, range),
        Correction::Add { .. } | Correction::Set { .. } => (None, None, &None),
    };
    let mut names: Vec<_> = sources.unwrap_or_default().iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    if sources.is_some() && names.is_empty() {
        return Err(CorrectionError::refused("no metric is named"));
    }
    if let Some(same) = target.filter(|target| names.iter().any(|name| name == target.as_str())) {
        return Err(CorrectionError::refused(format!("`{same}` cannot be moved to itself")));
    }
    (entry.metrics, entry.target) = (names, target.map(ToString::to_string));
    let all = TimeRange::from(Bucket::ALL);
    let Some(range) = range.filter(|range| *range != all) else { return Ok((entry, all)) };
    let zone = schedules.of(&entry.collection).last_zone();
    let span = range.resolve(now, zone).map_err(|error| CorrectionError::refused(error.to_string()))?;
    // Relative times are those of now.
    let buckets = range.buckets(range.period(), now, zone).ok();
    let text = buckets.map(|range| match range.first() == range.last() {
        true => range.first().to_string(),
        false => range.to_string(),
    });
    entry.range = Some(text.unwrap_or_else(|| range.to_string()));
    entry.span = Some((span.start.as_second(), span.end.as_second()));
    Ok((entry, range))
}
