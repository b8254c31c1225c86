//! A folder with a store of its own, in which `countem` runs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Output, Stdio},
    time::{Duration, Instant},
};

use countem_testkit::{Child, command};
use serde_json::Value;

/// Value of each metric.
pub(crate) type Counters = BTreeMap<String, i64>;

/// Maximum duration of a process, and of a wait for a state.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// A temporary folder in which `countem` runs; its store is the default `countem.db` there.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Returns the JSON that it printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Returns a path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Adds to a file.
    pub(crate) fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
    }

    /// Moves a file.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Sets up a command in the folder, without variables of the tester's environment.
    fn set_up(&self, mut command: Command, args: &[&str]) -> Command {
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COUNTEM_"))
        {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs `countem` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.set_up(Command::new(BINARY), args).output().unwrap().into()
    }

    /// Runs `countem` to its end with a variable of the environment, in a folder of this one.
    pub(crate) fn run_in(&self, folder: &str, variable: Option<(&str, &str)>, args: &[&str]) -> Ran {
        let mut command = self.set_up(Command::new(BINARY), args);
        command.current_dir(self.path(folder)).envs(variable).output().unwrap().into()
    }

    /// Runs `program`, a `countem`, to its end as `user`.
    #[cfg(unix)]
    pub(crate) fn run_as(&self, user: Option<u32>, program: &Path, args: &[&str]) -> Ran {
        use std::os::unix::process::CommandExt as _;
        let mut command = self.set_up(Command::new(program), args);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.output().unwrap().into()
    }

    /// Runs `countem` on `input`.
    pub(crate) fn run_on(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.set_up(Command::new(BINARY), args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // Fails when the command closes its input early.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output().unwrap().into()
        })
    }

    /// Runs `countem` to its end, its output on a disk that is full.
    pub(crate) fn run_on_full_disk(&self, args: &[&str]) -> Ran {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        self.set_up(Command::new(BINARY), args).stdout(full).output().unwrap().into()
    }

    /// Starts `countem` in the background; it ends with the guard.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.spawn(args, Stdio::null())
    }

    /// Starts `countem` in the background, reading from a pipe.
    pub(crate) fn start_on_pipe(&self, args: &[&str]) -> (Child, ChildStdin) {
        let mut child = self.spawn(args, Stdio::piped());
        let stdin = child.streams().stdin.take().unwrap();
        (child, stdin)
    }

    /// Starts `countem` in the background, with its output shown if the test fails.
    pub(crate) fn start_unread(&self, args: &[&str]) -> Child {
        Child::spawn(self.set_up(command(BINARY), args)).unwrap()
    }

    fn spawn(&self, args: &[&str], stdin: Stdio) -> Child {
        let mut command = self.set_up(command(BINARY), args);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Child::spawn(command).unwrap()
    }

    /// Returns the counters of one day, none when there is nothing yet.
    pub(crate) fn counters(&self, collection: &str, day: &str) -> Counters {
        let ran = self.run(&["get", collection, "--date", day, "-o", "json"]);
        if ran.code == 3 {
            return Counters::new();
        }
        serde_json::from_value(ran.expect(0).json()["counters"].clone()).unwrap()
    }

    /// Returns the sum of the counters of all days.
    pub(crate) fn total(&self, collection: &str) -> i64 {
        let ran = self.run(&["get", collection, "--bucket", "all", "-o", "json"]);
        if ran.code == 3 {
            return 0;
        }
        let counters: Counters = serde_json::from_value(ran.expect(0).json()["counters"].clone()).unwrap();
        counters.values().sum()
    }

    /// Returns the number of writers in the bookkeeping of the store.
    pub(crate) fn writers(&self) -> i64 {
        let database = rusqlite::Connection::open(self.path("countem.db")).unwrap();
        database.query_row("SELECT count(*) FROM applied", [], |row| row.get(0)).unwrap()
    }
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_countem");

/// Interrupts a process as Ctrl-C does, and returns its outcome.
pub(crate) fn interrupt(child: Child) -> Ran {
    let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    finish(child)
}

/// Waits for the end of a process and returns its outcome.
pub(crate) fn finish(mut child: Child) -> Ran {
    let status = child.wait_at_most(PROCESS_TIMEOUT).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let streams = child.streams();
    std::io::Read::read_to_string(streams.stdout.as_mut().unwrap(), &mut out).unwrap();
    std::io::Read::read_to_string(streams.stderr.as_mut().unwrap(), &mut err).unwrap();
    Ran { code: status.code().unwrap_or(-1), out, err }
}

/// Waits until `read` returns `expected`.
#[track_caller]
pub(crate) fn eventually<T: PartialEq + std::fmt::Debug>(expected: &T, mut read: impl FnMut() -> T) {
    let began = Instant::now();
    loop {
        let seen = read();
        if seen == *expected {
            return;
        }
        assert!(began.elapsed() < PROCESS_TIMEOUT, "expected {expected:?}, still {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
