//! Ports that stay a server's own while it is down and comes back.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

use crate::find;

/// Below the range from which systems hand out ports for outgoing connections. A client that keeps dialling a
/// killed server on a port inside that range sooner or later gets that very port as its own end, is connected
/// to itself, and keeps the server from coming back.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 4_000;

/// A free TCP port of 127.0.0.1, reserved among all tests of this workspace until the guard is dropped, also
/// while no process listens on it. The reservation is a lock on a file in the workspace's cache folder; it ends with
/// the process, however that ends.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port on which no process listens.
    ///
    /// # Errors
    /// When the cache folder cannot be written, or no port is free.
    pub fn reserve() -> Result<Self> {
        let start = RandomState::new().build_hasher().finish();
        for offset in 0..u64::from(PORTS) {
            let step = u16::try_from(start.wrapping_add(offset) % u64::from(PORTS))?;
            if let Some(port) = Self::try_reserve(FIRST_PORT + step)? {
                return Ok(port);
            }
        }
        bail!("no free port between {FIRST_PORT} and {}", FIRST_PORT + PORTS)
    }

    /// Returns the port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Reserves this port, unless it is reserved or a process listens on it.
    fn try_reserve(number: u16) -> Result<Option<Self>> {
        let folder = find::cache_folder().join("ports");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let path = folder.join(number.to_string());
        let lock = File::create(&path).with_context(|| format!("cannot create `{}`", path.display()))?;
        let is_ours = lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(is_ours.then_some(Self { number, _lock: lock }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_port_is_not_reserved_twice() -> Result<()> {
        let port = Port::reserve()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))?;
        assert!(Port::try_reserve(port.number())?.is_none());
        Ok(())
    }

    #[test]
    fn port_of_a_listener_is_not_reserved() -> Result<()> {
        let number = Port::reserve()?.number();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number))?;
        assert!(Port::try_reserve(number)?.is_none());
        drop(listener);
        assert!(Port::try_reserve(number)?.is_some(), "both reservations have ended");
        Ok(())
    }
}
