//! Child processes: this test program again, running one of its tests.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

const FOLDER: &str = "COUNTEM_TEST_FOLDER";
const NUMBER: &str = "COUNTEM_TEST_NUMBER";

/// Task of a test in a child process.
pub(crate) struct Task {
    /// Folder to work in.
    pub(crate) folder: PathBuf,
    /// Distinguishes the children of one parent.
    pub(crate) number: u64,
}

impl Task {
    /// Returns the task, `None` in the parent process.
    pub(crate) fn of_this_process() -> Option<Self> {
        let folder = std::env::var_os(FOLDER)?.into();
        let number = std::env::var(NUMBER).unwrap().parse().unwrap();
        Some(Self { folder, number })
    }

    /// Sends a line to the parent.
    pub(crate) fn report(line: &str) {
        // The test harness has begun a line of its own.
        println!("\nreported: {line}");
    }
}

/// Returns the command that runs `test` of `program` with a [`Task`].
pub(crate) fn command(program: &Path, test: &str, folder: &Path, number: u64) -> Command {
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(NUMBER, number.to_string());
    command
}

/// Starts this program in `test`.
pub(crate) fn start(test: &str, folder: &Path, number: u64) -> Process {
    Process::start(&mut command(&std::env::current_exe().unwrap(), test, folder, number))
}

/// A process that is killed when its test ends.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for the next line that the process reports, `None` when it has ended.
    pub(crate) fn next_report(&mut self) -> Option<String> {
        self.lines.find_map(|line| line.unwrap().strip_prefix("reported: ").map(str::to_owned))
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the process, and returns its last line.
    pub(crate) fn finish(mut self) -> Option<String> {
        let mut last = None;
        while let Some(line) = self.next_report() {
            last = Some(line);
        }
        let status: ExitStatus = self.child.wait().unwrap();
        assert!(status.success(), "{status}, last line: {last:?}");
        last
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when the process has ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
