//! A server that does one thing with every request.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Answers every request of every connection with the same bytes; an empty answer closes the connection.
pub(crate) struct Server {
    pub(crate) host: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |stream| (!answer.is_empty() && stream.write_all(&answer).is_ok()).then_some(()))
    }

    /// Starts a server that does `answer` for each request, until that returns `None`.
    pub(crate) fn start(answer: impl Fn(&mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { host, requests }
    }

    /// Returns the number of requests that have come.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &AtomicUsize,
    answer: &dyn Fn(&mut TcpStream) -> Option<()>,
) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        input.read_exact(&mut vec![0; length]).ok()?;
        seen.fetch_add(1, Ordering::SeqCst);
        answer(&mut stream)?;
    }
}

/// Returns an answer of HTTP.
pub(crate) fn http(status: &str, media_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}")
}
