//! Tasks of the countem workspace.
fn main() {}
