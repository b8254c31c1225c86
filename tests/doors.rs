//! The ways into countem: configuration, stores by URI, `count!`, kinds of programs, examples.

mod config;
mod examples;
mod global;
mod hosts;
mod start;
