//! Traffic of `countem serve --demo`: 30 days of history, and thousands of increments per second.

use std::{
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use countem::{Collector, Counter, Timestamp, jiff::tz::TimeZone};
use rand::Rng as _;

use crate::output::say;

/// Days of history.
const DAYS: i64 = 30;
/// Time between two moments in which is counted.
const TICK: Duration = Duration::from_millis(50);
const HOUR_MS: i64 = 3_600_000;
/// Traffic of the hours of a day, in percent of that of the busiest one.
const SHAPE: [i64; 24] =
    [24, 18, 15, 14, 15, 20, 31, 47, 66, 81, 91, 97, 100, 98, 95, 93, 91, 89, 87, 84, 75, 62, 46, 33];
/// Traffic of a day at the weekend, in percent of that of another.
const WEEKEND: i64 = 60;

/// A counter of the demo.
struct Source {
    collection: &'static str,
    metric: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// Increments per second in the busiest hour.
    peak: i64,
}

const fn source(
    collection: &'static str,
    metric: &'static str,
    labels: &'static [(&'static str, &'static str)],
    peak: i64,
) -> Source {
    Source { collection, metric, labels, peak }
}

const SOURCES: [Source; 18] = [
    source("web", "GET 200", &[], 2600),
    source("web", "GET 304", &[], 700),
    source("web", "GET 404", &[], 60),
    source("web", "GET 500", &[], 4),
    source("web", "POST 201", &[], 240),
    source("web", "POST 422", &[], 12),
    source("app-events", "signup", &[("country", "DE"), ("plan", "free")], 6),
    source("app-events", "signup", &[("country", "DE"), ("plan", "pro")], 2),
    source("app-events", "signup", &[("country", "ES"), ("plan", "free")], 9),
    source("app-events", "signup", &[("country", "ES"), ("plan", "pro")], 3),
    source("app-events", "signup", &[("country", "US"), ("plan", "free")], 14),
    source("app-events", "signup", &[("country", "US"), ("plan", "pro")], 5),
    source("app-events", "Cart.add", &[], 130),
    source("app-events", "Cart.remove", &[], 41),
    source("app-events", "Cart.checkout", &[], 28),
    source("jobs", "mail.sent", &[], 90),
    source("jobs", "mail.bounced", &[], 2),
    source("jobs", "report.done", &[], 11),
];

/// The configuration of the demo in `folder`: each flag, its key and its value.
pub(super) fn settings(folder: &Path) -> [(&'static str, &'static str, String); 4] {
    let path = |name: &str| folder.join(name).display().to_string();
    [
        ("--demo", "store.uri", format!("sqlite://{}", path("countem.db"))),
        ("--demo", "durability.dir", path("journal")),
        ("--demo", "time.periods", "minute,hour,day".to_owned()),
        ("--demo", "time.retention", "minute=48h".to_owned()),
    ]
}

/// Running traffic; it ends with this guard.
pub(super) struct Traffic {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Counts the history, then goes on as time goes by. The API is served at `url`.
    pub(super) fn start(collector: Collector, url: String) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            let pause = |time| matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout));
            let counted = count_history(&collector, || pause(Duration::ZERO));
            // Without the store the history is pending, and read all the same.
            let stored = collector.blocking().flush();
            if let Err(error) = stored {
                say(format_args!("countem: the history of the demo is not stored yet: {error}"));
            }
            if counted && pause(Duration::ZERO) {
                say_what_to_try(&url);
                count_on(&collector, || pause(TICK));
            }
        };
        let thread = thread::Builder::new().name("countem-demo".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            say("countem: the traffic of the demo has panicked");
        }
    }
}

fn say_what_to_try(url: &str) {
    say(format_args!(
        "countem: demo: {DAYS} days of history and living traffic, in a temporary store that goes at the end. Try"
    ));
    for (path, shows) in [
        ("counters/web", "today, growing"),
        ("top/app-events?metric=signup*&by=country&range=7d", "signups, by label"),
        ("series/web?sum=true&range=24h", "hours of the last day"),
        ("series/web?metric=GET%20*&range=30d", "the last 30 days"),
    ] {
        say(format_args!("  curl '{url}/{path}'   # {shows}"));
    }
    say(format_args!("  curl -X POST {url}/counters/web/signup   # count one yourself"));
}

/// Counts the past, by the hour, and the last day by the minute. Returns false if `goes_on` does.
fn count_history(collector: &Collector, goes_on: impl Fn() -> bool) -> bool {
    let now = Timestamp::now().as_millisecond();
    let mut at = now - DAYS * 24 * HOUR_MS;
    while at < now {
        let step = if at < now - 24 * HOUR_MS { HOUR_MS } else { 60_000 };
        let Ok(moment) = Timestamp::from_millisecond(at) else { return false };
        for source in &SOURCES {
            let n = source.rate(moment) * step.min(now - at) / HOUR_MS;
            if n == 0 {
                continue;
            }
            let Source { collection, metric, labels, .. } = source;
            if collector.increment_at_with(collection, metric, labels, n, moment).is_err() {
                return false;
            }
        }
        if !goes_on() {
            return false;
        }
        at += step;
    }
    true
}

/// Counts one increment after the other, as a service does, while `pause` returns true.
fn count_on(collector: &Collector, pause: impl Fn() -> bool) {
    let counters = SOURCES.iter().map(|source| {
        let counter = collector.counter_with(source.collection, source.metric, source.labels);
        counter.ok().map(|counter| Living { source, counter, rest: 0 })
    });
    let mut counters: Vec<_> = counters.flatten().collect();
    let mut last = Instant::now();
    while pause() {
        let elapsed = i64::try_from(last.elapsed().as_millis()).unwrap_or(i64::MAX).min(1000);
        last = Instant::now();
        let now = Timestamp::now();
        counters.iter_mut().for_each(|counter| counter.count(now, elapsed));
    }
}

/// A counter that counts on.
struct Living<'a> {
    source: &'a Source,
    counter: Counter,
    /// Less than an increment, in parts of one: [`HOUR_MS`] of them make one.
    rest: i64,
}

impl Living<'_> {
    fn count(&mut self, now: Timestamp, elapsed_ms: i64) {
        let due = self.rest + self.source.rate(now) * elapsed_ms;
        (0..due / HOUR_MS).for_each(|_| self.counter.increment(1));
        self.rest = due % HOUR_MS;
    }
}

impl Source {
    /// Increments per hour at a moment.
    fn rate(&self, at: Timestamp) -> i64 {
        let at = at.to_zoned(TimeZone::UTC);
        let hour = usize::try_from(at.hour()).unwrap_or_default();
        let is_weekend = at.weekday().to_monday_zero_offset() >= 5;
        let day = if is_weekend { WEEKEND } else { 100 };
        let chance = rand::rng().random_range(85..=115);
        self.peak * 3600 * SHAPE[hour] / 100 * day / 100 * chance / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_follows_time_of_day_and_week() {
        let rate = |at: &str| {
            let at = at.parse().unwrap();
            let rates = (0..100).map(|_| SOURCES.iter().map(|source| source.rate(at)).sum::<i64>());
            rates.sum::<i64>() / 100 / 3600
        };
        let (noon, night) = (rate("2026-11-18T12:30:00Z"), rate("2026-11-18T03:30:00Z"));
        assert!((3_500..4_500).contains(&noon), "thousands per second: {noon}");
        assert!((400..800).contains(&night), "{night}");
        let sunday = rate("2026-11-22T12:30:00Z");
        assert!(sunday < noon * 70 / 100, "{sunday} of {noon}");
    }

    #[test]
    fn rest_of_an_increment_is_counted_later() {
        let (collector, _clock) = Collector::for_test();
        let source = &SOURCES[3];
        let counter = collector.counter_with(source.collection, source.metric, source.labels).unwrap();
        let mut living = Living { source, counter, rest: 0 };
        let at = "2026-11-18T12:30:00Z".parse().unwrap();
        // 4 per second, a twentieth of a second at a time.
        (0..2000).for_each(|_| living.count(at, 50));
        let counted = collector.blocking().get(source.collection, source.metric, None).unwrap().unwrap();
        assert!((380..=420).contains(&counted), "{counted}");
    }
}
