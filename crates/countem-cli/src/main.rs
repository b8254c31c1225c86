#![doc = include_str!("../README.md")]

mod cli;
mod exit;
mod global;
mod ingest;
mod output;
mod stop;
mod store;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    exit::report(cli::Cli::parse().run())
}
