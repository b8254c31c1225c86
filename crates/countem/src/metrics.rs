//! The statistics as OpenMetrics text.

use std::fmt;

use countem_engine::{LaneStats, Stats};
use countem_journal::Status;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

/// The media type of [`Collector::metrics`](crate::Collector::metrics), for the header `Content-Type`.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes statistics as OpenMetrics text.
pub(crate) fn of(stats: Stats) -> String {
    let mut registry = Registry::with_prefix("countem");
    registry.register_collector(Box::new(Snapshot(stats)));
    let mut written = String::new();
    text::encode(&mut written, &registry).expect("writing to a string does not fail");
    written
}

/// Statistics of one moment, so that all numbers add up.
#[derive(Debug)]
struct Snapshot(Stats);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(stats) = self;
        let mut page = Page(encoder);
        page.counter("increments_accepted", "Increments that were counted", stats.accepted)?;
        page.counter("increments_applied", "Increments that are in the store", stats.applied)?;
        page.gauge(
            "increments_pending",
            "Increments counted and not known to be in the store",
            stats.pending,
        )?;
        page.gauge(
            "increments_journaled",
            "Pending increments that survive the end of the process",
            stats.journaled,
        )?;
        page.counter(
            "increments_quarantined",
            "Increments whose counter the store could not add to",
            stats.quarantined,
        )?;
        let dropped = [("deadline", stats.dropped)];
        page.counters("increments_dropped", "Accepted increments that were given up", "reason", dropped)?;
        let refused = stats.refused.iter().map(|(reason, count)| (*reason, *count));
        page.counters("increments_refused", "Increments that were not accepted", "reason", refused)?;
        let overflowed = stats.overflowed.iter().map(|(collection, count)| (collection.as_str(), *count));
        page.counters(
            "increments_overflowed",
            "Increments counted as __overflow__",
            "collection",
            overflowed,
        )?;

        page.gauge("collectors", "Tables that threads are spread over", stats.collectors)?;
        page.counter("actor_restarts", "Actors that panicked and were replaced", stats.actor_restarts)?;
        let lanes: Vec<_> = stats.lanes.iter().enumerate().map(|(at, lane)| (at.to_string(), lane)).collect();
        let by_lane =
            |what: fn(&LaneStats) -> u64| lanes.iter().map(move |(name, lane)| (name.as_str(), what(lane)));
        page.counters("batches_applied", "Batches stored", "lane", by_lane(|lane| lane.batches))?;
        page.counters("batch_attempts", "Attempts to store a batch", "lane", by_lane(|lane| lane.attempts))?;
        page.counters("batch_failures", "Attempts that failed", "lane", by_lane(|lane| lane.failures))?;
        page.counters("batch_doubts", "Failures of unknown outcome", "lane", by_lane(|lane| lane.doubts))?;
        let failing = by_lane(|lane| lane.consecutive_failures.into());
        page.gauges("batch_failures_in_a_row", "Failed attempts since the last success", "lane", failing)?;
        let pending = by_lane(|lane| lane.pending_counters as u64);
        page.gauges("counters_pending", "Distinct counters with pending increments", "lane", pending)?;
        stats.journal.as_ref().map_or(Ok(()), |journal| page.journal(journal))
    }
}

/// Page that descriptions and numbers are written to.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn journal(&mut self, journal: &Status) -> fmt::Result {
        let is_ready = u64::from(journal.health.is_ready());
        self.gauge("journal_ready", "1 while counts can be made durable, else 0", is_ready)?;
        self.gauge(
            "journal_bytes",
            "Size of the journal and its log",
            journal.file_bytes + journal.log_bytes,
        )?;
        self.counter("journal_commits", "Transactions since the journal was opened", journal.commits)?;
        let seconds = journal.all_commits.as_secs_f64();
        self.counter("journal_commit_seconds", "Time that these transactions took", seconds)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        write_counter(encoder, value)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values
            .into_iter()
            .try_for_each(|(of, value)| write_counter(encoder.encode_family(&[(label, of)])?, value))
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .into_iter()
            .try_for_each(|(of, value)| encoder.encode_family(&[(label, of)])?.encode_gauge(&value))
    }
}

fn write_counter(mut encoder: MetricEncoder<'_>, value: impl EncodeCounterValue) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_number_of_the_statistics_is_written() {
        let mut stats = Stats::default();
        (stats.accepted, stats.applied, stats.pending, stats.journaled) = (21, 10, 5, 4);
        (stats.quarantined, stats.dropped, stats.collectors) = (3, 3, 2);
        stats.refused = [("closed", 0), ("name", 2)].into();
        stats.overflowed = [("web".to_owned(), 7)].into();
        stats.lanes = vec![LaneStats::default(); 2];
        let [first, second] = &mut stats.lanes[..] else { unreachable!("two lanes") };
        (first.batches, first.attempts, first.failures) = (8, 9, 1);
        (second.pending_counters, second.consecutive_failures) = (6, 2);
        let mut journal = Status::default();
        (journal.commits, journal.all_commits) = (11, Duration::from_millis(1500));
        (journal.file_bytes, journal.log_bytes) = (4096, 100);
        stats.journal = Some(journal);
        let text = of(stats);
        for line in [
            "# TYPE countem_increments_accepted counter",
            "countem_increments_accepted_total 21",
            "countem_increments_applied_total 10",
            "# TYPE countem_increments_pending gauge",
            "countem_increments_pending 5",
            "countem_increments_journaled 4",
            "countem_increments_quarantined_total 3",
            "countem_increments_dropped_total{reason=\"deadline\"} 3",
            "countem_increments_refused_total{reason=\"closed\"} 0",
            "countem_increments_refused_total{reason=\"name\"} 2",
            "countem_increments_overflowed_total{collection=\"web\"} 7",
            "countem_collectors 2",
            "countem_batches_applied_total{lane=\"0\"} 8",
            "countem_batch_failures_total{lane=\"0\"} 1",
            "countem_batch_failures_in_a_row{lane=\"1\"} 2",
            "countem_counters_pending{lane=\"1\"} 6",
            "countem_journal_ready 1",
            "countem_journal_bytes 4196",
            "countem_journal_commits_total 11",
            "countem_journal_commit_seconds_total 1.5",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "`{line}` is missing in\n{text}");
        }
        assert!(!of(Stats::default()).contains("journal_ready"), "there is no journal");
    }
}
