//! Processes that a test starts and that never outlive it.

use std::ffi::OsStr;
use std::io;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Begins a command for [`Child::spawn`] whose process dies even when this one is killed, so that no `Drop` runs.
///
/// On Linux the kernel does that: the program is started through `setpriv --pdeathsig KILL`, which replaces
/// itself by the program and so keeps its process id. Where util-linux is missing there is no such net. A
/// program that does not exist then shows as exit status 127 instead of an error of `spawn`.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    static SETPRIV_WORKS: LazyLock<bool> = LazyLock::new(|| {
        let mut probe = Command::new("setpriv");
        probe.args(DEATH_SIGNAL).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if !*SETPRIV_WORKS {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(DEATH_SIGNAL).arg(program);
    command
}

const DEATH_SIGNAL: [&str; 3] = ["--pdeathsig", "KILL", "--"];

/// A running process, killed by its id and waited for when the guard is dropped, also by a panic.
#[derive(Debug)]
pub struct Child {
    inner: process::Child,
    program: String,
}

impl Child {
    /// Starts `command`, which best begins with [`command()`]; its standard streams are the caller's choice, as
    /// with [`Command::spawn`].
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: Command) -> Result<Self> {
        let wrapped =
            command.get_args().nth(DEATH_SIGNAL.len()).filter(|_| command.get_program() == "setpriv");
        let program = wrapped.unwrap_or(command.get_program()).to_string_lossy().into_owned();
        let inner =
            spawn_from_lasting_thread(command).with_context(|| format!("cannot start `{program}`"))?;
        Ok(Self { inner, program })
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Gives access to the pipes that the command was given.
    pub fn streams(&mut self) -> &mut process::Child {
        &mut self.inner
    }

    /// Sends SIGKILL and waits until the process is gone. A process that is gone already is no error.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // `Child::kill` of the standard library knows whether the process was waited for already, so that it
        // never hits another process with the same id.
        self.inner.kill().with_context(|| format!("cannot kill `{}`", self.program))?;
        self.wait()
    }

    /// Sends SIGTERM: the polite request to end that a service manager would send.
    ///
    /// # Errors
    /// When the process has ended already.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGSTOP: the process keeps its memory, files and connections and does nothing.
    ///
    /// # Errors
    /// When the process has ended already.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT: a frozen process goes on where it was.
    ///
    /// # Errors
    /// When the process has ended already.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Returns how the process ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.inner.try_wait().with_context(|| format!("cannot ask whether `{}` has ended", self.program))
    }

    /// Blocks until the process has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.inner.wait().with_context(|| format!("cannot wait for `{}`", self.program))
    }

    /// Blocks until the process has ended, but no longer than `limit`.
    ///
    /// # Errors
    /// When the process still runs then. It keeps running until the guard is dropped.
    pub fn wait_at_most(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("`{}` (process {}) did not end within {limit:?}", self.program, self.id());
            }
            // Polled: the standard library has no wait with a deadline.
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("cannot signal `{}`: it has ended ({status})", self.program);
        }
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(id, signal).with_context(|| format!("cannot signal `{}` (process {id:?})", self.program))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// A command for the lasting thread, and the channel for its answer.
type Order = (Command, Sender<io::Result<process::Child>>);

/// Starts `command` from a thread that lives as long as this process.
///
/// The kernel counts the *thread* that started a child as its parent when it delivers the death signal. A test's
/// own thread, or a worker of a runtime's blocking pool, ends long before the server that it has started should.
fn spawn_from_lasting_thread(command: Command) -> io::Result<process::Child> {
    static ORDERS: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // A failed send drops the child unguarded, which cannot happen: the asker blocks on the answer.
                answer.send(command.spawn()).ok();
            }
        });
        Mutex::new(orders)
    });
    let (answer, started) = mpsc::channel();
    let orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    orders.send((command, answer)).map_err(io::Error::other)?;
    started.recv().map_err(io::Error::other)?
}
