//! One MongoDB server for all tests that only read and write, each in a database of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, Result, ensure};

/// Ports beside those that tests reserve, and below those that systems hand out for outgoing connections.
const PORTS: std::ops::Range<u16> = 16_000..17_000;
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running standalone server. It ends, and its files go, when this is dropped.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Server {
    /// Starts `program` and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let port = PORTS.into_iter().find(is_free).context("no free port for a server")?;
        let folder = env::temp_dir().join(format!("countem-xtask-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let mut command = Command::new(program);
        command.arg("--dbpath").arg(&folder).arg("--logpath").arg(folder.join("mongod.log"));
        command.args(["--nounixsocket", "--bind_ip", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--wiredTigerCacheSizeGB", "0.25"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?;
        let mut server = Self { child, folder, port };
        server.wait()?;
        Ok(server)
    }

    /// Returns the connection string.
    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = self.folder.join("mongod.log");
            let has_ended = self.child.try_wait()?.is_some();
            ensure!(!has_ended, "the server has ended: see `{}`", log.display());
            ensure!(Instant::now() < deadline, "the server does not answer: see `{}`", log.display());
            // Polled: a server that takes connections sends no signal.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and its files are temporary.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
