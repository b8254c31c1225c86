//! The table.

use std::{
    fmt, fs,
    path::Path,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{row::Row, usage::Usage};

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Seconds since 1970.
    began_at: u64,
    took_seconds: f64,
    cores: usize,
    /// Number of cores that other programs kept busy meanwhile, on average; `None` where the system does not tell.
    busy_with_others: Option<f64>,
    pub(crate) rows: Vec<Row>,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    machine: Option<Usage>,
}

impl Report {
    /// Begins a run.
    pub(crate) fn begin() -> Self {
        Self {
            began_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            took_seconds: 0.0,
            cores: thread::available_parallelism().map_or(1, usize::from),
            busy_with_others: None,
            rows: Vec::new(),
            began: Instant::now(),
            machine: Usage::now(),
        }
    }

    /// Ends the run.
    pub(crate) fn end(&mut self) {
        self.took_seconds = self.began.elapsed().as_secs_f64();
        let others = self.machine.zip(Usage::now()).map(|(before, after)| before.share_of_others(after));
        self.busy_with_others = others.map(|share| share * self.cores as f64);
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(file, text).with_context(|| format!("cannot write `{}`", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.rows.iter().map(Row::cells).collect();
        let mut widths = Row::headline().map(|title| title.chars().count());
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let write_line = |f: &mut fmt::Formatter<'_>, line: &[String; 6]| {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))
        };
        write_line(f, &Row::headline().map(str::to_owned))?;
        writeln!(f, "|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"))?;
        lines.iter().try_for_each(|line| write_line(f, line))?;

        let judged = self.rows.iter().filter_map(Row::is_kept);
        let (kept, missed): (Vec<_>, Vec<_>) = judged.partition(|kept| *kept);
        write!(f, "\n{} targets hold, {} MISSED", kept.len(), missed.len())?;
        write!(f, "; {:.0} s on {} cores", self.took_seconds, self.cores)?;
        match self.busy_with_others {
            Some(others) if others > 0.1 => {
                writeln!(f, "; others used {others:.1} of them meanwhile: REPEAT THIS ON A QUIET MACHINE")
            }
            _ => writeln!(f),
        }
    }
}
