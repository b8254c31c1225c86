//! The access log formats of Apache and nginx.
//!
//! ```text
//! host ident user [17/May/2015:10:05:03 +0000] "GET /path?query HTTP/1.1" 200 203023 "referer" "agent"
//! ```
//!
//! A virtual host, a prefix of a log collector or a list of proxies may come first, see [`head`].
//! Texts stay as they were logged: `\"` in an agent is two characters of its value. An absent value is `-`, as the
//! server itself writes it. A last text that is cut off by the end of the line is accepted, because servers cut lines
//! although they served the request.

mod head;

use memchr::{memchr, memchr_iter, memchr2, memrchr};

use crate::{DefinitionError, Reject, Span, Wanted};

/// Span of each field of a line.
type Found = [Span; AGENT + 1];

/// One of the two formats.
#[derive(Debug)]
pub(super) struct Flavor {
    refusal: &'static str,
    fields: &'static [&'static str],
    quoted_tail: bool,
}

/// With referer and agent.
pub(super) static COMBINED: Flavor =
    Flavor { refusal: "not in combined log format", fields: &FIELDS, quoted_tail: true };

/// Without referer and agent; whatever follows the bytes is ignored.
pub(super) static COMMON: Flavor =
    Flavor { refusal: "not in common log format", fields: FIELDS.split_at(REFERER).0, quoted_tail: false };

static FIELDS: [&str; 15] = [
    "vhost", "host", "ident", "user", "time", "request", "method", "target", "path", "query", "protocol",
    "status", "bytes", "referer", "agent",
];
const VHOST: usize = 0;
const HOST: usize = 1;
const IDENT: usize = 2;
const USER: usize = 3;
const TIME: usize = 4;
const REQUEST: usize = 5;
const METHOD: usize = 6;
const TARGET: usize = 7;
const PATH: usize = 8;
const QUERY: usize = 9;
const PROTOCOL: usize = 10;
const STATUS: usize = 11;
const BYTES: usize = 12;
const REFERER: usize = 13;
const AGENT: usize = 14;

/// Finds fields of access log lines.
#[derive(Debug, Clone)]
pub(super) struct Combined {
    flavor: &'static Flavor,
    /// The field of the format for each wanted field.
    plan: Vec<usize>,
    needs_method: bool,
    needs_target: bool,
    needs_agent: bool,
}

impl Combined {
    /// Prepares to find `wanted`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when a field is not one of the format.
    pub(super) fn new(flavor: &'static Flavor, wanted: &Wanted) -> Result<Self, DefinitionError> {
        let mut plan = Vec::new();
        for name in wanted.names() {
            let field = flavor.fields.iter().position(|field| field == name);
            plan.push(field.ok_or_else(|| DefinitionError::unknown_field(name, flavor.fields))?);
        }
        let needs = |fields: &[usize]| plan.iter().any(|field| fields.contains(field));
        Ok(Self {
            flavor,
            needs_method: needs(&[METHOD]),
            needs_target: needs(&[TARGET, PATH, QUERY, PROTOCOL]),
            needs_agent: needs(&[AGENT]),
            plan,
        })
    }

    /// Finds the wanted fields; the shape of the line is checked up to the referer, whatever is wanted.
    ///
    /// # Errors
    /// The line has another shape.
    #[inline]
    pub(super) fn read(&self, line: &[u8], spans: &mut [Span]) -> Result<(), Reject> {
        let mut fields = [Span::MISSING; AGENT + 1];
        self.find(line, &mut fields).ok_or(Reject::Shape(self.flavor.refusal))?;
        for (span, field) in spans.iter_mut().zip(&self.plan) {
            *span = fields[*field];
        }
        Ok(())
    }

    #[inline]
    fn find(&self, line: &[u8], fields: &mut Found) -> Option<()> {
        let first_space = memchr(b' ', line)?;
        let time = find_time(line, first_space)?;
        fields[TIME] = Span::new(time, time + TIME_LEN);
        let head = head::find(line, time - 2, first_space)?;
        (fields[VHOST], fields[HOST], fields[IDENT], fields[USER]) =
            (head.vhost, head.host, head.ident, head.user);

        let request = time + TIME_LEN + 3;
        // Few lines have another bracket.
        if memchr(b'[', line.get(request..)?).is_some() && find_time(line, request).is_some() {
            // A lost newline has joined two records, and it is not known where the first one ends.
            return None;
        }
        let (request_end, status_end) = find_request_end(line, request)?;
        fields[REQUEST] = Span::new(request, request_end);
        if !has_protocol(&line[request..request_end]) && ends_another_request(&line[request_end..]) {
            return None;
        }
        if self.needs_target {
            split_request(&line[..request_end], request, fields);
        } else if self.needs_method {
            fields[METHOD] = Span::new(request, find_method_end(line, request, request_end));
        }
        fields[STATUS] = Span::new(request_end + 2, status_end);

        let bytes = status_end + 1;
        let bytes_len = line.get(bytes..)?.iter().position(|&b| b == b' ').unwrap_or(line.len() - bytes);
        let bytes_end = bytes + bytes_len;
        if !is_size(&line[bytes..bytes_end]) {
            return None;
        }
        fields[BYTES] = Span::new(bytes, bytes_end);
        if self.flavor.quoted_tail { self.find_tail(line, bytes_end, fields) } else { Some(()) }
    }

    /// Finds ` "referer" "agent"`, each of which may be an unquoted `-`; further fields that a server adds are ignored.
    #[inline]
    fn find_tail(&self, line: &[u8], from: usize, fields: &mut Found) -> Option<()> {
        let (referer, after) = match line.get(from..)? {
            [b' ', b'-', b' ', ..] | [b' ', b'-'] => (Span::new(from + 1, from + 2), from + 2),
            [b' ', b'"', ..] => {
                let referer = from + 2;
                let mut end = find_quote(line, referer);
                while end < line.len() && !is_before_agent(&line[end + 1..]) {
                    if status_len(&line[end..]).is_some() {
                        // The request may end here as well.
                        return None;
                    }
                    end = find_quote(line, end + 1);
                }
                (Span::new(referer, end), end + 1)
            }
            _ => return None,
        };
        fields[REFERER] = referer;
        let agent = after + 2;
        if line.get(after..).is_some_and(|rest| matches!(rest, [b' ', b'-'] | [b' ', b'-', b' ', ..])) {
            fields[AGENT] = Span::new(after + 1, after + 2);
        } else if self.needs_agent && agent <= line.len() {
            fields[AGENT] = Span::new(agent, find_agent_end(line, agent)?);
        }
        Some(())
    }
}

/// Tells whether an agent follows, or as much of one as the line has left.
fn is_before_agent(rest: &[u8]) -> bool {
    matches!(rest, [] | [b' '] | [b' ', b'"', ..] | [b' ', b'-'] | [b' ', b'-', b' ', ..])
}

/// Returns the end of the agent: the quote behind which the line has ended, or has well-formed fields. Some servers do not
/// escape quotes inside it; then there must be one such place only. An agent without any quote behind it was cut off by the
/// end of the line.
#[inline]
fn find_agent_end(line: &[u8], from: usize) -> Option<usize> {
    let first = find_quote(line, from);
    let is_end = |end: &usize| are_fields(&line[end + 1..]);
    if first == line.len() || is_end(&first) {
        return Some(first);
    }
    let next = |end: &usize| Some(find_quote(line, end + 1)).filter(|end| *end < line.len());
    let mut ends = std::iter::successors(next(&first), next).take(MAX_INNER_QUOTES).filter(is_end);
    let end = ends.next()?;
    ends.next().is_none().then_some(end)
}

/// Tells whether `rest` is a sequence of fields, each after a space: words without quotes, or texts in quotes.
#[inline]
fn are_fields(mut rest: &[u8]) -> bool {
    while let Some((&first, after)) = rest.split_first() {
        if first != b' ' {
            return false;
        }
        let len = match after.first() {
            Some(b'"') => find_quote(after, 1) + 1,
            _ => memchr(b' ', after).unwrap_or(after.len()),
        };
        let Some(field) = after.get(..len) else { return false };
        if !field.starts_with(b"\"") && field.contains(&b'"') {
            return false;
        }
        rest = &after[len..];
    }
    true
}

/// Quotes inside an agent up to which its end is looked for.
const MAX_INNER_QUOTES: usize = 32;

/// Length of `17/May/2015:10:05:03 +0000`.
const TIME_LEN: usize = 26;

/// Returns the start of the time's text.
#[inline]
fn find_time(line: &[u8], from: usize) -> Option<usize> {
    // Behind ` - - [` in most lines.
    let usual = from + 6;
    if is_time(line, usual) {
        return Some(usual);
    }
    let mut at = from;
    loop {
        at += memchr(b'[', line.get(at..)?)? + 1;
        if is_time(line, at) {
            return Some(at);
        }
    }
}

/// Tells whether a time begins at `at`, after a bracket that follows a space, with `] "` after it.
#[inline]
fn is_time(line: &[u8], at: usize) -> bool {
    let text = at.checked_sub(2).and_then(|start| line.get(start..at + TIME_LEN + 3));
    text.is_some_and(|text| {
        text.starts_with(b" [") && text[4] == b'/' && text[13] == b':' && text.ends_with(b"] \"")
    })
}

/// Returns the end of the request and of the status behind it. Only a quote that is followed by a status ends the
/// request, since some servers do not escape quotes inside it.
#[inline]
fn find_request_end(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut end = find_quote(line, from);
    while end < line.len() {
        if let Some(len) = status_len(&line[end..]) {
            return Some((end, end + 2 + len));
        }
        end = find_quote(line, end + 1);
    }
    None
}

/// Tells whether a request ends with a protocol, as `HTTP/1.1` and `HTTP/2` are.
#[inline]
fn has_protocol(request: &[u8]) -> bool {
    let is_at =
        |len: usize| request.len().checked_sub(len).is_some_and(|at| request[at..].starts_with(b" HTTP/"));
    is_at(9) || is_at(7)
}

/// Tells whether ` HTTP/1.1" 200 ` comes in `rest`: then a request without a protocol may have quotes inside.
#[cold]
fn ends_another_request(rest: &[u8]) -> bool {
    let mut quotes = memchr_iter(b'"', rest).skip(1);
    quotes.any(|end| has_protocol(&rest[..end]) && status_len(&rest[end..]).is_some())
}

/// Returns the length of the status behind the quote that `text` begins with, `None` where there is none.
#[inline]
fn status_len(text: &[u8]) -> Option<usize> {
    match text {
        [b'"', b' ', a, b, c, b' ', ..] if [a, b, c].iter().all(|d| d.is_ascii_digit()) => Some(3),
        [b'"', b' ', b'-', b' ', ..] => Some(1),
        _ => None,
    }
}

/// Returns the position of the next quote without a backslash before it, or the length of the line.
#[inline]
fn find_quote(line: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(found) = line.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if line[at] == b'"' {
            return at;
        }
        at += 2;
    }
    line.len()
}

/// Returns whether `text` is a number of bytes, or `-` for none.
#[inline]
fn is_size(text: &[u8]) -> bool {
    text == b"-" || !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Returns the end of the method: the first space in the request, or its end.
#[inline]
fn find_method_end(line: &[u8], request: usize, request_end: usize) -> usize {
    line[request..request_end].iter().position(|&byte| byte == b' ').map_or(request_end, |at| request + at)
}

/// Splits `METHOD TARGET PROTOCOL`. A request without these parts is all method.
#[inline]
fn split_request(line: &[u8], request: usize, fields: &mut Found) {
    let text = &line[request..];
    let method_end = find_method_end(line, request, line.len()) - request;
    fields[METHOD] = Span::new(request, request + method_end);

    // The target may contain spaces; the protocol may be absent.
    let target = (method_end + 1).min(text.len());
    let protocol = last_word(text, target).filter(|&at| text[at..].starts_with(b"HTTP/"));
    let target_end = protocol.map_or(text.len(), |at| at - 1);
    fields[PROTOCOL] = protocol.map_or(Span::MISSING, |at| Span::new(request + at, line.len()));
    if target == target_end {
        return;
    }
    fields[TARGET] = Span::new(request + target, request + target_end);
    let query = memchr(b'?', &text[target..target_end]).map(|at| target + at);
    fields[PATH] = Span::new(request + target, request + query.unwrap_or(target_end));
    if let Some(query) = query {
        fields[QUERY] = Span::new(request + query + 1, request + target_end);
    }
}

/// Returns the start of the last word of `text`, if a space from `from` on precedes it.
#[inline]
fn last_word(text: &[u8], from: usize) -> Option<usize> {
    // Nearly always `HTTP/1.1`, which is found faster than by a search.
    let usual = text.len().checked_sub(8).filter(|&at| at > from && text[at - 1] == b' ');
    match usual {
        Some(at) if !text[at..].contains(&b' ') => Some(at),
        _ => memrchr(b' ', &text[from..]).map(|at| from + at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flavor: &'static Flavor, line: &str) -> Option<Vec<(&'static str, String)>> {
        let wanted: Wanted = flavor.fields.iter().copied().collect();
        let mut spans = vec![Span::MISSING; flavor.fields.len()];
        Combined::new(flavor, &wanted).unwrap().read(line.as_bytes(), &mut spans).ok()?;
        let text = |span: Span| Some(String::from_utf8_lossy(span.of(line.as_bytes())?).into_owned());
        Some(flavor.fields.iter().zip(spans).filter_map(|(name, span)| Some((*name, text(span)?))).collect())
    }

    fn field(line: &str, name: &str) -> Option<String> {
        let fields = read(&COMBINED, line).expect("the line is in combined log format");
        fields.into_iter().find(|(field, _)| *field == name).map(|(_, text)| text)
    }

    fn line(request: &str) -> String {
        format!(r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "{request}" 200 5 "-" "x""#)
    }

    #[test]
    fn every_field_is_found() {
        let line = r#"1.2.3.4 id jo [17/May/2015:10:05:03 +0000] "GET /a/b?c=d HTTP/1.1" 200 203023 "http://r/" "Mo (X)""#;
        let expected = [
            ("host", "1.2.3.4"),
            ("ident", "id"),
            ("user", "jo"),
            ("time", "17/May/2015:10:05:03 +0000"),
            ("request", "GET /a/b?c=d HTTP/1.1"),
            ("method", "GET"),
            ("target", "/a/b?c=d"),
            ("path", "/a/b"),
            ("query", "c=d"),
            ("protocol", "HTTP/1.1"),
            ("status", "200"),
            ("bytes", "203023"),
            ("referer", "http://r/"),
            ("agent", "Mo (X)"),
        ]
        .map(|(name, text)| (name, text.to_owned()));
        assert_eq!(read(&COMBINED, line).unwrap(), expected);
        assert_eq!(read(&COMMON, line).unwrap(), expected[..12]);
        assert_eq!(read(&COMMON, &line[..line.find(" \"http").unwrap()]).unwrap(), expected[..12]);
    }

    #[test]
    fn escaped_quotes_do_not_end_agent_or_referer() {
        let line = r#"::1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 - "a \"b\" \\" "c \"d\"""#;
        assert_eq!(field(line, "referer").unwrap(), r#"a \"b\" \\"#);
        assert_eq!(field(line, "agent").unwrap(), r#"c \"d\""#);
        assert_eq!(field(line, "bytes").unwrap(), "-");
        assert_eq!(field(line, "host").unwrap(), "::1");
    }

    #[test]
    fn user_name_may_have_spaces_and_brackets() {
        let line = r#"h - jo [a] doe [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 "-" "-""#;
        assert_eq!(field(line, "user").unwrap(), "jo [a] doe");
    }

    #[test]
    fn odd_requests_are_split_into_parts() {
        assert_eq!(field(&line("-"), "method").unwrap(), "-");
        assert_eq!(field(&line("-"), "path"), None);
        assert_eq!(field(&line(""), "method").unwrap(), "");
        assert_eq!(field(&line("GET /"), "path").unwrap(), "/");
        assert_eq!(field(&line("GET /"), "protocol"), None);
        assert_eq!(field(&line("GET /a b HTTP/1.1"), "path").unwrap(), "/a b");
        assert_eq!(field(&line("GET HTTP/1.1"), "path").unwrap(), "HTTP/1.1");
        assert_eq!(field(&line(r"\x16\x03\x01"), "method").unwrap(), r"\x16\x03\x01");
        assert_eq!(field(&line(r#"GET /a"b" HTTP/1.1"#), "path").unwrap(), r#"/a"b""#);
        assert_eq!(field(&line(r#"GET /a\"b HTTP/1.1"#), "path").unwrap(), r#"/a\"b"#);
        assert_eq!(field(&line("GET /? HTTP/1.1"), "query").unwrap(), "");
    }

    #[test]
    fn text_cut_by_the_line_end_is_accepted() {
        let whole = r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 "re" "agent""#;
        assert_eq!(field(&whole[..whole.len() - 2], "agent").unwrap(), "agen");
        assert_eq!(field(&whole[..whole.len() - 6], "agent").unwrap(), "");
        for cut in 7..10 {
            assert_eq!(field(&whole[..whole.len() - cut], "referer").unwrap(), "re", "cut by {cut}");
            assert_eq!(field(&whole[..whole.len() - cut], "agent"), None);
        }
    }

    #[test]
    fn another_shape_is_refused() {
        for bad in [
            "",
            " ",
            "garbage",
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 2x0 1 "-" "-""#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1x "-" "-""#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0"#,
            r#"h - - [17/May/2015 10:05:03 +0000] "GET / HTTP/1.0" 200 1 "-" "-""#,
            r#"h - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 "-" "-""#,
            r#"- - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 "-" "-""#,
            r#"h [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 "-" "-""#,
        ] {
            assert_eq!(read(&COMBINED, bad), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn quotes_inside_the_agent_belong_to_it() {
        let line =
            |tail: &str| format!(r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 1 {tail}"#);
        for (tail, agent) in [
            (r#""-" "Mozilla/5.0 "Foo" bar""#, r#"Mozilla/5.0 "Foo" bar"#),
            (r#""-" "A" 0.003 "203.0.113.1, 10.0.0.1" -"#, "A"),
            (r#"- "A""#, "A"),
            (r#"- -"#, "-"),
            (r#""-" -"#, "-"),
            (r#""a "b" c" "A""#, "A"),
            (r#""-" """#, ""),
        ] {
            assert_eq!(field(&line(tail), "agent").as_deref(), Some(agent), "{tail}");
        }
        assert_eq!(read(&COMBINED, &line(r#""-" "A"garbage"#)), None);
    }

    #[test]
    fn quotes_with_two_meanings_are_refused() {
        for tail in [r#""GET /a" 200 5 "x" HTTP/1.1" 404 7 "-" "A""#, r#""GET /" 200 1 "-" "A"x" "y""#] {
            let tail = tail.replacen("\"GET", "h - - [17/May/2015:10:05:03 +0000] \"GET", 1);
            assert_eq!(read(&COMBINED, &tail), None, "{tail}");
        }
        for request in [r#"GET /a" 200 5 "-" "y HTTP/1.1"#, r#"GET /a" 200 5 "x" HTTP/2"#] {
            assert_eq!(read(&COMBINED, &line(request)), None, "{request}");
        }
        let line = line(r#"GET /a" 200 5 "b"#);
        assert_eq!(read(&COMBINED, &line), None, "{line}");
    }

    #[test]
    fn joined_records_are_refused() {
        let whole = r#"192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.0" 200 1 "-" "A""#;
        for cut in 1..=whole.len() {
            let joined = format!("{}{}", &whole[..cut], whole.replace("192.0.2.1", "192.0.2.2"));
            let host = read(&COMBINED, &joined).map(|_| field(&joined, "host").unwrap());
            assert!(host.as_deref().is_none_or(|host| host == "192.0.2.2"), "{host:?} of {joined}");
        }
    }

    #[test]
    fn unknown_field_is_answered_with_known_ones() {
        let wanted: Wanted = ["statsu"].into_iter().collect();
        let error = Combined::new(&COMMON, &wanted).unwrap_err().to_string();
        assert!(error.contains("no field `{statsu}`"), "{error}");
        assert!(error.contains("{bytes}") && !error.contains("{agent}"), "{error}");
    }
}
