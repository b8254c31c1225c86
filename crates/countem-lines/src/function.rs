//! Functions of fields: `{path|path_prefix(2)}`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::DefinitionError;

/// A function that a template applies to the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// Lower case.
    Lower,
    /// The first segments of a path, without its query.
    PathPrefix(usize),
    /// `200` becomes `2xx`.
    StatusClass,
    /// The network of an IP address: /24 of IPv4, /48 of IPv6.
    IpPrefix,
}

const KNOWN: &str = "lower, path_prefix(n), status_class, ip_prefix";
/// Bits of an address that name its network.
const V4_BITS: u32 = 24;
const V6_BITS: u32 = 48;

impl Function {
    /// Reads the text after a bar.
    pub(crate) fn parse(text: &str) -> Result<Self, DefinitionError> {
        let (name, argument) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').and_then(|number| number.parse().ok())),
            None => (text, None),
        };
        match (name, argument) {
            ("lower", None) if name == text => Ok(Self::Lower),
            ("status_class", None) if name == text => Ok(Self::StatusClass),
            ("ip_prefix", None) if name == text => Ok(Self::IpPrefix),
            ("path_prefix", Some(segments)) if segments > 0 => Ok(Self::PathPrefix(segments)),
            _ => Err(DefinitionError::new(format!("`{text}` is no function: expected one of {KNOWN}"))),
        }
    }

    /// Appends the result for `value` to `out`. A value that the function does not fit stays as it is.
    pub(crate) fn apply(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Lower => match str::from_utf8(value) {
                Ok(text) => out.extend_from_slice(text.to_lowercase().as_bytes()),
                Err(_) => out.extend(value.iter().map(u8::to_ascii_lowercase)),
            },
            Self::PathPrefix(segments) => out.extend_from_slice(path_prefix(value, segments)),
            Self::StatusClass => match *value {
                [class @ b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                    out.extend_from_slice(&[class, b'x', b'x'])
                }
                _ => out.extend_from_slice(value),
            },
            Self::IpPrefix => match str::from_utf8(value).ok().and_then(ip_prefix) {
                Some(network) => out.extend_from_slice(network.as_bytes()),
                None => out.extend_from_slice(value),
            },
        }
    }
}

fn path_prefix(path: &[u8], segments: usize) -> &[u8] {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let path = &path[..end];
    let first = usize::from(path.first() == Some(&b'/'));
    let mut slashes =
        path.iter().enumerate().skip(first).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.nth(segments - 1).map_or(path, |end| &path[..end])
}

fn ip_prefix(text: &str) -> Option<String> {
    Some(match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => {
            let network = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (u32::BITS - V4_BITS)));
            format!("{network}/{V4_BITS}")
        }
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (u128::BITS - V6_BITS)));
            format!("{network}/{V6_BITS}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(function: &str, value: &str) -> String {
        let mut out = Vec::new();
        Function::parse(function).unwrap().apply(value.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn functions_give_what_their_names_say() {
        for (function, value, expected) in [
            ("lower", "GET Ä", "get ä"),
            ("path_prefix(1)", "/a/b/c?x=/d", "/a"),
            ("path_prefix(2)", "/a/b/c", "/a/b"),
            ("path_prefix(9)", "/a/b", "/a/b"),
            ("path_prefix(1)", "/", "/"),
            ("path_prefix(1)", "a/b", "a"),
            ("status_class", "404", "4xx"),
            ("status_class", "-", "-"),
            ("status_class", "999", "999"),
            ("ip_prefix", "192.0.2.77", "192.0.2.0/24"),
            ("ip_prefix", "2001:db8:1:2::7", "2001:db8:1::/48"),
            ("ip_prefix", "::ffff:192.0.2.77", "192.0.2.0/24"),
            ("ip_prefix", "host", "host"),
        ] {
            assert_eq!(apply(function, value), expected, "{function} of {value}");
        }
    }

    #[test]
    fn unknown_function_is_refused_with_the_known_ones() {
        for bad in [
            "",
            "upper",
            "lower()",
            "path_prefix",
            "path_prefix(0)",
            "path_prefix(x)",
            "path_prefix(1",
            "ip_prefix(8)",
        ] {
            let error = Function::parse(bad).unwrap_err().to_string();
            assert!(error.contains("path_prefix(n)"), "{bad}: {error}");
        }
    }
}
