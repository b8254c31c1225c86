//! A process that counts into a SQLite file, for tests that need several of them or that kill one.
//!
//! Every command prints one line per thing that a test has to know, and flushes it at once.

use std::{env, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail};
use countem::{Builder, Collector, ShutdownReport, count, engine::EngineConfig};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments[..] {
        ["count", uri, metric, threads, n] => count_much(uri, metric, threads.parse()?, n.parse()?)?,
        ["durable", uri, prefix, threads] => count_durably(start(uri)?, prefix, threads.parse()?)?,
        ["journaled", uri, prefix, threads, journal] => {
            // Slow enough that much is in the journal alone when the process is killed.
            let builder = begin(uri).flush_interval(Duration::from_millis(50)).journal(journal);
            count_durably(builder.start_blocking()?, prefix, threads.parse()?)?
        }
        ["global", uri] => count_globally(uri)?,
        ["refused", warn] => count_refused(warn.parse()?)?,
        _ => bail!("unknown command `{}`", arguments.join(" ")),
    };
    println!("accepted {} applied {}", report.accepted, report.applied);
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn begin(uri: &str) -> Builder {
    Collector::builder().store(uri).flush_interval(Duration::from_millis(5))
}

fn start(uri: &str) -> Result<Collector> {
    begin(uri).start_blocking().with_context(|| format!("cannot count into `{uri}`"))
}

/// Counts `n` events in each of `threads` threads, each as `metric` and as `shared`.
fn count_much(uri: &str, metric: &str, threads: usize, n: usize) -> Result<ShutdownReport> {
    let collector = start(uri)?;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..n {
                    collector.increment("load", metric, 1);
                    collector.increment("load", "shared", 1);
                }
            });
        }
    });
    Ok(collector.blocking().shutdown())
}

/// Counts until the process is killed. Every operation is one increment of the counter `shared` and one of a counter of its own,
/// whose name is printed when both are durable: in the store, or in the journal if there is one.
fn count_durably(collector: Collector, prefix: &str, threads: usize) -> Result<ShutdownReport> {
    thread::scope(|scope| {
        for worker in 0..threads {
            let collector = &collector;
            scope.spawn(move || {
                for operation in 0_u64.. {
                    let own = format!("{prefix}.{worker}.{operation}");
                    collector.increment("operations", "shared", 1);
                    match collector.blocking().increment_durable("operations", &own, 1) {
                        Ok(()) => println!("{own}"),
                        Err(refusal) => panic!("`{own}` was refused: {refusal}"),
                    }
                }
            });
        }
    });
    bail!("counting for ever has ended")
}

/// Counts with `count!` before a collector is installed, while it is, and after its shutdown.
fn count_globally(uri: &str) -> Result<ShutdownReport> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    one_call_site(1);
    one_call_site(1);
    let collector = start(uri)?;
    let _guard = countem::install(collector.clone())?;
    one_call_site(10);
    one_call_site(100);
    for _ in 0..3 {
        count!("global", "another-call-site");
        count!("global", "no\nname");
    }
    let second = countem::install(start("memory://")?);
    println!("second install: {}", second.err().map_or_else(|| "done".to_owned(), |e| e.to_string()));
    let report = countem::installed().context("a collector was installed")?.blocking().shutdown();
    one_call_site(1000);
    println!("refused after shutdown: {}", collector.stats().refused["closed"]);
    Ok(report)
}

/// Counts under invalid names, without a subscriber of traces.
fn count_refused(warn: bool) -> Result<ShutdownReport> {
    let config = EngineConfig { warn_on_stderr: warn, ..EngineConfig::default() };
    let collector = Collector::builder().engine_config(config).store("memory://").start_blocking()?;
    (0..3).for_each(|_| collector.increment("global", "no\nname", 1));
    Ok(collector.blocking().shutdown())
}

fn one_call_site(n: i64) {
    count!("global", "one-call-site", n);
}
