//! `cargo xtask bench`: one table of ratios.

use anyhow::{Context, Result};

use crate::step;

/// Measures countem and its peers in turns, prints one table of ratios and writes it to `target/bench.json`, or to the file
/// after `--json`. All arguments go to the program that makes the table.
///
/// # Errors
/// When something does not run. A missed target is no error: the table shows it.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut table = step::cargo(&["run", "--release", "--package", "countem-bench", "--bin", "ratios", "--"]);
    table.args(args);
    let json = match args.iter().position(|arg| arg == "--json") {
        Some(at) => step::workspace().join(args.get(at + 1).context("`--json` lacks its file")?),
        None => {
            let json = step::workspace().join("target").join("bench.json");
            table.arg("--json").arg(&json);
            json
        }
    };
    step::run(table)?;
    eprintln!("\nthe same as JSON: {}", json.display());
    Ok(())
}
