//! The countem command line.
fn main() {}
