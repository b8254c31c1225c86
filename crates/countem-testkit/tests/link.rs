//! The link against a server that answers every request of five bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use anyhow::Result;
use countem_testkit::{Link, Trouble};

/// Sends a request over a new connection and returns the answer; empty if the connection ended.
fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"hello")?;
    let mut answer = Vec::new();
    match stream.take(2).read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8(answer)?),
    }
}

#[test]
fn each_request_has_the_chosen_trouble() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = listener.local_addr()?.port();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 5];
            let is_whole = stream.read_exact(&mut request).is_ok();
            seen.send(is_whole).unwrap();
            if is_whole {
                stream.write_all(b"ok").unwrap();
            }
        }
    });
    let mut troubles = [Trouble::None, Trouble::CutRequest, Trouble::DropReply, Trouble::None].into_iter();
    let link = Link::start(target, move || troubles.next().unwrap())?;
    for (answer, arrives) in [("ok", true), ("", false), ("", true), ("ok", true)] {
        assert_eq!(ask(link.port())?, answer);
        assert_eq!(requests.recv()?, arrives);
    }
    Ok(())
}
