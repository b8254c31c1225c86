//! Counting in a plain program: no runtime, no server, one SQLite file.
//!
//! ```sh
//! cargo run -p countem-examples --example embedded -- /tmp/counts.db
//! ```
//!
//! Run it several times on the same file and the numbers add up. Without a path the file is made in a temporary folder.

use std::{env, error::Error, path::PathBuf, process::ExitCode, thread, time::Duration};

use countem::{Bucket, Collector, Period, Timestamp, count, jiff::tz::TimeZone};

const THREADS: u32 = 4;
const JOBS: u32 = 1000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let path = env::args_os().nth(1).map_or_else(|| temporary.path().join("counts.db"), PathBuf::from);

    // Every async method of a collector has a blocking twin, so a program without a runtime needs none: the collector
    // brings the few threads that bring counts to the store.
    let collector = Collector::builder()
        .store(format!("sqlite://{}", path.display()))
        .flush_interval(Duration::from_secs(1))
        .start_blocking()?;

    // `count!` counts with the collector that was installed for the whole process. It is for code that nobody wants to
    // hand a collector to.
    countem::install(collector.clone())?;
    count!("program", "starts");

    thread::scope(|scope| {
        for worker in 0..THREADS {
            // A clone is the same collector: all threads count into one table of counters.
            let collector = collector.clone();
            scope.spawn(move || work(&collector, worker));
        }
    });

    // Reads are exact at once. What is not in the file yet is added from memory.
    println!("today:");
    for (collection, counters) in collector.get_all_counters_blocking(None)? {
        for (metric, value) in counters {
            println!("  {collection:<8} {metric:<16} {value:>8}");
        }
    }

    // Only days are stored here. The month is the sum of its days, made when somebody asks.
    let month = Bucket::containing(Period::Month, Timestamp::now(), &TimeZone::UTC)?;
    let done = collector.get_blocking("jobs", "done", month)?.unwrap_or(0);
    println!("{month}: {done} jobs done");

    // A flush happens every second anyway. Who has to know that the counts are in the file asks for one.
    collector.flush_blocking()?;
    println!("after a flush, {} increments are pending", collector.stats().pending);

    // The last thing a program does: nothing is counted after it, and everything counted before it is in the file unless
    // the report says otherwise.
    let report = collector.shutdown_blocking();
    println!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does the jobs of one thread, and counts what happens.
fn work(collector: &Collector, worker: u32) {
    // A handle is the fastest way to a counter whose name is always the same.
    let done = match collector.counter("jobs", "done") {
        Ok(done) => done,
        Err(error) => unreachable!("two constant names are valid: {error}"),
    };
    for job in 0..JOBS {
        done.increment(1);
        // Amounts are signed and need not be 1.
        count!("jobs", "bytes", i64::from(job));
        if job % 100 == 0 {
            // A name that is made on the way goes through the collector itself. This never blocks and never fails.
            collector.increment("jobs", &format!("failed.{worker}"), 1);
        }
    }
}
