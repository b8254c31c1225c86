//! The part of an access log line before its time: `host ident user`, and what servers and collectors write before it.
//!
//! ```text
//! 192.0.2.1 - jo doe                              host, ident and user; the user may have spaces
//! shop.example.org:443 192.0.2.1 - -              Apache's vhost_combined
//! Feb  6 12:14:14 web1 nginx: 192.0.2.1 - -       a prefix of syslog, journald or compose
//! 203.0.113.7, 198.51.100.2 - -                   X-Forwarded-For: the first address is the client's
//! ```
//!
//! A head with two addresses that could both be the client's is refused, as is a long one without an address.

use std::net::{IpAddr, SocketAddr};

use memchr::memchr;

use crate::Span;

/// Spans of the names before the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) vhost: Span,
    pub(super) host: Span,
    pub(super) ident: Span,
    pub(super) user: Span,
}

/// Finds the names in the first `len` bytes of `line`, those before ` [`, whose first space is known; `None` where the host would
/// be a guess.
#[inline]
pub(super) fn find(line: &[u8], len: usize, host: usize) -> Option<Head> {
    let head = line.get(..len)?;
    let (ident, user) = (host + 2, host + 3);
    let names = head.get(host..).filter(|_| host > 0)?;
    let has_no_user = names == b" - -";
    let is_usual = has_no_user || names.starts_with(b" - ") && memchr(b' ', &head[user..]).is_none();
    if is_usual && user < head.len() && head[0] != b'"' {
        let is_address = has_no_user && host < 16 && begins_with_address(line);
        if !is_address && is_odd_address(&head[..host]) {
            return find_among_words(head);
        }
        return Some(Head {
            vhost: Span::MISSING,
            host: Span::new(0, host),
            ident: Span::new(host + 1, ident),
            user: Span::new(user, head.len()),
        });
    }
    find_among_words(head)
}

/// A word of the head, without quotes around it.
#[derive(Clone, Copy)]
struct Word {
    start: usize,
    end: usize,
    is_address: bool,
    /// A comma follows: the next word belongs to the same list.
    is_listed: bool,
}

#[cold]
fn find_among_words(head: &[u8]) -> Option<Head> {
    let words = words(head);
    if words.iter().any(|word| matches!(head[word.start..], [b'[', digit, ..] if digit.is_ascii_digit())) {
        // The time of a record that was cut off.
        return None;
    }
    let client = client(head, &words).filter(|&at| !is_odd_address(words[at].text(head)))?;
    if client > 0 && words[client - 1].is_listed {
        // The client of the list is unknown.
        return None;
    }
    // The rest of a list of proxies.
    let mut ident = client;
    while words.get(ident)?.is_listed {
        ident += 1;
    }
    ident += 1;
    let (name, user) = (words.get(ident)?, words.get(ident + 1)?);
    let rest = &words[ident + 1..];
    if rest.len() > 1 && rest.iter().any(|word| word.text(head) == b"-") {
        // The dashes of another record, behind one that was cut off.
        return None;
    }
    let vhost = match client {
        1 => words[0].span(),
        _ => Span::MISSING,
    };
    Some(Head {
        vhost,
        host: words[client].span(),
        ident: name.span(),
        user: Span::new(user.start, head.len()),
    })
}

/// Returns the index of the word that is the client.
fn client(head: &[u8], words: &[Word]) -> Option<usize> {
    let is_dash = |word: &Word| word.text(head) == b"-";
    let mut lists = 0;
    let mut first = None;
    for (at, word) in words.iter().enumerate() {
        let continues = at > 0 && words[at - 1].is_listed;
        if word.is_listed && !word.is_address && !continues {
            // A comma in a prefix, as in a sentence.
            continue;
        }
        // An address that ident and user cannot follow is a user's name.
        if word.is_address && !continues && at + 2 < words.len() {
            lists += 1;
            first = first.or(Some(at));
        }
    }
    match (words, first) {
        // After a host and a dash, everything is the user's name, addresses included.
        ([host, ident, _, ..], Some(0)) if host.is_address && is_dash(ident) => Some(0),
        (_, Some(at)) => (lists == 1).then_some(at),
        // A user's name may have spaces.
        ([_, ident, _, ..], None) if is_dash(ident) => Some(0),
        ([_, ident, _], None) => (!ident.is_address).then_some(0),
        ([_, _, ident, _], None) if is_dash(ident) => Some(1),
        _ => None,
    }
}

fn words(head: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = 0;
    for text in head.split(|&byte| byte == b' ') {
        let end = start + text.len();
        if !text.is_empty() {
            words.push(Word::new(head, start, end));
        }
        start = end + 1;
    }
    words
}

impl Word {
    fn new(head: &[u8], mut start: usize, mut end: usize) -> Self {
        if head[start] == b'"' && end - start > 1 {
            start += 1;
        }
        let is_listed = end - start > 1 && head[end - 1] == b',';
        end -= usize::from(is_listed);
        if head[end - 1] == b'"' && end - start > 1 {
            end -= 1;
        }
        let first = memchr(b',', &head[start..end]).map(|len| &head[start..start + len]);
        if let Some(first) = first.filter(|first| is_address(first)) {
            // A list without spaces.
            end = start + first.len();
        }
        Self { start, end, is_address: is_address(&head[start..end]), is_listed }
    }

    fn text(self, head: &[u8]) -> &[u8] {
        &head[self.start..self.end]
    }

    fn span(self) -> Span {
        Span::new(self.start, self.end)
    }
}

/// Tells whether `text` is an IP address, with or without a port or a scope.
fn is_address(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else { return false };
    let unscoped = text.split_once('%').map_or(text, |(address, _)| address);
    unscoped.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

/// Tells quickly that the host of a line ` - - [` has three dots, no colon and a first number up to 255, like most hosts. No byte
/// before the time is another dot or colon. A fixed number of bytes and no branches make it a few instructions.
#[inline]
fn begins_with_address(line: &[u8]) -> bool {
    let Some(start) = line.first_chunk::<16>() else { return false };
    let dots: u8 = start.iter().map(|&byte| u8::from(byte == b'.')).sum();
    let colons: u8 = start.iter().map(|&byte| u8::from(byte == b':')).sum();
    let [a, b, c, d, ..] = *start;
    let is_small = u32::from_be_bytes([0, a, b, c]) <= u32::from_be_bytes(*b"\x00255");
    (dots == 3) & (colons == 0) & ((b == b'.') | (c == b'.') | (d == b'.') & is_small)
}

/// Tells whether `text` looks like an address without being one: a part of one before another, without a newline between
/// them, or a list. Such a text has further dots, a first number that is too large, colons or commas.
#[inline]
fn is_odd_address(text: &[u8]) -> bool {
    let (mut first, mut dots, mut colons, mut is_name) = (0_u32, 0, 0, false);
    for byte in text {
        match byte {
            b'.' => dots += 1,
            b'0'..=b'9' if dots == 0 => {
                first = first.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
            }
            b'0'..=b'9' => {}
            b',' => return true,
            _ => {
                colons += usize::from(*byte == b':');
                is_name = true;
            }
        }
    }
    if let [b'-', _, ..] = text {
        return true;
    }
    // A name may have a port.
    let has_port = || {
        let port = text.rsplit(|byte| *byte == b':').next().unwrap_or_default();
        colons == 1 && port.iter().all(u8::is_ascii_digit)
    };
    if is_name { colons > 0 && !has_port() && !is_address(text) } else { dots != 3 || first > 255 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns vhost, host, ident and user, separated by bars.
    fn read(head: &str) -> Option<String> {
        let first_space = memchr(b' ', head.as_bytes())?;
        let Head { vhost, host, ident, user } = find(head.as_bytes(), head.len(), first_space)?;
        let text = |span: Span| span.of(head.as_bytes()).map_or("", |text| str::from_utf8(text).unwrap());
        Some([vhost, host, ident, user].map(text).join("|"))
    }

    #[test]
    fn client_is_found_behind_what_precedes_it() {
        for (head, expected) in [
            ("192.0.2.1 - -", "|192.0.2.1|-|-"),
            ("::1 - jo doe", "|::1|-|jo doe"),
            ("::1 - jo 10.0.0.1 x", "|::1|-|jo 10.0.0.1 x"),
            ("host.example.org - jo doe", "|host.example.org|-|jo doe"),
            ("host ident jo", "|host|ident|jo"),
            ("shop.example.org:443 192.0.2.10 - jo", "shop.example.org:443|192.0.2.10|-|jo"),
            ("www.example.org 2001:db8::7 - -", "www.example.org|2001:db8::7|-|-"),
            ("www.example.org client.example.net - -", "www.example.org|client.example.net|-|-"),
            ("Feb  6 12:14:14 web1 nginx: 192.0.2.1 - -", "|192.0.2.1|-|-"),
            ("web_1  | 192.0.2.1 - -", "|192.0.2.1|-|-"),
            ("\"192.0.2.1\" - -", "|192.0.2.1|-|-"),
            ("\"192.0.2.1 - -", "|192.0.2.1|-|-"),
            ("203.0.113.7, 198.51.100.2 - -", "|203.0.113.7|-|-"),
            ("fe80::1%eth0 - jo doe", "|fe80::1%eth0|-|jo doe"),
            ("203.0.113.7,198.51.100.2 - -", "|203.0.113.7|-|-"),
            ("2001:db8::7,198.51.100.2, 192.0.2.1 - jo doe", "|2001:db8::7|-|jo doe"),
            ("[2001:db8::7]:4711 - -", "|[2001:db8::7]:4711|-|-"),
            ("client.example.net:4711 - -", "|client.example.net:4711|-|-"),
            ("192.0.2.1:4711 - jo doe", "|192.0.2.1:4711|-|jo doe"),
        ] {
            assert_eq!(read(head).as_deref(), Some(expected), "{head}");
        }
    }

    #[test]
    fn host_is_never_guessed() {
        for head in [
            "",
            "host",
            "- -",
            "192.0.2.1 198.51.100.2 - -",
            "203.0.113.7, 198.51.100.2 192.0.2.1 - -",
            "example.org 192.0.2.10 -",
            "Feb  6 12:14:14 web1 nginx: client.example.net - -",
            "1192.0.2.1 - -",
            "22001:db8::7 - -",
            "192.0.2.::1 - -",
            "429496729642949672965.0.2.1 - -",
            "localhost -192.0.2.1 - -",
            "2001:d198.51.100.77 - -",
            "2001:db8::1::2 - -",
            "192.0.2001:db8::7 - -",
            "unknown, 198.51.100.2 - -",
            "unknown,198.51.100.2 - -",
            "192.0.2.1192.0.2.1 - -",
        ] {
            assert_eq!(read(head), None, "{head}");
        }
    }
}
