//! A server that is the store of commands and of other nodes.

use std::net::TcpStream;

use countem_testkit::Port;

use crate::{
    harness::{Ran, Sandbox, eventually},
    serve::Server,
};

/// A server on a port that stays its own when it is killed and started again.
pub(crate) struct Served<'a> {
    /// `None` only while it is started again.
    server: Option<Server>,
    sandbox: &'a Sandbox,
    args: Vec<String>,
}

impl<'a> Served<'a> {
    /// Starts `countem serve` in a folder and waits until it serves.
    pub(crate) fn start(sandbox: &'a Sandbox, args: &[&str]) -> Self {
        let server = Server::start_on(sandbox, Port::reserve().unwrap(), args);
        Self { server: Some(server), sandbox, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }

    /// Starts `countem serve` with TLS, and waits until it listens.
    pub(crate) fn start_tls(sandbox: &'a Sandbox, args: &[&str]) -> Self {
        let server = Server::begin(sandbox, Port::reserve().unwrap(), args);
        eventually(&true, || TcpStream::connect(("127.0.0.1", server.port.number())).is_ok());
        Self { server: Some(server), sandbox, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.server().port.number()
    }

    /// Returns the address of the server as a store.
    pub(crate) fn uri(&self) -> String {
        format!("countem://127.0.0.1:{}", self.port())
    }

    /// Kills the server by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server.as_mut().unwrap().child.kill().unwrap();
    }

    /// Kills the server, and starts it again on the same port and folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let port = self.server.take().unwrap().port;
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        self.server = Some(Server::start_on(self.sandbox, port, &args));
    }

    /// Asks the server to stop, and returns its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        let child = &mut self.server.as_mut().unwrap().child;
        child.terminate().unwrap();
        child.wait_at_most(std::time::Duration::from_secs(60)).unwrap().code().unwrap()
    }

    /// Runs a command in `client` with the server as its store.
    pub(crate) fn run(&self, client: &Sandbox, args: &[&str]) -> Ran {
        client.run(&[&["--store", &self.uri()], args].concat())
    }
}
