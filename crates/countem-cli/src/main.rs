#![doc = include_str!("../README.md")]

mod commands;
mod exit;
mod global;
mod ingest;
mod input;
mod output;
mod progress;
mod stop;
mod store;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = commands::Cli::try_parse().unwrap_or_else(|error| exit::refuse(error));
    exit::report(cli.run())
}
