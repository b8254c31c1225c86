//! Other processes: this test program once more, in one of its tests.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

const FOLDER: &str = "COUNTEM_TEST_FOLDER";
const NUMBER: &str = "COUNTEM_TEST_NUMBER";

/// What a test finds when it was started by itself.
pub(crate) struct Task {
    /// The folder that the parent wants it to use.
    pub(crate) folder: PathBuf,
    /// A number that tells the children of one parent apart.
    pub(crate) number: u64,
}

impl Task {
    /// Returns the task, `None` in a test that was started by a person.
    pub(crate) fn given() -> Option<Self> {
        let folder = std::env::var_os(FOLDER)?.into();
        let number = std::env::var(NUMBER).unwrap().parse().unwrap();
        Some(Self { folder, number })
    }

    /// Tells the parent something.
    pub(crate) fn tell(what: &str) {
        // The test harness has begun a line of its own.
        println!("\ntold: {what}");
    }
}

/// Returns the command that runs `test`, of which only that much is true: a [`Task`] is given.
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

/// A process that ends with its test.
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

    /// Waits for what the process tells next, `None` when it has ended.
    pub(crate) fn next_told(&mut self) -> Option<String> {
        self.lines.find_map(|line| line.unwrap().strip_prefix("told: ").map(str::to_owned))
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the process, and returns the last thing it told.
    pub(crate) fn finish(mut self) -> Option<String> {
        let mut last = None;
        while let Some(told) = self.next_told() {
            last = Some(told);
        }
        let status: ExitStatus = self.child.wait().unwrap();
        assert!(status.success(), "{status}, last told: {last:?}");
        last
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when the process has ended, as it should have.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
