//! `cargo xtask bench`: one table of ratios, and the benchmarks behind it.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::step;

/// Measures countem and its peers in turns, prints one table of ratios and writes it to `target/bench.json`, or to the file
/// after `--json`.
///
/// With `--criterion`, runs the criterion benches before; what follows goes to `cargo bench`. Other arguments go to the
/// program that makes the table.
///
/// # Errors
/// When something does not run. A target that is missed is no error: the table says so.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (ratios, criterion) = match args.iter().position(|arg| arg == "--criterion") {
        Some(at) => (&args[..at], Some(&args[at + 1..])),
        None => (args, None),
    };
    if let Some(args) = criterion {
        let mut benches = step::cargo(&["bench", "--package", "countem-bench", "--benches"]);
        benches.args(args);
        step::run(benches)?;
    }
    let mut table = step::cargo(&["run", "--release", "--package", "countem-bench", "--bin", "ratios", "--"]);
    table.args(ratios);
    let json = match ratios.iter().position(|arg| arg == "--json") {
        Some(at) => {
            ensure!(at + 1 < ratios.len(), "`--json` lacks its file");
            step::workspace().join(&ratios[at + 1])
        }
        None => {
            let json: PathBuf = step::workspace().join("target").join("bench.json");
            table.arg("--json").arg(&json);
            json
        }
    };
    step::run(table)?;
    eprintln!("\nthe same as JSON: {}", json.display());
    Ok(())
}
