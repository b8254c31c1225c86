//! Counts one line.

use countem_core::{Deltas, FoldError, MetricName, Table};
use countem_lines::{Format, Reject, Span, Template, Times};
use jiff::Timestamp;

use crate::ingest::{bucket_cache::BucketCache, lines::MAX_LINE, plan::Plan};

/// Counts line by line into a table.
pub(super) struct LineCounter {
    table: Table,
    /// Index of the time field and its reader, `None` when lines are counted at the time they are read.
    times: Option<(usize, Times)>,
    /// One for each set of stored periods.
    caches: Vec<BucketCache>,
    /// Index of the cache of each template.
    cache_of: Vec<usize>,
    /// Indexes of the templates that count the lines.
    active: Vec<usize>,
    /// Metric of the current line for each template.
    metrics: Vec<Vec<u8>>,
    spans: Vec<Span>,
    /// No sum of counters in the table is larger.
    weight: i64,
}

/// Outcome of counting a well-formed line.
pub(super) enum Outcome {
    /// The line is in the table.
    Counted,
    /// The sums would become too large. The line can be counted after the table was drained.
    Full,
}

impl LineCounter {
    /// Prepares to count as `plan` says.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut caches: Vec<BucketCache> = Vec::new();
        let mut cache_of = Vec::new();
        for template in &plan.templates {
            let schedule = plan.schedules.of(template.collection().as_str());
            let known = caches.iter().position(|cache| cache.schedule() == schedule);
            cache_of.push(known.unwrap_or(caches.len()));
            if known.is_none() {
                caches.push(BucketCache::new(schedule.clone()));
            }
        }
        Self {
            table: Table::new(),
            times: plan.times(),
            caches,
            cache_of,
            active: (0..plan.templates.len()).collect(),
            metrics: vec![Vec::new(); plan.templates.len()],
            spans: vec![Span::MISSING; plan.wanted.names().len()],
            weight: 0,
        }
    }

    /// Counts the next lines, which begin at `offset`, for the templates whose start is not behind it. Returns the next start.
    pub(super) fn count_from(&mut self, offset: u64, starts: &[u64]) -> u64 {
        self.active.clear();
        self.active.extend((0..starts.len()).filter(|&template| starts[template] <= offset));
        starts.iter().copied().filter(|&start| start > offset).min().unwrap_or(u64::MAX)
    }

    /// Returns the indexes of the templates that count the lines.
    pub(super) fn active(&self) -> &[usize] {
        &self.active
    }

    /// Returns the number of counters that are not drained yet.
    pub(super) fn counters(&self) -> usize {
        self.table.len()
    }

    /// Returns the approximate size of a batch of all counters that are not drained yet.
    pub(super) fn batch_bytes(&self) -> usize {
        const FIXED: usize = 64;
        let buckets =
            self.caches.iter().map(|cache| cache.schedule().periods(Timestamp::MAX).len()).max().unwrap_or(1);
        (self.table.len() * FIXED + self.table.deltas().name_bytes()) * buckets
    }

    /// Returns the counted deltas and empties the table.
    pub(super) fn drain(&mut self) -> Deltas {
        self.weight = 0;
        self.table.drain()
    }

    /// Counts a line for every active template.
    ///
    /// # Errors
    /// The line was counted for no template.
    #[inline]
    pub(super) fn count(
        &mut self,
        line: &[u8],
        read_at: Timestamp,
        format: &mut Format,
        plan: &Plan,
    ) -> Result<Outcome, Reject> {
        if line.len() > MAX_LINE {
            return Err(Reject::TooLong);
        }
        let absent = format.absent();
        let text = format.read(line, &mut self.spans)?;
        let field = |index: usize| self.spans[index].of(text).ok_or(Reject::Missing(index));
        let (second, no_time) = match &mut self.times {
            None => (read_at.as_second(), Reject::Shape("clock of this machine is wrong")),
            Some((index, times)) => {
                let no_time = Reject::Time(*index);
                (times.second(field(*index)?).ok_or(no_time)?, no_time)
            }
        };
        let (mut n, mut weight) = (1, 0);
        if let Some(index) = plan.amount {
            n = read_amount(field(index)?).ok_or(Reject::Amount(index))?;
            let templates = i64::try_from(self.metrics.len()).unwrap_or(i64::MAX);
            weight = n.checked_abs().and_then(|n| n.checked_mul(templates)).ok_or(Reject::Amount(index))?;
        }
        let Some(weight) = self.weight.checked_add(weight) else { return Ok(Outcome::Full) };

        if let [index] = self.active[..] {
            let template = &plan.templates[index];
            // The table checks a name when it is new; a known one costs nothing.
            let metric = template.render(text, &self.spans, absent, &mut self.metrics[index])?;
            let bucket = self.caches[self.cache_of[index]].bucket_at(second).ok_or(no_time)?;
            fold(self.table.fold(template.collection().as_str(), metric, bucket, n))?;
        } else {
            // A line counts for all templates or for none, so every check precedes the first fold.
            for &index in &self.active {
                let metric =
                    plan.templates[index].render(text, &self.spans, absent, &mut self.metrics[index])?;
                MetricName::validate(metric).map_err(|error| Reject::of_name(&error))?;
            }
            for cache in &mut self.caches {
                cache.bucket_at(second).ok_or(no_time)?;
            }
            for &index in &self.active {
                let metric = str::from_utf8(&self.metrics[index]).map_err(|_| Template::NOT_UTF8)?;
                let bucket = self.caches[self.cache_of[index]].bucket_at(second).ok_or(no_time)?;
                let collection = plan.templates[index].collection().as_str();
                fold(self.table.fold(collection, metric, bucket, n))?;
            }
        }
        self.weight = weight;
        Ok(Outcome::Counted)
    }
}

#[inline]
fn fold(folded: Result<(), FoldError>) -> Result<(), Reject> {
    folded.map_err(|error| match error {
        FoldError::Name(error) => Reject::of_name(&error),
        // The weight bounds the sums, and a flush comes long before four gigabytes of names.
        _ => Reject::Shape("counter table is full"),
    })
}

/// Reads a whole number. Access logs write `-` for no bytes.
fn read_amount(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?.trim();
    if text == "-" { Some(0) } else { text.parse().ok() }
}
