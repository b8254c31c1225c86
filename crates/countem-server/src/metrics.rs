//! Numbers of the server itself; those of the engine come from its statistics.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::problem::Code;

/// Requests and increments since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Answers by status.
    answers: Mutex<BTreeMap<u16, u64>>,
    /// Refused requests by code.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    accepted: AtomicU64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub(crate) fn answered(&self, status: u16) {
        *self.answers.lock().entry(status).or_default() += 1;
    }

    pub(crate) fn refused(&self, code: Code) {
        *self.refusals.lock().entry(code.name()).or_default() += 1;
    }

    pub(crate) fn accepted(&self, increments: usize) {
        self.accepted.fetch_add(increments as u64, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, code: Code) {
        *self.rejected.lock().entry(code.name()).or_default() += 1;
    }

    /// Writes the numbers in the text format of OpenMetrics, without the end.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, samples: Vec<(String, u64)>| {
            text.push_str(&format!("# HELP {name} {help}.\n# TYPE {name} counter\n"));
            for (labels, value) in samples {
                text.push_str(&format!("{name}_total{labels} {value}\n"));
            }
        };
        let by = |key: &str, counts: &Mutex<BTreeMap<&'static str, u64>>| -> Vec<_> {
            counts.lock().iter().map(|(name, count)| (format!("{{{key}=\"{name}\"}}"), *count)).collect()
        };
        let answers = self.answers.lock();
        let answers =
            answers.iter().map(|(status, count)| (format!("{{status=\"{status}\"}}"), *count)).collect();
        family("countem_http_responses", "Answers by status", answers);
        family("countem_http_refusals", "Refused requests by code", by("code", &self.refusals));
        let accepted = vec![("{door=\"http\"}".to_owned(), self.accepted.load(Ordering::Relaxed))];
        family("countem_door_accepted", "Increments accepted by door", accepted);
        let rejected = self.rejected.lock();
        let rejected =
            rejected.iter().map(|(code, n)| (format!("{{door=\"http\",code=\"{code}\"}}"), *n)).collect();
        family("countem_door_rejected", "Increments rejected by door and code", rejected);
        text
    }
}
