//! Measures countem and its peers in turns, and puts the ratios into one table.
//!
//! Absolute times drift with the machine, ratios within one run much less: every round measures the baseline and what is
//! compared with it right after each other, and the ratio reported is the median of the rounds' ratios.

mod cases;
mod report;
mod row;
mod samples;
mod usage;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use countem_bench::memory::{self, State};

use crate::report::Report;

const USAGE: &str = "\
usage: ratios [--quick] [--only WORD] [--json FILE]

  --quick      a fifth of the rounds
  --only WORD  only the cases of one kind: increment, handle, journal, readers, new-key,
               drain, sqlite or memory
  --json FILE  write the table as JSON, too
";

/// Arguments of the command line.
#[derive(Debug, Default)]
struct Options {
    quick: bool,
    only: Option<String>,
    json: Option<PathBuf>,
    /// Measure the memory of this process and print it: how this program calls itself.
    memory: Option<State>,
}

fn main() -> ExitCode {
    let options = match options(env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprint!("ratios: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratios: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{arg}` lacks its value"));
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--only" => options.only = Some(value()?),
            "--json" => options.json = Some(value()?.into()),
            "--memory" => options.memory = Some(value()?.parse()?),
            _ => bail!("unknown argument `{arg}`"),
        }
    }
    if let Some(only) = &options.only
        && !cases::KINDS.iter().any(|(kind, _)| kind == only)
    {
        bail!("there are no cases of the kind `{only}`");
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    if let Some(state) = options.memory {
        println!("{}", serde_json::to_string(&memory::measure(state)?)?);
        return Ok(());
    }
    let mut report = Report::begin();
    for (kind, measure) in cases::KINDS {
        if options.only.as_deref().is_none_or(|only| only == *kind) {
            eprintln!("measuring {kind} …");
            report.rows.extend(measure(options.quick).with_context(|| format!("cannot measure {kind}"))?);
        }
    }
    report.end();
    print!("{report}");
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    Ok(())
}
