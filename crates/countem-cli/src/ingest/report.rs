//! The report of an `ingest` run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Error, Result};
use countem_core::{Bucket, Deltas, Period, Schedules};
use countem_lines::{Reject, Wanted};
use countem_store::Quarantined;
use jiff::{civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    ingest::{count::Changes, delivery::Delivered},
    output::{Format, Listing, grouped, plural, shown as escape, without_codes},
};

/// Number of lines shown for each reason.
const EXAMPLES: usize = 3;

/// Characters shown of a rejected line.
const EXCERPT: usize = 120;

/// Statistics of the counting thread. Every line is counted, blank or rejected.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    wanted: Wanted,
    pub(crate) inputs: u64,
    pub(crate) lines: u64,
    pub(crate) counted: u64,
    pub(crate) blank: u64,
    /// Lines that a filter does not admit.
    pub(crate) filtered: u64,
    pub(crate) changes: Changes,
    /// Sum of the amounts that were counted, by collection.
    totals: BTreeMap<String, i128>,
    /// Days on which lines were counted.
    days: BTreeSet<Date>,
    /// Increments of the counted lines: one for each counter that counts the line.
    pub(crate) accepted: u64,
    /// NUL bytes before lines.
    pub(crate) nuls: u64,
    /// Inputs that are copies in the making of others.
    pub(crate) copies: Vec<Arc<str>>,
    /// Inputs that may be copies of longer files that were counted.
    pub(crate) lagging: Vec<Arc<str>>,
    /// Uncompressed bytes that were counted by earlier runs.
    pub(crate) skipped: u64,
    rejected: BTreeMap<Reject, Rejected>,
    failed: Vec<(Arc<str>, Error)>,
}

/// The lines rejected for one reason.
#[derive(Debug, Default)]
struct Rejected {
    lines: u64,
    examples: Vec<Example>,
}

#[derive(Debug)]
struct Example {
    input: Arc<str>,
    line: u64,
    text: String,
}

/// Outcome of a run, for the user.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    pub(crate) delivered: Delivered,
    /// Values of `--count`.
    pub(crate) counts: Vec<String>,
    /// The store, without secrets.
    pub(crate) store: String,
    pub(crate) took: Duration,
    /// A signal ended the run before everything was read.
    pub(crate) interrupted: bool,
}

impl Tally {
    /// Returns an empty tally of lines whose fields are `wanted`.
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Notes a line that was not counted.
    #[cold]
    pub(crate) fn reject(&mut self, reject: Reject, input: &Arc<str>, line: u64, text: &[u8]) {
        let rejected = self.rejected.entry(reject).or_default();
        rejected.lines += 1;
        if rejected.examples.len() < EXAMPLES {
            rejected.examples.push(Example { input: Arc::clone(input), line, text: excerpt(text) });
        }
    }

    /// Notes the totals and the days of counts.
    pub(crate) fn cover(&mut self, deltas: &Deltas, schedules: &Schedules) {
        let mut last = None;
        for delta in deltas.iter() {
            match self.totals.get_mut(delta.collection) {
                Some(total) => *total += i128::from(delta.n),
                None => drop(self.totals.insert(delta.collection.to_owned(), delta.n.into())),
            }
            // Many deltas have the same bucket.
            if last.replace(delta.bucket) != Some(delta.bucket) {
                self.days.extend(day(delta.bucket, schedules));
            }
        }
    }

    /// Notes an input that could not be read to its end.
    pub(crate) fn fail(&mut self, input: &Arc<str>, error: Error) {
        self.failed.push((Arc::clone(input), error));
    }

    /// Returns the reason of the first rejected line.
    pub(crate) fn reason(&self) -> Option<String> {
        self.rejected.keys().next().map(|reject| reject.reason(&self.wanted).into_owned())
    }

    /// Returns the error of the first input that could not be read to its end.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failed.pop().map(|(_, error)| error)
    }

    /// Returns the number of rejected lines.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.values().map(|rejected| rejected.lines).sum()
    }
}

/// Returns the first day of a bucket, `None` for all time.
fn day(bucket: Bucket, schedules: &Schedules) -> Option<Date> {
    match bucket.period() {
        Period::All => None,
        period if period.is_civil() => Some(bucket.start().date()),
        _ => {
            let begin = bucket.start_instant(&TimeZone::UTC);
            Some(schedules.zone(begin).to_datetime(begin).date())
        }
    }
}

/// Returns the beginning of a line in printable characters.
pub(crate) fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * EXCERPT)]);
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == EXCERPT {
            shown.push('…');
            break;
        }
        shown.push(c);
    }
    escape(&shown)
}

impl Report {
    /// Returns the exit code of the run.
    ///
    /// # Errors
    /// The failure of the store, or of an input when no line was read.
    pub(crate) fn exit(self) -> Result<Exit> {
        if let Some(error) = self.delivered.failure {
            return Err(error.into());
        }
        let is_whole = self.tally.rejected() == 0
            && self.tally.failed.is_empty()
            && self.tally.lagging.is_empty()
            && self.delivered.quarantined.is_empty()
            && !self.interrupted;
        if self.tally.lines == 0
            && let Some((input, error)) = self.tally.failed.into_iter().next()
        {
            return Err(error.context(format!("could not read all of `{input}`")));
        }
        Ok(if is_whole { Exit::Ok } else { Exit::Partly })
    }

    /// Writes the report in the chosen format.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Table => write!(out, "{self}")?,
            Format::Json | Format::Ndjson => writeln!(out, "{}", self.to_json())?,
            Format::Csv | Format::CsvSafe | Format::OpenMetrics => self.to_listing().write_csv(out, false)?,
        }
        out.flush()
    }

    fn accepted(&self) -> u64 {
        self.tally.accepted
    }

    fn quarantined(&self) -> u64 {
        self.delivered.quarantined.iter().map(|counter| counter.increments).sum()
    }

    /// Returns a line that says how many increments are stored.
    pub(crate) fn stored(&self) -> String {
        let (stored, accepted) = (grouped(self.delivered.increments), grouped(self.accepted()));
        format!("stored {stored} of {accepted} increments in {}", self.store)
    }

    /// Returns the number of increments that are certainly not stored.
    fn not_stored(&self) -> u64 {
        let Delivered { increments, in_doubt, .. } = self.delivered;
        self.accepted().saturating_sub(increments + in_doubt + self.quarantined())
    }

    fn skipped(&self, (template, field): (usize, usize), lines: u64) -> Value {
        json!({"count": self.counts[template], "field": self.tally.wanted.names()[field], "lines": lines})
    }

    /// Returns the lines per second, zero where no time passed.
    fn rate(&self) -> f64 {
        let rate = self.tally.lines as f64 / self.took.as_secs_f64();
        if rate.is_finite() { rate.round() } else { 0.0 }
    }

    fn to_json(&self) -> Value {
        let Self { tally, delivered, .. } = self;
        let example =
            |example: &Example| json!({"input": *example.input, "line": example.line, "text": example.text});
        let reason = |(reject, rejected): (&Reject, &Rejected)| {
            let examples: Vec<_> = rejected.examples.iter().map(example).collect();
            json!({"reason": reject.reason(&tally.wanted), "lines": rejected.lines, "examples": examples})
        };
        let failed = |(input, error): &(Arc<str>, Error)| json!({"input": **input, "error": without_codes(&format!("{error:#}"))});
        json!({
            "inputs": tally.inputs,
            "lines": tally.lines,
            "counted": tally.counted,
            "blank": tally.blank,
            "filtered": tally.filtered,
            "rejected": tally.rejected(),
            "skipped_bytes": tally.skipped,
            "nul_bytes": tally.nuls,
            "copies": tally.copies.iter().map(|name| &**name).collect::<Vec<_>>(),
            "lagging": tally.lagging.iter().map(|name| &**name).collect::<Vec<_>>(),
            "reasons": tally.rejected.iter().map(reason).collect::<Vec<_>>(),
            "skipped": tally.changes.skipped.iter().map(|(key, lines)| self.skipped(*key, *lines)).collect::<Vec<_>>(),
            "names": {"shortened": tally.changes.shortened, "escaped": tally.changes.escaped},
            "failed": tally.failed.iter().map(failed).collect::<Vec<_>>(),
            "increments": {
                "accepted": self.accepted(),
                "stored": delivered.increments,
                "quarantined": self.quarantined(),
                "not_stored": self.not_stored(),
                "in_doubt": delivered.in_doubt,
            },
            "counters": delivered.counters,
            "days": {"count": tally.days.len(), "first": tally.days.first().map(Date::to_string), "last": tally.days.last().map(Date::to_string)},
            "totals": tally.totals.iter().map(|(name, total)| (name.clone(), number(*total))).collect::<serde_json::Map<_, _>>(),
            "store": self.store,
            "interrupted": self.interrupted,
            "seconds": (self.took.as_secs_f64() * 1000.0).round() / 1000.0,
            "lines_per_second": self.rate(),
        })
    }

    fn to_listing(&self) -> Listing {
        let columns = &["lines", "counted", "blank", "rejected", "stored", "not_stored", "in_doubt"];
        let tally = &self.tally;
        let numbers = [
            tally.lines,
            tally.counted,
            tally.blank,
            tally.rejected(),
            self.delivered.increments,
            self.not_stored(),
            self.delivered.in_doubt,
        ];
        let mut listing = Listing::new(columns);
        listing.push(numbers.map(|n| i64::try_from(n).unwrap_or(i64::MAX).into()));
        listing
    }
}

/// Returns a sum as a JSON number, or as text where it exceeds 64 bits.
fn number(total: i128) -> Value {
    serde_json::to_value(total).unwrap_or_else(|_| total.to_string().into())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let (lines, counted) = (grouped(tally.lines), grouped(tally.counted));
        let (seconds, rate) = (self.took.as_secs_f64(), indicatif::HumanFloatCount(self.rate()));
        let interrupted = if self.interrupted { ", interrupted" } else { "" };
        let blank =
            if tally.blank > 0 { format!(", blank {},", grouped(tally.blank)) } else { String::new() };
        let is_stored = self.delivered.increments >= self.accepted();
        let into = if is_stored { format!(" into {}", self.store) } else { String::new() };
        writeln!(
            f,
            "counted {counted} of {lines} lines{blank}{into} in {seconds:.2} s, {rate} lines/s{interrupted}"
        )?;
        if let (Some(first), Some(last)) = (tally.days.first(), tally.days.last()) {
            let count = tally.days.len();
            let days = if count == 1 {
                format!("1 day, {first}")
            } else {
                format!("{count} days, {first} … {last}")
            };
            let totals: Vec<_> = tally.totals.iter().map(|(name, total)| format!("{name} {total}")).collect();
            writeln!(f, "{days}: {}", totals.join(", "))?;
        }
        if !is_stored {
            writeln!(f, "{}", self.stored())?;
        }
        if tally.skipped > 0 {
            writeln!(f, "skipped {} that were counted before", plural(tally.skipped, "byte"))?;
        }
        if tally.filtered > 0 {
            writeln!(f, "left out {} by --where", plural(tally.filtered, "line"))?;
        }
        for ((template, field), lines) in &tally.changes.skipped {
            let (count, field) = (&self.counts[*template], &tally.wanted.names()[*field]);
            let text = format!("skipped {} without `{{{field}}}` for `{count}`", plural(*lines, "line"));
            writeln!(f, "{}", escape(&text))?;
        }
        let Changes { shortened, escaped, .. } = tally.changes;
        if shortened > 0 {
            writeln!(f, "shortened {} of more than 512 bytes", plural(shortened, "name"))?;
        }
        if escaped > 0 {
            writeln!(f, "escaped {} with bytes that cannot be shown", plural(escaped, "name"))?;
        }
        if tally.nuls > 0 {
            writeln!(f, "skipped {} before lines", plural(tally.nuls, "NUL byte"))?;
        }
        for name in &tally.copies {
            let name = escape(name);
            writeln!(f, "left out {name}: it is the beginning of the file that it is a rotated copy of")?;
        }
        for name in &tally.lagging {
            let name = escape(name);
            writeln!(
                f,
                "left out {name}: it is the beginning of a longer file that was counted, and waits until it is longer"
            )?;
            writeln!(
                f,
                "if {name} is another file, `countem forget {name}` forgets the longer one, and the next run counts it"
            )?;
        }
        if tally.rejected() > 0 {
            writeln!(f, "rejected {}", plural(tally.rejected(), "line"))?;
        }
        for (reject, rejected) in &tally.rejected {
            writeln!(f, "  {:>9}  {}", grouped(rejected.lines), escape(&reject.reason(&tally.wanted)))?;
            for Example { input, line, text } in &rejected.examples {
                writeln!(f, "             {}:{line}: {text}", escape(input))?;
            }
        }
        for (input, error) in tally.failed.iter().skip(usize::from(tally.lines == 0)) {
            let text = without_codes(&format!("could not read all of `{input}`: {error:#}"));
            writeln!(f, "{}", escape(&text))?;
        }
        for counter in self.delivered.quarantined.iter().take(EXAMPLES) {
            let Quarantined { collection, metric, bucket, n, reason, .. } = counter;
            let text = format!("could not add {n} to `{metric}` of `{collection}` on {bucket}: {reason}");
            writeln!(f, "{}", escape(&text))?;
        }
        if self.quarantined() > 0 {
            writeln!(f, "quarantined {} increments", grouped(self.quarantined()))?;
        }
        if self.not_stored() > 0 {
            writeln!(f, "not stored: {} increments", grouped(self.not_stored()))?;
        }
        if self.delivered.in_doubt > 0 {
            let in_doubt = grouped(self.delivered.in_doubt);
            let advice = "may be stored; counting them again could count them twice";
            writeln!(f, "in doubt: {in_doubt} increments ({advice})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut tally = Tally {
            inputs: 1,
            lines: 1234567,
            counted: 1234560,
            blank: 3,
            accepted: 1234560,
            ..Tally::default()
        };
        let name: Arc<str> = "a.log".into();
        for line in 1..5 {
            tally.reject(Reject::TooLong, &name, line, b"x\t\xff");
        }
        let delivered = Delivered { increments: 1234560, counters: 9, ..Delivered::default() };
        let took = Duration::from_millis(500);
        Report { tally, delivered, counts: Vec::new(), store: "memory://".into(), took, interrupted: false }
    }

    fn written(report: &Report, format: Format) -> String {
        let mut out = Vec::new();
        report.write(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_shows_examples_of_every_reason() {
        let expected = "counted 1,234,560 of 1,234,567 lines, blank 3, into memory:// in 0.50 s, 2,469,134 lines/s\n\
            rejected 4 lines\n          4  line is longer than 1 MiB\n             a.log:1: x\\t\u{fffd}\n             \
            a.log:2: x\\t\u{fffd}\n             a.log:3: x\\t\u{fffd}\n";
        assert_eq!(written(&report(), Format::Table), expected);
    }

    #[test]
    fn numbers_add_up_in_every_format() {
        let value: Value = serde_json::from_str(&written(&report(), Format::Json)).unwrap();
        let sum: u64 = ["counted", "blank", "rejected"].iter().map(|key| value[key].as_u64().unwrap()).sum();
        assert_eq!(value["lines"], sum);
        assert_eq!(value["reasons"][0]["examples"].as_array().unwrap().len(), EXAMPLES);
        assert_eq!(value["increments"]["not_stored"], 0);
        let csv = written(&report(), Format::Csv);
        assert_eq!(
            csv,
            "lines,counted,blank,rejected,stored,not_stored,in_doubt\n1234567,1234560,3,4,1234560,0,0\n"
        );
    }

    #[test]
    fn in_doubt_is_not_reported_as_not_stored() {
        let delivered = Delivered { increments: 1_000_000, in_doubt: 234_000, ..Delivered::default() };
        let report = Report { delivered, ..report() };
        let text = written(&report, Format::Table);
        let expected = "not stored: 560 increments\nin doubt: 234,000 increments \
            (may be stored; counting them again could count them twice)\n";
        assert!(text.ends_with(expected), "{text}");
        let begin = "counted 1,234,560 of 1,234,567 lines, blank 3, in 0.50 s, 2,469,134 lines/s\n\
            stored 1,000,000 of 1,234,560 increments in memory://\n";
        assert!(text.starts_with(begin), "{text}");
        let value: Value = serde_json::from_str(&written(&report, Format::Json)).unwrap();
        let increments = &value["increments"];
        let sum: u64 = ["stored", "quarantined", "not_stored", "in_doubt"]
            .iter()
            .map(|key| increments[key].as_u64().unwrap())
            .sum();
        assert_eq!(increments["accepted"], sum);
        assert_eq!(increments["in_doubt"], 234_000);
        let csv = written(&report, Format::Csv);
        assert!(
            csv.ends_with("rejected,stored,not_stored,in_doubt\n1234567,1234560,3,4,1000000,560,234000\n")
        );
    }

    #[test]
    fn bad_lines_make_a_run_partly_done() {
        assert_eq!(report().exit().unwrap(), Exit::Partly);
        let whole = || Report { tally: Tally { lines: 1, counted: 1, ..Tally::default() }, ..report() };
        assert_eq!(whole().exit().unwrap(), Exit::Ok);
        assert_eq!(Report { interrupted: true, ..whole() }.exit().unwrap(), Exit::Partly);
        let mut failed = whole();
        let mut lagging = whole();
        lagging.tally.lagging.push("a".into());
        assert_eq!(lagging.exit().unwrap(), Exit::Partly);
        failed.tally.fail(&"a".into(), anyhow::anyhow!("gone"));
        assert_eq!(failed.exit().unwrap(), Exit::Partly);
        let mut nothing = Report { tally: Tally::default(), ..report() };
        nothing.tally.fail(&"a".into(), anyhow::anyhow!("gone"));
        assert!(nothing.exit().is_err());
    }

    #[test]
    fn an_excerpt_is_short_and_printable() {
        let shown = excerpt(&[b'\x1b'; 4000]);
        assert!(shown.starts_with("\\u{1b}") && shown.ends_with('…'));
        assert_eq!(excerpt("ä".repeat(1000).as_bytes()).chars().count(), EXCERPT + 1);
    }
}
