//! Kinds of the section `[server]`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{Directory, Kind};
use crate::{
    Guarantee,
    raw::{RawValue, Refusal},
};

/// Path of a file.
pub(crate) struct File;

impl Kind for File {
    type Target = PathBuf;

    fn allowed(&self) -> String {
        "the path of a file".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<PathBuf, Refusal> {
        Directory.read(raw).map_err(|_| raw.refuse(&self.allowed()))
    }

    fn inside(&self, path: PathBuf, folder: &Path) -> Result<PathBuf, Refusal> {
        Directory.inside(path, folder)
    }

    fn write(&self, path: &PathBuf) -> Value {
        Directory.write(path)
    }
}

/// Addresses to listen on.
pub(crate) struct Sockets;

impl Kind for Sockets {
    type Target = Vec<SocketAddr>;

    fn allowed(&self) -> String {
        "an address with a port such as \"127.0.0.1:7070\", \"localhost:7070\", \"[::1]:7070\" or \"0.0.0.0:7070\", or several"
            .to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<Vec<SocketAddr>, Refusal> {
        let refused = || raw.refuse(&self.allowed());
        let mut sockets = Vec::new();
        for text in raw.list().ok_or_else(refused)? {
            match text.trim().strip_prefix("localhost:") {
                Some(port) => {
                    let port: u16 = port.parse().map_err(|_| refused())?;
                    sockets.push(SocketAddr::from(([127, 0, 0, 1], port)));
                    sockets.push(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
                }
                None => sockets.push(text.trim().parse().map_err(|_| refused())?),
            }
        }
        if sockets.is_empty() { Err(refused()) } else { Ok(sockets) }
    }

    fn write(&self, sockets: &Vec<SocketAddr>) -> Value {
        Value::Array(sockets.iter().map(|socket| Value::from(socket.to_string())).collect())
    }
}

/// Host names.
pub(crate) struct Hosts;

impl Kind for Hosts {
    type Target = Vec<String>;

    fn allowed(&self) -> String {
        "host names such as [\"counters.example.org\"], without a port".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<Vec<String>, Refusal> {
        let is_host = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]_".contains(&byte))
        };
        let names: Vec<_> =
            raw.list().ok_or_else(|| raw.refuse(&self.allowed()))?.into_iter().map(str::trim).collect();
        let hosts = names.iter().filter(|name| !name.is_empty());
        let hosts: Option<Vec<_>> =
            hosts.map(|name| is_host(name).then(|| name.to_ascii_lowercase())).collect();
        hosts.ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, hosts: &Vec<String>) -> Value {
        Value::Array(hosts.iter().map(|host| Value::from(host.as_str())).collect())
    }
}

/// Guarantee of a write.
pub(crate) struct Promise;

impl Kind for Promise {
    type Target = Guarantee;

    fn allowed(&self) -> String {
        "\"memory\", \"journal\" or \"store\"".to_owned()
    }

    fn read(&self, raw: &RawValue) -> Result<Guarantee, Refusal> {
        raw.text().and_then(|text| Guarantee::named(text.trim())).ok_or_else(|| raw.refuse(&self.allowed()))
    }

    fn write(&self, guarantee: &Guarantee) -> Value {
        Value::from(guarantee.name())
    }
}
