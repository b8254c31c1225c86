//! A real MongoDB server process.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, ServerAddress};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time;

use crate::find;
use crate::port::Port;
use crate::process::{self, Child};

/// Maximum time from the start of a server to its first answer. Far more than it needs on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Maximum duration of an administrative command. The driver itself waits for ever on a frozen server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Exit code of a `mongod` that cannot listen; on a reserved port that means that another process took the port.
const EXIT_CANNOT_LISTEN: i32 = 48;

/// Options of a [`Mongod`]. The default is a standalone without authentication.
#[derive(Clone, Debug, Default)]
pub struct Options {
    replica_set: Option<String>,
    credentials: Option<Credentials>,
}

#[derive(Clone, Debug)]
struct Credentials {
    user: String,
    password: String,
}

impl Options {
    /// Makes the server a member of the replica set `name`, which still has to be initiated.
    #[must_use]
    pub fn replica_set(mut self, name: impl Into<String>) -> Self {
        self.replica_set = Some(name.into());
        self
    }

    /// Turns authentication on and creates `user` with the role `root` in the database `admin`.
    ///
    /// Names and passwords appear in [`Mongod::uri`] as they are, so they are letters and digits. A replica set
    /// with authentication would need a key file and is not offered.
    #[must_use]
    pub fn auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }
}

/// A `mongod` on a free port with its files in a temporary folder; killed and removed when dropped.
///
/// Test commands are enabled, so that [`fail_command`](Self::fail_command) works.
#[derive(Debug)]
pub struct Mongod {
    // Declared in the order in which they have to be dropped: the process before its files and its port.
    child: Child,
    folder: TempDir,
    port: Port,
    options: Options,
}

impl Mongod {
    /// Starts a server and waits until it answers `ping`.
    ///
    /// # Errors
    /// When there is no `mongod` (see [`require_mongod`](crate::require_mongod)), or it does not come up; the
    /// error then carries the end of the server's log.
    pub async fn start(options: Options) -> Result<Self> {
        ensure!(
            options.replica_set.is_none() || options.credentials.is_none(),
            "a replica set with authentication is not supported"
        );
        loop {
            let folder = tempfile::tempdir().context("cannot create a folder for mongod")?;
            let port = Port::reserve()?;
            let child = spawn(&folder, &port, &options)?;
            let mut server = Self { child, folder, port, options: options.clone() };
            if server.wait_until_listening().await? {
                server.create_user().await?;
                server.admin_command(doc! { "ping": 1 }).await.context("mongod does not answer")?;
                return Ok(server);
            }
        }
    }

    /// Returns the connection string, with `directConnection=true` and the credentials where there are some.
    #[must_use]
    pub fn uri(&self) -> String {
        let port = self.port();
        match &self.options.credentials {
            None => format!("mongodb://127.0.0.1:{port}/?directConnection=true"),
            Some(Credentials { user, password }) => {
                format!(
                    "mongodb://{user}:{password}@127.0.0.1:{port}/?directConnection=true&authSource=admin"
                )
            }
        }
    }

    /// Returns the port on 127.0.0.1; it stays the same over [`kill`](Self::kill) and [`restart`](Self::restart).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Sends SIGKILL and waits until the process is gone. Killing a killed server does nothing.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().map(|_| ())
    }

    /// Sends SIGSTOP: connections stay open and nothing is answered any more.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn freeze(&mut self) -> Result<()> {
        self.child.freeze()
    }

    /// Sends SIGCONT: the server goes on where it was frozen.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn thaw(&mut self) -> Result<()> {
        self.child.thaw()
    }

    /// Kills the server if it runs, starts it again on the same port and files and waits until it answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.child = spawn(&self.folder, &self.port, &self.options)?;
        ensure!(self.wait_until_listening().await?, "another process took port {}", self.port());
        self.admin_command(doc! { "ping": 1 }).await.context("mongod does not answer after its restart")?;
        Ok(())
    }

    /// Tells whether the server process has not ended; a frozen one has not.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Runs `command` on the database `admin` over a connection of its own, on whatever runtime this is called.
    ///
    /// # Errors
    /// What the server answered, or that it did not answer within 30 s.
    pub async fn admin_command(&self, command: Document) -> Result<Document> {
        run_admin_command(self.port(), self.options.credentials.as_ref(), command).await
    }

    /// Sets the fail point `failCommand`; `document` holds its `mode` and `data`, for example
    /// `{mode: {times: 1}, data: {failCommands: ["update"], closeConnection: true}}`.
    ///
    /// # Errors
    /// As [`admin_command`](Self::admin_command).
    pub async fn fail_command(&self, document: Document) -> Result<()> {
        self.fail_point("failCommand", document).await
    }

    /// Turns the fail point `failCommand` off.
    ///
    /// # Errors
    /// As [`admin_command`](Self::admin_command).
    pub async fn fail_command_off(&self) -> Result<()> {
        self.fail_command(doc! { "mode": "off" }).await
    }

    /// Sets any fail point of the server, for example `onPrimaryTransactionalWrite`.
    ///
    /// # Errors
    /// As [`admin_command`](Self::admin_command).
    pub async fn fail_point(&self, name: &str, document: Document) -> Result<()> {
        let mut command = doc! { "configureFailPoint": name };
        command.extend(document);
        self.admin_command(command).await.map(|_| ())
    }

    /// Waits until the port is open; `false` says that another process holds it.
    async fn wait_until_listening(&mut self) -> Result<bool> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if status.code() == Some(EXIT_CANNOT_LISTEN) {
                    return Ok(false);
                }
                bail!("mongod ended at start ({status}):\n{}", self.end_of_log());
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).await.is_ok() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                bail!("mongod does not listen after {START_TIMEOUT:?}:\n{}", self.end_of_log());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates the user over the exception that the server makes for local connections while it has none.
    async fn create_user(&self) -> Result<()> {
        let Some(Credentials { user, password }) = &self.options.credentials else { return Ok(()) };
        let command = doc! { "createUser": user, "pwd": password, "roles": ["root"] };
        run_admin_command(self.port(), None, command).await.context("cannot create the first user")?;
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("mongod.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

fn spawn(folder: &TempDir, port: &Port, options: &Options) -> Result<Child> {
    let program: PathBuf = find::mongod().context("no mongod found; `cargo xtask mongod` fetches one")?;
    ensure!(program.is_file(), "cannot start mongod: `{}` is not a file", program.display());
    let mut command = process::command(program);
    command
        .arg("--dbpath")
        .arg(folder.path())
        .arg("--logpath")
        .arg(folder.path().join("mongod.log"))
        .args(["--logappend", "--nounixsocket", "--bind_ip", "127.0.0.1"])
        .args(["--port", &port.number().to_string()])
        .args(["--wiredTigerCacheSizeGB", "0.25"])
        .args(["--setParameter", "enableTestCommands=1"])
        // Expired documents go within a second, not within a minute.
        .args(["--setParameter", "ttlMonitorSleepSecs=1"])
        // A recorder that wakes every second and writes what no test reads.
        .args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    if let Some(name) = &options.replica_set {
        command.args(["--replSet", name, "--oplogSize", "64"]);
    }
    if options.credentials.is_some() {
        command.arg("--auth");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::spawn(command)
}

async fn run_admin_command(
    port: u16,
    credentials: Option<&Credentials>,
    command: Document,
) -> Result<Document> {
    let what = command.keys().next().cloned().unwrap_or_default();
    let mut options = ClientOptions::builder()
        .hosts(vec![ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) }])
        .direct_connection(true)
        // Fail points can be aimed at one application: ours is not it.
        .app_name("countem-testkit".to_owned())
        .server_selection_timeout(COMMAND_TIMEOUT)
        .build();
    options.credential = credentials.map(|Credentials { user, password }| {
        Credential::builder().username(user.clone()).password(password.clone()).build()
    });
    // A task of its own, because a driver future that is dropped half way leaves its connection pool in doubt.
    let running = tokio::spawn(async move {
        let client = Client::with_options(options)?;
        let reply = client.database("admin").run_command(command).await;
        client.shutdown().immediate(true).await;
        reply
    });
    let reply = time::timeout(COMMAND_TIMEOUT, running);
    reply
        .await
        .with_context(|| format!("no reply to `{what}` within {COMMAND_TIMEOUT:?}"))?
        .context("the command's task died")?
        .with_context(|| format!("`{what}` failed"))
}
