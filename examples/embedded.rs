//! Counting in a plain program: no runtime, no server, one SQLite file.
//!
//! ```sh
//! cargo run -p countem-examples --example embedded -- /tmp/counts.db
//! ```
//!
//! Run it several times on the same file and the numbers add up. Without a path the file is made in a temporary folder.

use std::{env, error::Error, path::PathBuf, process::ExitCode, thread, time::Duration};

use countem::{Collector, Period, count};

const THREADS: u32 = 4;
const JOBS: u32 = 1000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let path = env::args_os().nth(1).map_or_else(|| temporary.path().join("counts.db"), PathBuf::from);

    // A program without a runtime needs none: `blocking()` has the async methods of a collector as blocking ones, and the
    // collector brings the few threads that bring counts to the store.
    let collector = Collector::builder()
        .store(format!("sqlite://{}", path.display()))
        .flush_interval(Duration::from_secs(1))
        .start_blocking()?;

    // `count!` counts with the collector that is installed for the whole process, in code that has no collector at hand.
    // The guard shuts it down at the end of `main`, also after an error.
    let _guard = countem::install(collector.clone())?;
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
    for (collection, counters) in collector.blocking().get_all_counters(None)? {
        for (metric, value) in counters {
            println!("  {collection:<8} {metric:<16} {:>8}", value?);
        }
    }

    // Only days are stored here. The month is summed from its days on read.
    let done = collector.blocking().get("jobs", "done", Period::Month)?.unwrap_or(0);
    println!("{}: {done} jobs done", collector.current(Period::Month)?);

    // Flushes happen every second anyway. This one returns once the counts are in the file.
    collector.blocking().flush()?;
    println!("after a flush, {} increments are pending", collector.stats().pending);

    // The last step of a program: increments are refused after it, and everything counted before it is in the file unless
    // the report says otherwise.
    let report = collector.blocking().shutdown();
    println!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does the jobs of one thread, and counts them.
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
            // Other names are looked up at every call. This never blocks and never fails.
            count!("jobs", format!("failed.{worker}"));
        }
    }
}
