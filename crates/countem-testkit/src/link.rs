//! A proxy for protocols in which a request is answered before the next one on the same connection, such as HTTP/1.1.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time;

/// Treatment of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Passes it on.
    None,
    /// Passes it on this much later.
    Delay(Duration),
    /// Cuts the connection after the first half of what has arrived of it.
    CutRequest,
    /// Passes it on, and cuts the connection when the answer comes.
    DropReply,
}

/// A TCP proxy on a free port of 127.0.0.1 that gives each request the trouble that a closure chooses.
///
/// It runs on a thread and runtime of its own. The server may be away and come back: connections fail meanwhile.
pub struct Link {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Choose = Arc<Mutex<dyn FnMut() -> Trouble + Send>>;

impl Link {
    /// Listens for connections to the server at port `target` of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no free port or no thread.
    pub fn start(target: u16, choose: impl FnMut() -> Trouble + Send + 'static) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let choose: Choose = Arc::new(Mutex::new(choose));
        // Dropping the runtime at the end of the thread closes every connection.
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    error = accept(listener, target, choose) => eprintln!("the link stopped listening: {error}"),
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("link".to_owned()).spawn(run)?;
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the port of 127.0.0.1 that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the link has been printed already, and this may run during a test's own.
            thread.join().ok();
        }
    }
}

async fn accept(listener: TcpListener, target: u16, choose: Choose) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let choose = Arc::clone(&choose);
                // Both sides learn of an error by the end of their connections.
                tokio::spawn(async move { carry(client, target, choose).await.ok() });
            }
            Err(error) => return error,
        }
    }
}

/// Carries requests and answers until one side ends the connection, or a trouble does.
async fn carry(mut client: TcpStream, target: u16, choose: Choose) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut request, mut reply) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    // The trouble of the request under way, until its answer begins.
    let mut trouble = None;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if trouble.is_none() {
                    let chosen = choose.lock().unwrap_or_else(PoisonError::into_inner)();
                    trouble = Some(chosen);
                    match chosen {
                        Trouble::Delay(delay) => time::sleep(delay).await,
                        Trouble::CutRequest => return server.write_all(&request[..read / 2]).await,
                        Trouble::None | Trouble::DropReply => {}
                    }
                }
                server.write_all(&request[..read]).await?;
            }
            read = server.read(&mut reply) => {
                let read = read?;
                if read == 0 || trouble.take() == Some(Trouble::DropReply) {
                    return Ok(());
                }
                client.write_all(&reply[..read]).await?;
            }
        }
    }
}
