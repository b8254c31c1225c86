//! One line of the table.

use std::fmt;

use serde::Serialize;

use crate::samples::Samples;

/// A measurement, its baseline and its target.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Both sides in words.
    what: String,
    unit: &'static str,
    /// Median over the rounds.
    countem: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
    /// Promised ratio, or promised amount where nothing is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// `None` where nothing was promised.
    holds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Baseline {
    what: String,
    value: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Ratio {
    means: Meaning,
    /// Median of the rounds' ratios: the one that is judged.
    median: f64,
    /// Ratio of the shortest times, which a busy machine disturbs less.
    of_best: f64,
}

/// Meaning of a ratio: which side is divided by which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Meaning {
    /// Time of countem by time of the baseline: less is better.
    Time,
    /// Time of the baseline by time of countem: more is better.
    Speed,
    /// Throughput by throughput of the baseline: more is better.
    Throughput,
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// Two things of the same samples.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Index of countem in the samples.
    pub(crate) countem: usize,
    /// Index of the baseline in the samples.
    pub(crate) baseline: usize,
    /// The baseline in words.
    pub(crate) against: String,
}

impl Row {
    /// Compares the times of a pair.
    pub(crate) fn compare(
        what: impl Into<String>,
        unit: &'static str,
        samples: &Samples,
        pair: Pair,
        means: Meaning,
    ) -> Self {
        let Pair { countem, baseline, against } = pair;
        let (above, below) = match means {
            Meaning::Time => (countem, baseline),
            Meaning::Speed | Meaning::Throughput => (baseline, countem),
        };
        let ratio = Ratio {
            means,
            median: samples.ratio(above, below),
            of_best: samples.best(above) / samples.best(below),
        };
        Self {
            what: what.into(),
            unit,
            countem: samples.median(countem),
            baseline: Some(Baseline { what: against, value: samples.median(baseline) }),
            ratio: Some(ratio),
            target: None,
            holds: None,
            note: None,
        }
    }

    /// Compares the throughput of `threads` threads with that of one; the samples are wall times of the same work per thread.
    pub(crate) fn scaling(what: impl Into<String>, samples: &Samples, pair: Pair, threads: u32) -> Self {
        let mut row = Self::compare(what, "ns", samples, pair, Meaning::Throughput);
        if let Some(ratio) = &mut row.ratio {
            ratio.median *= f64::from(threads);
            ratio.of_best *= f64::from(threads);
        }
        row
    }

    /// States an amount that is not compared with another one.
    pub(crate) fn amount(what: impl Into<String>, unit: &'static str, countem: f64) -> Self {
        Self {
            what: what.into(),
            unit,
            countem,
            baseline: None,
            ratio: None,
            target: None,
            holds: None,
            note: None,
        }
    }

    /// Judges the row by what was promised.
    pub(crate) fn promised(self, target: Target) -> Self {
        let judged = self.ratio.map_or(self.countem, |ratio| ratio.median);
        let holds = match target {
            Target::AtMost(max) => judged <= max,
            Target::AtLeast(min) => judged >= min,
        };
        Self { target: Some(target), holds: Some(holds), ..self }
    }

    /// Adds a remark.
    pub(crate) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Tells whether what was promised holds; `None` where nothing was promised.
    pub(crate) fn is_kept(&self) -> Option<bool> {
        self.holds
    }

    /// Returns the headline of the table.
    pub(crate) fn headline() -> [&'static str; 6] {
        ["what", "countem", "compared with", "ratio", "target", "holds"]
    }

    /// Returns the cells of this line.
    pub(crate) fn cells(&self) -> [String; 6] {
        let what = match &self.note {
            Some(note) => format!("{} ({note})", self.what),
            None => self.what.clone(),
        };
        let baseline = self.baseline.as_ref();
        let baseline = baseline.map(|it| format!("{}: {}", it.what, amount(it.value, self.unit)));
        let holds = match self.holds {
            Some(true) => "yes".to_owned(),
            Some(false) => match self.ratio {
                Some(ratio) => format!("**MISSED** ({} at best)", number(ratio.of_best)),
                None => "**MISSED**".to_owned(),
            },
            None => String::new(),
        };
        [
            what,
            amount(self.countem, self.unit),
            baseline.unwrap_or_default(),
            self.ratio.map(|ratio| format!("{} {}", number(ratio.median), ratio.means)).unwrap_or_default(),
            self.target.map(|target| target.to_string()).unwrap_or_default(),
            holds,
        ]
    }
}

fn amount(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value))
}

/// Writes a number with about three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => {
            let mut digits = format!("{value:.0}");
            let mut at = digits.len();
            while at > 3 {
                at -= 3;
                if digits[..at].ends_with(|before: char| before.is_ascii_digit()) {
                    digits.insert(at, ',');
                }
            }
            digits
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "× the time",
            Self::Speed => "× faster",
            Self::Throughput => "× the throughput",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(max) => write!(f, "≤ {}", plain(*max)),
            Self::AtLeast(min) => write!(f, "≥ {}", plain(*min)),
        }
    }
}

/// Writes a number as a person promised it.
fn plain(value: f64) -> String {
    if value < 1_000.0 { value.to_string() } else { number(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_judged_by_the_ratio_if_any() {
        let samples = Samples::in_turns(3, 2, |thing| [30.0, 10.0][thing]);
        let pair = Pair { countem: 0, baseline: 1, against: "it".to_owned() };
        let row = Row::compare("an increment", "ns", &samples, pair.clone(), Meaning::Time);
        assert_eq!(row.clone().promised(Target::AtMost(3.0)).is_kept(), Some(true));
        let missed = row.promised(Target::AtMost(2.9));
        assert_eq!(
            missed.cells(),
            [
                "an increment",
                "30.0 ns",
                "it: 10.0 ns",
                "3.00 × the time",
                "≤ 2.9",
                "**MISSED** (3.00 at best)"
            ]
        );
        let row = Row::compare("an increment", "ns", &samples, pair, Meaning::Speed);
        assert_eq!(
            row.promised(Target::AtLeast(1.0)).is_kept(),
            Some(false),
            "a third of the speed is not the speed"
        );
    }

    #[test]
    fn two_threads_in_equal_time_double_the_throughput() {
        let samples = Samples::in_turns(1, 2, |_| 10.0);
        let pair = Pair { countem: 0, baseline: 1, against: "one thread".to_owned() };
        let row = Row::scaling("two threads", &samples, pair, 2).promised(Target::AtLeast(2.0));
        assert_eq!(row.cells()[3..], ["2.00 × the throughput", "≥ 2", "yes"]);
    }

    #[test]
    fn numbers_show_the_digits_that_count() {
        let written = [0.5, 12.34, 999.6, 1_000.0, 1_234_567.8].map(number);
        assert_eq!(written, ["0.50", "12.3", "1,000", "1,000", "1,234,568"]);
    }
}
