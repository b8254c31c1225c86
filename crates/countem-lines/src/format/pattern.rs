//! The format strings of nginx (`log_format`) and Apache (`LogFormat`) as regular expressions.

use std::fmt::Write as _;

use crate::{DefinitionError, TimeFormat};

/// Names of variables, and of the field that each is in every access log format.
const NGINX: [(&str, &str); 9] = [
    ("remote_addr", "host"),
    ("remote_user", "user"),
    ("time_local", "time"),
    ("time_iso8601", "time"),
    ("msec", "time"),
    ("body_bytes_sent", "bytes"),
    ("http_referer", "referer"),
    ("http_user_agent", "agent"),
    ("request_method", "method"),
];
/// The same for the letters of Apache.
const APACHE: [(&str, &str); 16] = [
    ("h", "host"),
    ("a", "host"),
    ("l", "ident"),
    ("u", "user"),
    ("t", "time"),
    ("r", "request"),
    ("s", "status"),
    ("b", "bytes"),
    ("B", "bytes"),
    ("O", "bytes_sent"),
    ("m", "method"),
    ("U", "path"),
    ("q", "query"),
    ("H", "protocol"),
    ("v", "vhost"),
    ("V", "vhost"),
];
/// Further letters that are fields of their own.
const APACHE_OTHERS: [(&str, &str); 8] = [
    ("p", "port"),
    ("D", "duration_us"),
    ("T", "duration_s"),
    ("I", "bytes_received"),
    ("X", "connection"),
    ("P", "process"),
    ("k", "keepalive"),
    ("A", "local_address"),
];

/// The parts of a request. A request that is none, such as a TLS handshake, is all method.
const REQUEST: &str = r#"(?<request>(?<method>(?:[^ "\\]|\\.)*)(?: (?<target>(?<path>(?:[^"\\?]|\\.)*?)(?:\?(?<query>(?:[^"\\]|\\.)*?))?))??(?: (?<protocol>HTTP/[^ "]*))?)"#;

enum Token {
    Literal(String),
    /// A field, by name.
    Field(String),
    /// The time of Apache, in brackets that it writes itself.
    BracketedTime,
}

/// A regular expression that is made of a format string.
pub(super) struct Pattern {
    /// Its groups are the fields.
    pub(super) regex: String,
    /// Fields that two variables fill, maybe with different values. The first of them is the group.
    pub(super) doubled: Vec<String>,
}

/// Returns the notation of the time in lines of Apache's format `text`, where its argument names one.
pub(super) fn time_format(text: &str) -> Option<TimeFormat> {
    let (before, _) = text.split_once("}t")?;
    let (_, argument) = before.rsplit_once("%{")?;
    Some(match argument.strip_prefix("begin:").unwrap_or(argument) {
        "sec" => TimeFormat::Unix { digits: 0 },
        "msec" => TimeFormat::Unix { digits: 3 },
        "usec" => TimeFormat::Unix { digits: 6 },
        format => TimeFormat::Strptime(format.to_owned()),
    })
}

/// Returns the regular expression of a line in the format `text`.
///
/// # Errors
/// A [`DefinitionError`] when the text has no variable, or two that nothing separates.
pub(super) fn pattern(text: &str) -> Result<Pattern, DefinitionError> {
    let refuse = |why: &str| DefinitionError::new(format!("cannot understand `--log-format {text}`: {why}"));
    let is_apache = text.contains('%') && !text.contains('$');
    let tokens = if is_apache { apache(text).map_err(|why| refuse(&why))? } else { nginx(text) };
    if tokens.iter().all(|token| matches!(token, Token::Literal(_))) {
        return Err(refuse("it has no variable, such as `$status` of nginx or `%>s` of Apache"));
    }
    // Values may hold bytes that are no UTF-8.
    let mut pattern = "(?-u)^".to_owned();
    let (mut seen, mut doubled) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Literal(literal) => pattern.push_str(&regex::escape(literal)),
            Token::BracketedTime => {
                let is_new = !seen.contains(&"time");
                seen.push("time");
                pattern.push_str(if is_new { r"\[(?<time>[^\]]*)\]" } else { r"\[[^\]]*\]" });
            }
            Token::Field(name) => {
                let before = at.checked_sub(1).map_or("", |at| literal(&tokens[at]));
                let after = match tokens.get(at + 1) {
                    None => None,
                    Some(Token::Literal(literal)) => literal.chars().next(),
                    Some(Token::BracketedTime) => Some('['),
                    Some(Token::Field(_)) => return Err(refuse("nothing separates two of its variables")),
                };
                let is_new = !seen.contains(&name.as_str());
                // Two notations of the time are one time.
                if !is_new && name != "time" {
                    doubled.push(name.clone());
                }
                seen.push(name);
                // Writing to a string never fails.
                match name.as_str() {
                    "request" if is_new => pattern.push_str(REQUEST),
                    _ => {
                        let is_spaced = name == "time" && is_apache;
                        let group = if is_new { format!("?<{name}>") } else { "?:".to_owned() };
                        let value = if is_spaced { time(after) } else { value(name, before, after) };
                        write!(pattern, "({group}{value})").ok();
                    }
                }
            }
        }
    }
    pattern.push('$');
    Ok(Pattern { regex: pattern, doubled })
}

fn literal(token: &Token) -> &str {
    match token {
        Token::Literal(literal) => literal,
        Token::Field(_) | Token::BracketedTime => "",
    }
}

/// Returns the pattern of a value, which ends where the next literal begins.
fn value(name: &str, before: &str, after: Option<char>) -> String {
    match (before.chars().last(), after) {
        (Some('"'), Some('"')) => r#"(?:[^"\\]|\\.)*"#.to_owned(),
        // Addresses of proxies come in a list.
        (_, Some(' ') | None) if name.contains("forwarded_for") => "[^ ,]+(?:, [^ ,]+)*".to_owned(),
        (_, None) => r"\S*".to_owned(),
        (_, Some(end)) => format!("[^{}]*", regex::escape(&end.to_string())),
    }
}

/// Returns the pattern of a time in a format of its own, which may have spaces.
fn time(after: Option<char>) -> String {
    match after {
        Some(end) if end != ' ' => format!("[^{}]*", regex::escape(&end.to_string())),
        _ => ".*?".to_owned(),
    }
}

fn nginx(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        let (name, remaining) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, remaining)) => (name, remaining),
            None => {
                let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
                after.split_at(after.find(|char| !is_name(char)).unwrap_or(after.len()))
            }
        };
        if at > 0 {
            tokens.push(Token::Literal(rest[..at].to_owned()));
        }
        let field = NGINX.iter().find(|(variable, _)| *variable == name).map_or(name, |(_, field)| field);
        tokens.push(Token::Field(field.to_owned()));
        rest = remaining;
    }
    if !rest.is_empty() {
        tokens.push(Token::Literal(rest.to_owned()));
    }
    tokens
}

fn apache(text: &str) -> Result<Vec<Token>, String> {
    let text = text.replace("\\\"", "\"").replace("\\t", "\t");
    let mut tokens = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('%') {
        let mut after = rest[at + 1..].trim_start_matches(['>', '<', '!', ',']);
        after = after.trim_start_matches(|char: char| char.is_ascii_digit() || char == ',');
        let (argument, directive) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((argument, directive)) => (Some(argument), directive),
            None => (None, after),
        };
        let letter = directive.get(..1).ok_or("a `%` without a letter")?;
        let known = || APACHE.iter().chain(&APACHE_OTHERS).find(|(known, _)| *known == letter);
        let field = match (argument, letter) {
            (None, "t") => None,
            (Some(header), "i" | "o" | "e" | "n" | "C") => match header.to_ascii_lowercase().as_str() {
                "user-agent" => Some("agent".to_owned()),
                other => Some(other.replace('-', "_")),
            },
            (_, "%") => {
                tokens.push(Token::Literal(format!("{}%", &rest[..at])));
                rest = &directive[1..];
                continue;
            }
            _ => match known() {
                Some((_, field)) => Some((*field).to_owned()),
                None => return Err(format!("`%{letter}` is unknown; known are {}", letters())),
            },
        };
        if at > 0 {
            tokens.push(Token::Literal(rest[..at].to_owned()));
        }
        tokens.push(field.map_or(Token::BracketedTime, Token::Field));
        rest = &directive[1..];
    }
    if !rest.is_empty() {
        tokens.push(Token::Literal(rest.to_owned()));
    }
    Ok(tokens)
}

/// Lists the letters of Apache.
fn letters() -> String {
    let letters = APACHE.iter().chain(&APACHE_OTHERS).map(|(letter, _)| format!("%{letter}"));
    letters.chain(["%{NAME}i".to_owned(), "%{NAME}o".to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    fn fields(format: &str, line: &str, names: &[&str]) -> Vec<String> {
        let pattern = Regex::new(&pattern(format).unwrap().regex).unwrap();
        let found =
            pattern.captures(line.as_bytes()).unwrap_or_else(|| panic!("{pattern} does not match {line}"));
        let text =
            |name: &&str| found.name(name).map_or("MISSING", |text| str::from_utf8(text.as_bytes()).unwrap());
        names.iter().map(|name| text(name).to_owned()).collect()
    }

    #[test]
    fn nginx_formats_find_their_variables() {
        let format = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" ${request_time}s $http_x_forwarded_for"#;
        let line = r#"192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a?b=1 HTTP/1.1" 200 12 "-" "A \"q\" B" 0.003s 203.0.113.1, 10.0.0.1"#;
        let names = [
            "host",
            "time",
            "path",
            "query",
            "status",
            "bytes",
            "agent",
            "request_time",
            "http_x_forwarded_for",
        ];
        let expected = [
            "192.0.2.1",
            "17/May/2015:10:05:03 +0000",
            "/a",
            "b=1",
            "200",
            "12",
            r#"A \"q\" B"#,
            "0.003",
            "203.0.113.1, 10.0.0.1",
        ];
        assert_eq!(fields(format, line, &names), expected);
    }

    #[test]
    fn apache_formats_find_their_directives() {
        let format = r#"%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %D%%"#;
        let line = r#"shop:443 192.0.2.1 - jo [17/May/2015:10:05:03 +0000] "\x16\x03" 400 12 "-" "A" 123%"#;
        let names = [
            "vhost",
            "port",
            "host",
            "user",
            "time",
            "request",
            "status",
            "bytes_sent",
            "agent",
            "duration_us",
            "path",
        ];
        let expected = [
            "shop",
            "443",
            "192.0.2.1",
            "jo",
            "17/May/2015:10:05:03 +0000",
            r"\x16\x03",
            "400",
            "12",
            "A",
            "123",
            "MISSING",
        ];
        assert_eq!(fields(format, line, &names), expected);
    }

    #[test]
    fn times_of_apache_may_have_a_format() {
        let names = ["host", "time", "status"];
        for (format, line, time, expected) in [
            ("%h %t %>s", "a [17/May/2015:10:05:03 +0000] 200", "17/May/2015:10:05:03 +0000", None),
            (
                "%h %{%d-%m-%Y %T}t %>s",
                "a 01-04-2016 10:00:00 200",
                "01-04-2016 10:00:00",
                Some("%d-%m-%Y %T"),
            ),
            ("%h [%{%Y-%m-%d}t] %>s", "a [2016-04-01] 200", "2016-04-01", Some("%Y-%m-%d")),
            ("%h\\t%{begin:%F}t\\t%s", "a\t2016-04-01\t200", "2016-04-01", Some("%F")),
        ] {
            assert_eq!(fields(format, line, &names), ["a", time, "200"]);
            assert_eq!(time_format(format), expected.map(|format| TimeFormat::Strptime(format.to_owned())));
        }
        assert_eq!(fields("%h %{msec}t", "a 1431857103999", &names[..2]), ["a", "1431857103999"]);
        assert_eq!(time_format("%h %{msec}t"), Some(TimeFormat::Unix { digits: 3 }));
        assert_eq!(pattern("%h %s %>s %t %{sec}t").unwrap().doubled, ["status"]);
    }

    #[test]
    fn unusable_format_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "no variable"),
            ("plain", "no variable"),
            ("$a$b", "nothing separates"),
            ("%h %", "without a letter"),
            ("%h %Z", "`%Z` is unknown"),
        ] {
            let error = pattern(bad).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
