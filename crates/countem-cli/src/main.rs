#![doc = include_str!("../README.md")]

mod cli;
mod courier;
mod exit;
mod ingest;
mod journal;
mod output;
mod presence;
mod stop;
mod store;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    exit::report(cli::Cli::parse().run())
}
