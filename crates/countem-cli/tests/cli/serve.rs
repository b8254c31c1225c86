//! `countem serve`, over real connections.

pub(crate) mod access;
mod balanced;
mod counting;
mod demo;
mod examples;
mod health;
mod keys;
mod levels;
mod limits;
mod reading;
mod readme;
mod schema;
mod stopping;
mod stream;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use countem_testkit::{Child, Port};
use serde_json::Value;

use crate::harness::Sandbox;

/// A running server; it ends with the guard.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: Port,
    agent: ureq::Agent,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media: String,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Returns the JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Returns the code of a problem with this status.
    #[track_caller]
    pub(crate) fn code(&self, status: u16) -> String {
        assert_eq!(self.media, "application/problem+json", "{}", self.body);
        self.json(status)["code"].as_str().unwrap().to_owned()
    }
}

impl Server {
    /// Starts a server in a folder and waits until it is ready.
    pub(crate) fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        Self::start_on(sandbox, Port::reserve().unwrap(), args)
    }

    pub(crate) fn start_on(sandbox: &Sandbox, port: Port, args: &[&str]) -> Self {
        let server = Self::begin(sandbox, port, args);
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.agent.get(server.url("/readyz")).call().is_err() {
            assert!(Instant::now() < deadline, "the server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Starts a server, and does not wait for it.
    pub(crate) fn begin(sandbox: &Sandbox, port: Port, args: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{}", port.number());
        let child = sandbox.start_unread(&[&["serve", "--listen", &listen], args].concat());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { child, port, agent: config.into() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port.number())
    }

    /// Sends a request to the API.
    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let url =
            if path.starts_with("//") { self.url(&path[1..]) } else { self.url(&format!("/api/v1{path}")) };
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body.to_vec()).unwrap()).unwrap();
        let headers = response.headers().clone();
        let media = headers.get("content-type").map(|media| media.to_str().unwrap().to_owned());
        Answer {
            status: response.status().as_u16(),
            media: media.unwrap_or_default(),
            headers,
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], &[])
    }

    pub(crate) fn post(&self, path: &str) -> Answer {
        self.call("POST", path, &[], &[])
    }

    /// Sends increments as NDJSON.
    pub(crate) fn post_lines(&self, path: &str, lines: &str) -> Answer {
        self.call("POST", path, &[("content-type", "application/x-ndjson")], lines.as_bytes())
    }

    /// Returns the counters of a collection today.
    pub(crate) fn counters(&self, collection: &str) -> Value {
        self.get(&format!("/counters/{collection}")).json(200)["counters"].clone()
    }

    /// Opens a bare connection and sends `text`.
    pub(crate) fn connect(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// Sends bytes over a connection of their own, and returns everything that comes back until it is closed.
    pub(crate) fn raw(&self, text: &str) -> String {
        let mut stream = self.connect(text);
        let mut bytes = Vec::new();
        // A connection that is closed with unread bytes is reset.
        stream.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
