//! The memory of pending counters, each state in a process of its own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use countem_bench::memory::{COUNTERS, Resident, State};

use crate::row::{Row, Target};

/// One megabyte as people count disks and memory in tables: 10⁶ bytes.
const MB: f64 = 1e6;

/// Resident memory of a million pending counters.
pub(crate) fn pending(_quick: bool) -> Result<Vec<Row>> {
    if !cfg!(target_os = "linux") {
        eprintln!("memory is not measured: this system has no `/proc`");
        return Ok(Vec::new());
    }
    State::ALL.into_iter().map(row).collect()
}

fn row(state: State) -> Result<Row> {
    let Resident { pending, peak } = in_child(state)?;
    let what = format!("{COUNTERS} pending counters of 25-byte names, {}", state.label());
    let note = format!("resident, peak {:.0} MB", peak as f64 / MB);
    Ok(Row::amount(what, "MB", pending as f64 / MB).noted(note).promised(Target::AtMost(160.0)))
}

fn in_child(state: State) -> Result<Resident> {
    // Finds this program even after a build has replaced its file.
    let mut child = Command::new("/proc/self/exe");
    let output =
        child.args(["--memory", state.word()]).output().context("cannot start this program again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "measuring memory failed ({}): {}", output.status, said.trim());
    serde_json::from_slice(&output.stdout).context("the measuring process printed something else")
}
