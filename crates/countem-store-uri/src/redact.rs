//! User text in messages: one line, bounded, without passwords.

/// Replacement of a password.
pub(crate) const MASK: &str = "****";

const MAX_SHOWN: usize = 100;

/// Returns `text` as a message may repeat it: one line, at most 100 characters, no password.
pub fn shown(text: &str) -> String {
    let mut shown: String = escaped(&redact(text)).take(MAX_SHOWN + 1).collect();
    if let Some((at, _)) = shown.char_indices().nth(MAX_SHOWN) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// Escapes the characters of foreign text that could act on a terminal or show another text than there is: control characters,
/// line separators, those that turn the direction of writing, and invisible ones. Others stay, also joined and combined ones.
pub fn escaped(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|c| {
        let plain = (!is_hidden(c)).then_some(c);
        plain.into_iter().chain(plain.is_none().then(|| c.escape_default()).into_iter().flatten())
    })
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces passwords in an address, also in a malformed one. In doubt it hides too much.
pub fn redact(text: &str) -> String {
    let (scheme, rest) = split_scheme(text);
    let start = &text[..text.len() - rest.len()];
    if scheme == "sqlite" {
        return text.to_owned();
    }
    let is_user = !matches!(scheme, "countem" | "http" | "https");
    // A password that is not percent-encoded may itself have `@`, `:`, `/` or `?`, hence the last and the first.
    let mut shown = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) if is_user => format!("{start}{user}:{MASK}@{host}"),
            None if is_user => text.to_owned(),
            // A token alone.
            _ => format!("{start}{MASK}@{host}"),
        },
        None => text.to_owned(),
    };
    if let Some((before, query)) = shown.split_once('?') {
        let pairs: Vec<_> = query.split('&').map(redact_pair).collect();
        shown = format!("{before}?{}", pairs.join("&"));
    }
    shown
}

fn redact_pair(pair: &str) -> String {
    const SECRET: [&str; 4] = ["password", "secret", "token", "authmechanismproperties"];
    match pair.split_once('=') {
        Some((name, _)) if SECRET.iter().any(|word| name.to_lowercase().contains(word)) => {
            format!("{name}={MASK}")
        }
        _ => pair.to_owned(),
    }
}

/// Splits `mongodb://host` into `mongodb` and `host`; the scheme is empty where there is none.
pub(crate) fn split_scheme(text: &str) -> (&str, &str) {
    match text.split_once("://") {
        Some((scheme, rest))
            if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_acts_or_hides_is_escaped() {
        for (text, shown) in [
            ("a\u{1b}[2Jb\n\u{9b}", r"a\u{1b}[2Jb\n\u{9b}"),
            ("a\u{202e}gpj.exe\u{2066}\u{200b}\u{2028}", r"a\u{202e}gpj.exe\u{2066}\u{200b}\u{2028}"),
            ("e\u{301} 👩\u{200d}🚀 \"C:\\x\" 日本", "e\u{301} 👩\u{200d}🚀 \"C:\\x\" 日本"),
        ] {
            assert_eq!(escaped(text).collect::<String>(), shown);
        }
    }

    #[test]
    fn password_is_replaced_and_the_rest_shown() {
        for (uri, shown) in [
            ("mongodb://user:pass@host/", "mongodb://user:****@host/"),
            ("mongodb://user:p@ss:/?w@a:1,b:2/db", "mongodb://user:****@a:1,b:2/db"),
            ("mongodb+srv://user:@host", "mongodb+srv://user:****@host"),
            ("mongodb://user@host:27017/db", "mongodb://user@host:27017/db"),
            ("mongodb://host:27017/db?replicaSet=rs0", "mongodb://host:27017/db?replicaSet=rs0"),
            (
                "mongodb://h/?tlsCertificateKeyFilePassword=x&a=b",
                "mongodb://h/?tlsCertificateKeyFilePassword=****&a=b",
            ),
            ("sqlite://me:1@home/count.db", "sqlite://me:1@home/count.db"),
            ("countem://hunter2@host:7070?tls=true", "countem://****@host:7070?tls=true"),
            ("countem://a:hunter2@host", "countem://****@host"),
            ("countem://host:7070", "countem://host:7070"),
            ("http://hunter2@host/", "http://****@host/"),
            ("user:pass@host", "user:****@host"),
            ("user:a://b@host", "user:****@host"),
        ] {
            assert_eq!(redact(uri), shown);
        }
    }
}
