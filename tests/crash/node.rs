//! Starting `crash_node` and listening to it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use countem_testkit::Child;

const NODE: &str = env!("CARGO_BIN_EXE_crash_node");

/// Maximum time of any step on a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// One line of the output of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// It counts.
    Started,
    /// The operation is durable.
    Acknowledged(String),
    /// The operation is counted, and not durable yet.
    Unsure(String),
    /// The operation was refused after it had counted `shared`.
    Half(String),
    /// The operation was refused.
    Refused(String),
    /// The health of the journal has changed.
    Health(String),
    /// It has shut down; whether everything is stored.
    Ended(bool),
    /// A number that it was asked for.
    Number(String, u64),
}

impl Line {
    fn read(text: &str) -> Self {
        let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.to_owned();
        match what {
            "started" => Self::Started,
            "ack" => Self::Acknowledged(rest),
            "unsure" => Self::Unsure(rest),
            "half" => Self::Half(rest),
            "none" => Self::Refused(rest),
            "health" => Self::Health(rest),
            "ended" => Self::Ended(rest == "true"),
            _ => Self::Number(what.to_owned(), rest.parse().unwrap_or_else(|_| panic!("it said `{text}`"))),
        }
    }
}

/// A process that is about to be started.
pub(super) struct Start {
    store: String,
    journal: String,
    arguments: Vec<String>,
    fail: String,
    ignores_file_limit: bool,
}

/// A running process. Killed when it is dropped.
pub(super) struct Node {
    child: Child,
    lines: Receiver<Line>,
    heard: Vec<Line>,
}

impl Start {
    pub(super) fn new(store: &str, journal: &Path) -> Self {
        let journal = journal.to_str().unwrap().to_owned();
        let (arguments, fail) = (Vec::new(), String::new());
        Self { store: store.to_owned(), journal, arguments, fail, ignores_file_limit: false }
    }

    pub(super) fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.push(format!("{key}={value}"));
        self
    }

    /// Lets its journal fail, or the process die in it, at a fail point.
    pub(super) fn failing(self, point: &str, actions: &str) -> Self {
        Self { fail: format!("{}/{point}={actions}", self.journal), ..self }
    }

    /// Lets writes beyond a file size limit fail with an error instead of a signal.
    pub(super) fn ignoring_file_limit(self) -> Self {
        Self { ignores_file_limit: true, ..self }
    }

    pub(super) fn start(self) -> Node {
        let mut command = if self.ignores_file_limit {
            let mut command = countem_testkit::command("sh");
            command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#, NODE]);
            command
        } else {
            countem_testkit::command(NODE)
        };
        command.args([&self.store, &self.journal]).args(&self.arguments);
        if !self.fail.is_empty() {
            command.env("FAILPOINTS", &self.fail);
        }
        Node::spawn(command)
    }
}

impl Node {
    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn(command).unwrap();
        let stdout = child.streams().stdout.take().expect("standard output is a pipe");
        let (said, lines) = channel();
        // Always read, so that the process never waits for this one.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(Line::read(&line)).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, heard: Vec::new() }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Listens until a line is the one that is waited for.
    #[track_caller]
    pub(super) fn wait_for(&mut self, what: &str, mut is_it: impl FnMut(&Line) -> bool) {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("{what} did not happen"),
                Err(RecvTimeoutError::Disconnected) => panic!("the process ended before {what}"),
            };
            let found = is_it(&line);
            self.heard.push(line);
            if found {
                return;
            }
        }
    }

    /// Waits until it has acknowledged `n` more operations.
    #[track_caller]
    pub(super) fn wait_for_acknowledgements(&mut self, n: usize) {
        let mut left = n;
        if n > 0 {
            self.wait_for("acknowledgements", |line| {
                left -= usize::from(matches!(line, Line::Acknowledged(_)));
                left == 0
            });
        }
    }

    /// Kills it, and returns everything that it has said.
    pub(super) fn kill(mut self) -> Vec<Line> {
        self.child.kill().unwrap();
        self.listen_to_the_end()
    }

    /// Waits until it dies by itself, and returns everything that it has said.
    #[track_caller]
    pub(super) fn wait_for_death(mut self, point: &str) -> Vec<Line> {
        let status = self.child.wait_at_most(STEP_TIMEOUT);
        let status = status.unwrap_or_else(|error| panic!("`{point}` was not reached: {error:#}"));
        assert!(is_abort(status), "it was to die at `{point}`, and ended with {status}");
        self.listen_to_the_end()
    }

    /// Waits until it has ended well, and returns everything that it has said.
    #[track_caller]
    pub(super) fn finish(mut self) -> Vec<Line> {
        let status = self.child.wait_at_most(STEP_TIMEOUT).unwrap();
        let lines = self.listen_to_the_end();
        assert!(status.success(), "{status}");
        assert!(lines.contains(&Line::Ended(true)), "it has not stored everything");
        lines
    }

    fn listen_to_the_end(&mut self) -> Vec<Line> {
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend(self.lines.iter());
        heard
    }
}

#[cfg(unix)]
fn is_abort(status: ExitStatus) -> bool {
    const SIGABRT: i32 = 6;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGABRT)
}

#[cfg(not(unix))]
fn is_abort(status: ExitStatus) -> bool {
    !status.success()
}
