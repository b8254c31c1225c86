//! Counts one line.

use countem_core::{Deltas, FoldError, MetricName, Table};
use jiff::Timestamp;

use crate::ingest::{
    format::{Format, Span},
    lines::LONGEST_LINE,
    plan::Plan,
    reject::Reject,
    slots::Slots,
    template::Template,
    time::Times,
};

/// Counts line by line into a table.
pub(super) struct LineCounter {
    table: Table,
    /// The slot of the time and how to read it, `None` when lines are counted at the time they are read.
    times: Option<(usize, Times)>,
    /// One for each set of stored periods.
    slots: Vec<Slots>,
    /// Template by template, the index of its slots.
    slots_of: Vec<usize>,
    /// Template by template, the metric of the current line.
    metrics: Vec<Vec<u8>>,
    spans: Vec<Span>,
    /// No sum of counters in the table is larger.
    weight: i64,
}

/// What became of a line that can be counted.
pub(super) enum Outcome {
    /// It is in the table.
    Counted,
    /// It is not: the sums would become too large. It can be counted after the table was emptied.
    Full,
}

impl LineCounter {
    /// Prepares to count as `plan` says.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut slots: Vec<Slots> = Vec::new();
        let mut slots_of = Vec::new();
        for template in &plan.templates {
            let schedule = plan.calendar.schedule(template.collection().as_str());
            let known = slots.iter().position(|slots| slots.schedule() == schedule);
            slots_of.push(known.unwrap_or(slots.len()));
            if known.is_none() {
                slots.push(Slots::new(schedule.clone()));
            }
        }
        Self {
            table: Table::new(),
            times: plan.times(),
            slots,
            slots_of,
            metrics: vec![Vec::new(); plan.templates.len()],
            spans: vec![Span::MISSING; plan.wanted.names().len()],
            weight: 0,
        }
    }

    /// Returns the number of counters that are not drained yet.
    pub(super) fn counters(&self) -> usize {
        self.table.len()
    }

    /// Takes out what was counted.
    pub(super) fn drain(&mut self) -> Deltas {
        self.weight = 0;
        self.table.drain()
    }

    /// Counts a line for every template.
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
        if line.len() > LONGEST_LINE {
            return Err(Reject::TooLong);
        }
        let absent = format.absent();
        let text = format.read(line, &mut self.spans)?;
        let field = |slot: usize| self.spans[slot].of(text).ok_or(Reject::Missing(slot));
        let (second, no_time) = match &mut self.times {
            None => (read_at.as_second(), Reject::Shape("clock of this machine is wrong")),
            Some((slot, times)) => {
                let no_time = Reject::Time(*slot);
                (times.second(field(*slot)?).ok_or(no_time)?, no_time)
            }
        };
        let (mut n, mut weight) = (1, 0);
        if let Some(slot) = plan.amount {
            n = read_amount(field(slot)?).ok_or(Reject::Amount(slot))?;
            let templates = i64::try_from(self.metrics.len()).unwrap_or(i64::MAX);
            weight = n.checked_abs().and_then(|n| n.checked_mul(templates)).ok_or(Reject::Amount(slot))?;
        }
        let Some(weight) = self.weight.checked_add(weight) else { return Ok(Outcome::Full) };

        if let ([template], [metric]) = (&plan.templates[..], &mut self.metrics[..]) {
            // The table checks a name when it is new; a known one costs nothing.
            let metric = template.render(text, &self.spans, absent, metric)?;
            let bucket = self.slots[0].at(second).ok_or(no_time)?;
            fold(self.table.fold(template.collection().as_str(), metric, bucket, n))?;
        } else {
            // Everything that can be wrong is found before anything is counted.
            for (template, metric) in plan.templates.iter().zip(&mut self.metrics) {
                let metric = template.render(text, &self.spans, absent, metric)?;
                MetricName::validate(metric).map_err(|error| Reject::of_name(&error))?;
            }
            for slots in &mut self.slots {
                slots.at(second).ok_or(no_time)?;
            }
            for ((template, metric), slots) in plan.templates.iter().zip(&self.metrics).zip(&self.slots_of) {
                let metric = str::from_utf8(metric).map_err(|_| Template::NOT_UTF8)?;
                let bucket = self.slots[*slots].at(second).ok_or(no_time)?;
                fold(self.table.fold(template.collection().as_str(), metric, bucket, n))?;
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
