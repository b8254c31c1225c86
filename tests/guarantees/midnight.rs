//! The bucket is fixed when counted, whatever the clock says when it is stored.
//!
//! Shows G3.

use std::{thread, time::Duration};

use countem::{
    Collector, Period, Timestamp,
    engine::{Clock, EngineConfig, ManualClock, ScheduleConfig},
    jiff::{SignedDuration, tz::TimeZone},
};

use crate::support::{CounterFile, counters, date, eventually};

/// A moment between two days in a zone.
struct Midnight {
    zone: &'static str,
    /// The last millisecond of `day`.
    before: &'static str,
    /// The first moment of `next`.
    after: &'static str,
    day: &'static str,
    next: &'static str,
}

const MIDNIGHTS: [Midnight; 8] = [
    Midnight {
        zone: "UTC",
        before: "2026-11-20T23:59:59.999Z",
        after: "2026-11-21T00:00:00Z",
        day: "2026-11-20",
        next: "2026-11-21",
    },
    // Begins a day of 23 hours.
    Midnight {
        zone: "Europe/Berlin",
        before: "2026-03-28T22:59:59.999Z",
        after: "2026-03-28T23:00:00Z",
        day: "2026-03-28",
        next: "2026-03-29",
    },
    // Ends it.
    Midnight {
        zone: "Europe/Berlin",
        before: "2026-03-29T21:59:59.999Z",
        after: "2026-03-29T22:00:00Z",
        day: "2026-03-29",
        next: "2026-03-30",
    },
    // Ends a day of 25 hours.
    Midnight {
        zone: "Europe/Berlin",
        before: "2026-10-25T22:59:59.999Z",
        after: "2026-10-25T23:00:00Z",
        day: "2026-10-25",
        next: "2026-10-26",
    },
    // The clocks go back from 1:00 to 0:00 on the next day: it has two midnights, and this is the first.
    Midnight {
        zone: "America/Havana",
        before: "2026-11-01T03:59:59.999Z",
        after: "2026-11-01T04:00:00Z",
        day: "2026-10-31",
        next: "2026-11-01",
    },
    // The clocks go from 0:00 to 1:00: the next day has no midnight.
    Midnight {
        zone: "America/Sao_Paulo",
        before: "2018-11-04T02:59:59.999Z",
        after: "2018-11-04T03:00:00Z",
        day: "2018-11-03",
        next: "2018-11-04",
    },
    // The island changes sides of the date line: there was no 30 December.
    Midnight {
        zone: "Pacific/Apia",
        before: "2011-12-30T09:59:59.999Z",
        after: "2011-12-30T10:00:00Z",
        day: "2011-12-29",
        next: "2011-12-31",
    },
    Midnight {
        zone: "Asia/Kolkata",
        before: "2026-11-20T18:29:59.999Z",
        after: "2026-11-20T18:30:00Z",
        day: "2026-11-20",
        next: "2026-11-21",
    },
];

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn start(file: &CounterFile, zone: &str, clock: &ManualClock) -> Collector {
    let zone = TimeZone::get(zone).unwrap();
    file.builder().zone(zone).clock(Clock::Manual(clock.clone())).start_blocking().unwrap()
}

/// Counts 1, 10 and 100 times `n`, through every door.
fn count(collector: &Collector, handle: &countem::Counter, now: &str, n: i64) {
    collector.increment("c", "a", n);
    handle.increment(10 * n);
    collector.increment_at("c", "a", 100 * n, moment(now)).unwrap();
}

#[test]
fn delta_counted_before_midnight_lands_on_that_day() {
    for Midnight { zone, before, after, day, next } in MIDNIGHTS {
        println!("{zone}, {day}");
        let file = CounterFile::new();
        let clock = ManualClock::new(moment(before));
        let collector = start(&file, zone, &clock);
        let handle = collector.counter("c", "a").unwrap();
        count(&collector, &handle, before, 1);
        assert_eq!(collector.blocking().get_counters("c", None).unwrap(), counters(&[("a", 111)]));
        clock.set(moment(after));
        assert!(collector.blocking().get_counters("c", None).unwrap().is_empty(), "a new day begins empty");
        count(&collector, &handle, after, 2);
        // An event of the day before that is told late.
        collector.increment_at("c", "a", 1000, moment(before)).unwrap();
        collector.blocking().flush().unwrap();
        count(&collector, &handle, after, 4);
        assert!(collector.blocking().shutdown().is_complete());

        let stored = file.rows();
        let expected = [(day, 1111), (next, 666)]
            .map(|(day, n)| (("c".to_owned(), day.to_owned()), counters(&[("a", n)])));
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), expected);

        // A later start on the same file, still on the new day.
        let collector = start(&file, zone, &clock);
        collector.increment("c", "a", 1);
        let read = |day| collector.blocking().get_counters("c", day).unwrap();
        assert_eq!(read(Some(date(day))), counters(&[("a", 1111)]));
        assert_eq!(read(Some(date(next))), counters(&[("a", 667)]));
        assert_eq!(read(None), read(Some(date(next))));
    }
}

#[test]
fn repeated_hour_lies_on_one_day() {
    let file = CounterFile::new();
    let (first, second) = ("2026-11-01T04:30:00Z", "2026-11-01T05:30:00Z");
    // It is half past midnight in Havana both times.
    let clock = ManualClock::new(moment(first));
    let collector = start(&file, "America/Havana", &clock);
    collector.increment("c", "a", 1);
    clock.set(moment(second));
    collector.increment("c", "a", 10);
    clock.set(moment("2026-11-02T04:59:59.999Z"));
    collector.increment("c", "a", 100);
    clock.set(moment("2026-11-02T05:00:00Z"));
    collector.increment("c", "a", 1000);
    assert!(collector.blocking().shutdown().is_complete());
    let days: Vec<_> = file.rows().into_iter().map(|((_, day), counters)| (day, counters["a"])).collect();
    assert_eq!(days, [("2026-11-01".to_owned(), 111), ("2026-11-02".to_owned(), 1000)]);
}

#[test]
fn outage_over_midnight_moves_no_count() {
    let file = CounterFile::new();
    let clock = ManualClock::new(moment("2026-10-25T22:59:00Z"));
    let collector = start(&file, "Europe/Berlin", &clock);
    let handle = collector.counter("c", "a").unwrap();
    collector.blocking().flush().unwrap();
    let away = file.lock();
    count(&collector, &handle, "2026-10-25T22:59:00Z", 1);
    let flushing = thread::spawn({
        let collector = collector.clone();
        move || collector.blocking().flush().unwrap()
    });
    // Counted while a batch of the same day is in flight.
    eventually("a drained table", || collector.stats().pending_counters > 0);
    count(&collector, &handle, "2026-10-25T22:59:00Z", 2);
    clock.set(moment("2026-10-25T23:00:01Z"));
    count(&collector, &handle, "2026-10-25T23:00:01Z", 4);
    assert_eq!(file.sum("c"), 0, "the file was locked");
    let read = |day| collector.blocking().get_counters("c", day).unwrap();
    assert_eq!(read(Some(date("2026-10-25"))), counters(&[("a", 333)]), "read while the store is away");
    assert_eq!(read(None), counters(&[("a", 444)]), "read while the store is away");
    drop(away);
    flushing.join().unwrap();
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.accepted == 9, "{report:?}");
    let days: Vec<_> = file.rows().into_iter().map(|((_, day), counters)| (day, counters["a"])).collect();
    assert_eq!(days, [("2026-10-25".to_owned(), 333), ("2026-10-26".to_owned(), 444)]);
}

#[test]
fn nothing_is_lost_when_days_pass_under_load() {
    const THREADS: i64 = 4;
    const EACH: i64 = 20_000;
    let file = CounterFile::new();
    let clock = ManualClock::new(moment("2026-03-01T12:00:00Z"));
    let config = EngineConfig {
        flush_interval: Duration::from_millis(2),
        schedule: ScheduleConfig {
            zone: Some(TimeZone::get("Europe/Berlin").unwrap()),
            ..ScheduleConfig::of_periods([Period::Hour, Period::Day, Period::Week])
        },
        ..EngineConfig::default()
    };
    let builder = file.builder().engine_config(config).clock(Clock::Manual(clock.clone()));
    let collector = builder.start_blocking().unwrap();
    let mut now = moment("2026-03-01T12:00:00Z");
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let handle = collector.counter("c", "by-handle").unwrap();
                    for _ in 0..EACH {
                        collector.increment("c", "by-name", 1);
                        handle.increment(1);
                    }
                })
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            now = now.checked_add(SignedDuration::from_mins(90)).unwrap();
            clock.set(now);
            thread::yield_now();
        }
    });
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    assert_eq!(report.accepted, 2 * (THREADS * EACH).cast_unsigned());
    let rows = file.rows();
    for (period, length) in [("hour", 13), ("day", 10), ("week", 8)] {
        let of_period = rows.iter().filter(|((_, bucket), _)| bucket.len() == length);
        let of_period: Vec<_> = of_period.map(|(_, counters)| counters).collect();
        for metric in ["by-name", "by-handle"] {
            let sum: i64 = of_period.iter().filter_map(|counters| counters.get(metric).unwrap()).sum();
            assert_eq!(sum, THREADS * EACH, "{metric} over every {period}");
        }
        assert!(period == "week" || of_period.len() > 1, "the clock went on");
    }
}
