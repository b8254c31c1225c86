//! Tasks of the countem workspace: `cargo xtask test`, `tidy`, `bench`, `deb` and `mongod`.

mod bench;
mod deb;
#[allow(unreachable_pub, reason = "public in the test kit, whose file this is: one order of search for both")]
#[path = "../../countem-testkit/src/find.rs"]
mod find;
mod mongod;
mod server;
mod step;
mod test;
mod tidy;

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <TASK> [ARGS]…

  test             run all tests of the workspace: unit, integration, interleavings and doc tests
  test --fast      run the tests that need no server; takes minutes
  test ARGS…       run only `cargo nextest run` (or `cargo test`) with these arguments
  tidy             report breaches of the rules for files, words, modules and guarantees
  bench [ARGS…]    run the benchmarks and print one table of ratios; [--quick] [--only KIND] [--json FILE]
  deb              build the Debian package; [--binary FILE] packs another program
  mongod           print the path of a MongoDB server for the tests; fetch one if there is none
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match task.as_str() {
        "test" => test::run(&args),
        "tidy" => tidy::run(),
        "bench" => bench::run(&args),
        "deb" => deb::run(&args),
        "mongod" => mongod::print(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        unknown => {
            if !unknown.is_empty() {
                eprintln!("unknown task `{unknown}`");
            }
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
