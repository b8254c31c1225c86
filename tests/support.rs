//! Files, programs and requests that the tests share.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use countem::{Builder, Collector, Date, store::Counters};
use countem_testkit::Child;
use rusqlite::Connection;
use tempfile::TempDir;

/// A SQLite file in a folder of its own, gone with the test.
pub(crate) struct CounterFile {
    folder: TempDir,
}

/// Keeps all other connections from writing to a file until it is dropped.
pub(crate) struct WriteLock(Connection);

impl CounterFile {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder().join("counts.db")
    }

    pub(crate) fn uri(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }

    /// Begins a collector that stores only when it is asked to.
    pub(crate) fn builder(&self) -> Builder {
        Collector::builder().store(self.uri()).flush_interval(Duration::from_secs(3600))
    }

    /// Returns everything in the file: counters by collection and bucket. Past countem, through SQLite alone.
    pub(crate) fn rows(&self) -> BTreeMap<(String, String), Counters> {
        let file = Connection::open(self.path()).unwrap();
        let mut rows = BTreeMap::<_, Counters>::new();
        let mut select = file.prepare("SELECT collection, bucket, metric, value FROM counter").unwrap();
        let mut found = select.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let counters = rows.entry((row.get(0).unwrap(), row.get(1).unwrap())).or_default();
            counters.insert(row.get::<_, String>(2).unwrap(), row.get(3).unwrap());
        }
        rows
    }

    /// Returns the counters of `collection`, which has counted in one bucket at most.
    pub(crate) fn counters(&self, collection: &str) -> Counters {
        let mut rows = self.rows().into_iter().filter(|((name, _), _)| name == collection);
        let counters = rows.next().map(|(_, counters)| counters).unwrap_or_default();
        assert!(rows.next().is_none(), "`{collection}` has more than one bucket");
        counters
    }

    /// Returns the sum over all counters of `collection`.
    pub(crate) fn sum(&self, collection: &str) -> i64 {
        let rows = self.rows();
        let counters = rows.iter().filter(|((name, _), _)| name == collection);
        counters.flat_map(|(_, counters)| counters.values()).map(Result::unwrap).sum()
    }

    /// Returns how many writers the file still remembers.
    pub(crate) fn writers(&self) -> i64 {
        let file = Connection::open(self.path()).unwrap();
        file.query_row("SELECT count(DISTINCT writer) FROM applied", [], |row| row.get(0)).unwrap()
    }

    /// Takes the store away: no other connection can write to the file, as if another program were busy with it.
    pub(crate) fn lock(&self) -> WriteLock {
        let file = Connection::open(self.path()).unwrap();
        file.busy_timeout(Duration::from_secs(10)).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        WriteLock(file)
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// Returns counters as they are read.
pub(crate) fn counters(of: &[(&str, i64)]) -> Counters {
    of.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

pub(crate) fn date(text: &str) -> Date {
    text.parse().unwrap()
}

/// Waits for a condition that other threads or processes bring about.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        // Polled: files, other processes and threads of the collector send no signal.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A started program whose lines are read one by one.
pub(crate) struct Program {
    pub(crate) child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Program {
    /// Starts `program`; what it says on standard error goes to the test's own.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = countem_testkit::command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::spawn(command)
    }

    pub(crate) fn spawn(command: Command) -> Self {
        let mut child = Child::spawn(command).unwrap();
        let stdout = child.streams().stdout.take().expect("standard output is a pipe");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// Returns the next line, `None` at the end of the output.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    /// Reads all output and waits for the end. Fails when the program says that it failed.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let lines: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        let status = self.child.wait_at_most(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{status}: {lines:#?}");
        lines
    }
}

/// Answer of an HTTP server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks a server of this machine for `path` over a connection of its own.
pub(crate) fn http_get(port: u16, path: &str) -> std::io::Result<Answer> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.expect("an answer has a status"), body: body.to_owned() })
}
