//! `cargo xtask bench`: the benchmarks and one table of ratios.

use anyhow::Result;

use crate::step;

/// Runs the criterion benches, then the program that puts their numbers next to each other.
///
/// # Errors
/// When one of both fails.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut benches = step::cargo(&["bench", "--package", "countem-bench"]);
    benches.args(args);
    step::run(benches)?;
    step::run(step::cargo(&["run", "--release", "--package", "countem-bench", "--bin", "ratios"]))
}
