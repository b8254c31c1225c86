//! Counts one line.

use std::collections::BTreeMap;

use countem_core::{Deltas, FoldError, MetricName, Table};
use countem_lines::{Format, Reject, Span, Times, amount};
use jiff::{Timestamp, tz::TimeZone};

use crate::ingest::{added, bucket_cache::BucketCache, lines::MAX_LINE, plan::Plan};

/// Counts line by line into a table.
pub(super) struct LineCounter {
    table: Table,
    /// Indexes of the time fields and their reader, `None` when lines are counted at the time they are read.
    times: Option<(Vec<usize>, Times)>,
    /// The same for times in UTC, which those of W3C extended log files are in every format.
    utc_times: Option<Times>,
    /// Text of several time fields.
    time_text: Vec<u8>,
    /// One for each set of stored periods.
    caches: Vec<BucketCache>,
    /// Index of the cache of each template.
    cache_of: Vec<usize>,
    /// Indexes of the templates that count the lines.
    active: Vec<usize>,
    /// Metric of the current line.
    metric: Vec<u8>,
    spans: Vec<Span>,
    /// No sum of counters in the table is larger.
    weight: i64,
    is_utc: bool,
    /// Lines that each template has counted so far.
    counted: Vec<u64>,
    /// Sums over what each template has counted since they were taken; empty while none are kept.
    sums: Vec<u64>,
    /// Templates that did not count the current line, with the fields that it lacks.
    lacking: Vec<(usize, usize)>,
    pub(super) changes: Changes,
}

/// Deviations of single templates from the lines.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Number of lines that a template did not count, by template and missing field.
    pub(crate) skipped: BTreeMap<(usize, usize), u64>,
    /// Number of names that were shortened, and escaped.
    pub(crate) shortened: u64,
    pub(crate) escaped: u64,
}

/// Outcome of counting a well-formed line.
pub(super) enum Outcome {
    /// The line is in the table, for this number of templates.
    Counted(u64),
    /// A filter does not admit the line.
    Filtered,
    /// The sums would become too large. The line can be counted after the table was drained.
    Full,
}

const FULL: Reject = Reject::Shape("counter table is full");

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
        let times = plan.times();
        let utc_times = times
            .as_ref()
            .filter(|_| plan.input_zone.is_none())
            .map(|(_, times)| times.clone().in_zone(TimeZone::UTC));
        Self {
            table: Table::new(),
            times,
            utc_times,
            time_text: Vec::new(),
            caches,
            cache_of,
            active: (0..plan.templates.len()).collect(),
            metric: Vec::new(),
            spans: vec![Span::MISSING; plan.wanted.names().len()],
            weight: 0,
            is_utc: false,
            counted: vec![0; plan.templates.len()],
            sums: Vec::new(),
            lacking: Vec::new(),
            changes: Changes::default(),
        }
    }

    /// Counts the next lines, which begin at `offset`, for the templates whose start is not behind it. Returns the next start.
    pub(super) fn count_from(&mut self, offset: u64, starts: &[u64]) -> u64 {
        self.active.clear();
        self.active.extend((0..starts.len()).filter(|&template| starts[template] <= offset));
        starts.iter().copied().filter(|&start| start > offset).min().unwrap_or(u64::MAX)
    }

    /// Returns the number of lines that each template has counted so far.
    pub(super) fn counted(&self) -> &[u64] {
        &self.counted
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

    /// Keeps sums from now on, which only marks need.
    pub(super) fn keep_sums(&mut self) {
        self.sums.resize(self.counted.len(), 0);
    }

    /// Returns the sum over what each template has counted since the last call.
    pub(super) fn take_sums(&mut self) -> Vec<u64> {
        let zeros = vec![0; self.sums.len()];
        std::mem::replace(&mut self.sums, zeros)
    }

    /// Takes the times of the next lines to be in UTC, or in the zone of the plan.
    pub(super) fn set_utc(&mut self, is_utc: bool) {
        self.is_utc = is_utc;
    }

    /// Counts a line for every active template. A template that needs a field which the line lacks is skipped.
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
        if !plan.filters.iter().all(|filter| filter.admits(text, &self.spans)) {
            return Ok(Outcome::Filtered);
        }
        let field = |index: usize| self.spans[index].of(text).ok_or(Reject::Missing(index));
        let (second, again, no_time) = match &mut self.times {
            None => (read_at.as_second(), None, Reject::Shape("clock of this machine is wrong")),
            Some((fields, times)) => {
                let times = self.utc_times.as_mut().filter(|_| self.is_utc).unwrap_or(times);
                let no_time = Reject::Time(fields[0]);
                let text = if let [only] = fields[..] {
                    field(only)?
                } else {
                    self.time_text.clear();
                    for &index in &*fields {
                        // A date alone is no time.
                        let text = Some(field(index)?).filter(|text| !text.trim_ascii().is_empty());
                        self.time_text.extend_from_slice(text.ok_or(Reject::Time(index))?);
                        self.time_text.push(b' ');
                    }
                    self.time_text.trim_ascii_end()
                };
                let second = times.second(text);
                let second = second
                    .ok_or_else(|| if times.is_skipped() { Reject::Skipped(fields[0]) } else { no_time })?;
                (second, times.repeated(), no_time)
            }
        };
        let (mut n, mut weight) = (1, 0);
        if let Some(index) = plan.amount {
            n = amount(field(index)?, index)?;
            let templates = i64::try_from(self.counted.len()).unwrap_or(i64::MAX);
            // The smallest number has no magnitude of its own, and fits all the same when it is alone.
            weight = n.saturating_abs().checked_mul(templates).ok_or(Reject::TooLarge(index))?;
        }
        let Some(weight) = self.weight.checked_add(weight) else { return Ok(Outcome::Full) };
        for cache in &mut self.caches {
            // Before the first fold: a line without a bucket counts for no template.
            cache.move_to(second).ok_or(no_time)?;
            if cache.has_expired() {
                return Err(Reject::Expired);
            }
        }
        if let Some(again) = again {
            self.check_repeated(second, again, no_time)?;
        }

        let mut templates = 0;
        for &index in &self.active {
            let template = &plan.templates[index];
            if let Err(field) = template.render(text, &self.spans, absent, &mut self.metric) {
                self.lacking.push((index, field));
                continue;
            }
            let cache = &self.caches[self.cache_of[index]];
            let (bucket, hash) = (cache.bucket(), cache.hash());
            let mut fold = |metric: &str| self.table.fold(template.collection().as_str(), metric, bucket, n);
            // The table checks a name when it is new; a known one costs nothing.
            match str::from_utf8(&self.metric).map(&mut fold) {
                Ok(Ok(())) => {}
                Err(_) | Ok(Err(FoldError::Name(_))) => {
                    let (metric, fitted) = MetricName::fit(&mut self.metric);
                    self.changes.shortened += u64::from(fitted.is_shortened);
                    self.changes.escaped += u64::from(fitted.is_escaped);
                    fold(metric).map_err(|_| FULL)?;
                }
                // The weight bounds the sums, and a flush comes long before four gigabytes of names.
                Ok(Err(_)) => return Err(FULL),
            }
            if let Some(sum) = self.sums.get_mut(index) {
                *sum = sum.wrapping_add(added::of(hash, &self.metric, n));
            }
            self.counted[index] += 1;
            templates += 1;
        }
        if !self.lacking.is_empty() {
            self.note_lacking(templates)?;
        }
        self.weight = weight;
        Ok(Outcome::Counted(templates))
    }

    /// Checks that a time which the clocks showed twice, at `second` and `again`, is in the same buckets both times.
    ///
    /// # Errors
    /// It is not.
    #[cold]
    fn check_repeated(&mut self, second: i64, again: i64, no_time: Reject) -> Result<(), Reject> {
        for cache in &mut self.caches {
            let first = cache.bucket();
            cache.move_to(again).ok_or(no_time)?;
            let schedule = cache.schedule();
            let is_same = schedule.fan_out(first).eq(schedule.fan_out(cache.bucket()));
            cache.move_to(second).ok_or(no_time)?;
            match no_time {
                Reject::Time(field) if !is_same => return Err(Reject::Repeated(field)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes the templates that did not count the line.
    ///
    /// # Errors
    /// The field that a template lacks, if no template has counted the line.
    #[cold]
    fn note_lacking(&mut self, templates: u64) -> Result<(), Reject> {
        let (_, field) = self.lacking[0];
        if templates == 0 {
            self.lacking.clear();
            return Err(Reject::Missing(field));
        }
        for key in self.lacking.drain(..) {
            *self.changes.skipped.entry(key).or_default() += 1;
        }
        Ok(())
    }
}
