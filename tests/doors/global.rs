//! The process-wide collector, in a process of its own.

use std::{io::Read, process::Stdio};

use crate::support::{CounterFile, Program, counters};

#[test]
fn count_macro_counts_from_install_to_shutdown() {
    let file = CounterFile::new();
    let mut command = countem_testkit::command(env!("CARGO_BIN_EXE_node"));
    command.args(["global", &file.uri()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut node = Program::spawn(command);
    let mut log = String::new();
    node.child.streams().stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let lines = node.finish();

    assert_eq!(
        lines,
        [
            "second install: a process-wide collector is installed already",
            "refused after shutdown: 1",
            "accepted 5 applied 5",
        ]
    );
    assert_eq!(file.counters("global"), counters(&[("another-call-site", 3), ("one-call-site", 110)]));
    let told = |what| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(told("counted before a collector was installed"), 1, "once per call site:\n{log}");
    assert_eq!(told("reason=\"name\""), 2, "the first of three, and every power of two:\n{log}");
}

#[test]
fn first_refusal_is_written_without_a_subscriber() {
    for (warn, expected) in [("true", 1), ("false", 0)] {
        let mut command = countem_testkit::command(env!("CARGO_BIN_EXE_node"));
        let ran = command.args(["refused", warn]).output().unwrap();
        let written = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(written.lines().count(), expected, "{written}");
        assert_eq!(written.matches("an increment was refused: ").count(), expected, "{written}");
    }
}
