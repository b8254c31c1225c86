//! Addresses of another countem: `countem://[TOKEN@]HOST[:PORT][?OPTIONS]`.

use std::{path::PathBuf, time::Duration};

use super::StoreUriError;
use crate::redact::shown;

/// Port of `countem serve`.
const PORT: u16 = 7070;

/// Parts of an address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) token: Option<String>,
    /// Host and port.
    pub(crate) host: String,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
}

/// Options, as a message lists them.
pub(crate) const OPTIONS: &str = "tls=true, ca=FILE, cert=FILE, key=FILE, timeout=10s";

impl Remote {
    /// Parses what follows `countem://`.
    pub(crate) fn parse(rest: &str) -> Result<Self, StoreUriError> {
        let (authority, options) = rest.split_once('?').unwrap_or((rest, ""));
        // No option has this character: a part of a token would be taken for the host, and shown.
        if options.contains('@') {
            return Err(StoreUriError::Token);
        }
        let (token, host) = match authority.rsplit_once('@') {
            Some((token, host)) => (Some(token), host),
            None => (None, authority),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        if token.is_some_and(|token| token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(StoreUriError::Token);
        }
        let mut remote = Self { token: token.map(str::to_owned), host: with_port(host)?, ..Self::default() };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            remote.set(option)?;
        }
        if !remote.tls && (remote.ca.is_some() || remote.cert.is_some() || remote.key.is_some()) {
            return Err(StoreUriError::RemoteOption("`ca`, `cert` and `key` need `tls=true`".to_owned()));
        }
        if remote.cert.is_some() != remote.key.is_some() {
            return Err(StoreUriError::RemoteOption("`cert` and `key` belong together".to_owned()));
        }
        Ok(remote)
    }

    fn set(&mut self, option: &str) -> Result<(), StoreUriError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let file = || Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
        let is_understood = match name {
            "tls" => {
                self.tls = value == "true";
                self.tls || value == "false"
            }
            "ca" => fill(&mut self.ca, file()),
            "cert" => fill(&mut self.cert, file()),
            "key" => fill(&mut self.key, file()),
            "timeout" => fill(&mut self.timeout, duration(value)),
            _ => false,
        };
        // The value may be a secret in the wrong place.
        let refused = || StoreUriError::RemoteOption(format!("`{}` is not understood", shown(name)));
        is_understood.then_some(()).ok_or_else(refused)
    }
}

fn fill<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

/// Returns host and port, checked.
fn with_port(host: &str) -> Result<String, StoreUriError> {
    let refused = || StoreUriError::Host { host: shown(host) };
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_host = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !name.is_empty() && name.bytes().all(is_allowed)
        }
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(refused)?,
    };
    if is_host { Ok(format!("{name}:{port}")) } else { Err(refused()) }
}

/// Parses a number with the unit `ms`, `s` or `m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok().filter(|number| (1..=86_400_000).contains(number))?;
    match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address_are_found() {
        let host = |rest| Remote::parse(rest).unwrap().host;
        assert_eq!(host("counts.example"), "counts.example:7070");
        assert_eq!(host("10.0.0.1:80/"), "10.0.0.1:80");
        assert_eq!(host("[::1]"), "[::1]:7070");
        assert_eq!(host("[::1]:1"), "[::1]:1");
        let whole = Remote::parse("ctm_a:b@h:1?tls=true&ca=/etc/ca.pem&cert=c&key=k&timeout=500ms").unwrap();
        assert_eq!(
            whole,
            Remote {
                token: Some("ctm_a:b".into()),
                host: "h:1".into(),
                tls: true,
                ca: Some("/etc/ca.pem".into()),
                cert: Some("c".into()),
                key: Some("k".into()),
                timeout: Some(Duration::from_millis(500)),
            }
        );
    }

    #[test]
    fn malformed_address_is_refused() {
        for bad in [
            "",
            "@h",
            "h:0",
            "h:70700",
            "h:x",
            "::1",
            "h/path",
            "a b",
            "h?tls",
            "h?tls=yes",
            "h?ca=f",
            "h?tls=true&cert=c",
            "h?timeout=10",
            "h?timeout=0s",
            "h?database=x",
            "[::g]",
            "h,i",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
