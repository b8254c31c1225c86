//! Failed calls, and what is known after them.

use std::{error::Error as _, io};

use countem_store::{ErrorKind, StoreError};

use crate::wire::{PROBLEM_TYPE, Problem, kind_of};

/// Effect of a call on the other countem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None, so a failed one had none.
    Reads,
    /// A change, which a lost answer leaves in doubt.
    Changes,
}

/// A failure of the connection.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ureq::Error,
    /// A part of the body was not sent, so the request cannot have been carried out.
    pub(crate) is_unsent: bool,
}

impl Failure {
    /// Returns true where a new connection may help at once: the other side has closed a pooled one.
    pub(crate) fn is_closed_connection(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match &self.error {
            ureq::Error::Io(error) => {
                matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }

    pub(crate) fn into_store_error(self, location: &str, effect: Effect) -> StoreError {
        let Self { error, is_unsent } = self;
        let kind = match effect {
            _ if is_unsent && is_certificate_problem(&error) => ErrorKind::Refused,
            Effect::Reads => ErrorKind::NotApplied,
            Effect::Changes if is_unsent => ErrorKind::NotApplied,
            Effect::Changes => ErrorKind::InDoubt,
        };
        let what = if is_unsent { "cannot send to" } else { "no answer from" };
        StoreError::new(kind, format!("{what} `{location}`")).with_source(error)
    }
}

/// Returns true where the two sides do not trust each other, so that a person has to act.
fn is_certificate_problem(error: &ureq::Error) -> bool {
    let of_rustls = |error: &rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
    match error {
        ureq::Error::Rustls(error) => of_rustls(error),
        ureq::Error::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            inner.or_else(|| error.source()?.downcast_ref()).is_some_and(of_rustls)
        }
        _ => false,
    }
}

/// Returns the error that an answer with another status than 200 stands for.
pub(crate) fn of_answer(
    location: &str,
    effect: Effect,
    status: u16,
    media_type: &str,
    body: &[u8],
) -> StoreError {
    let problem =
        (media_type == PROBLEM_TYPE).then(|| serde_json::from_slice::<Problem>(body).ok()).flatten();
    let (kind, text) = match problem {
        Some(Problem { code, detail }) => (
            kind_of(&code),
            match status {
                401 | 403 => format!("`{location}` refuses: {detail}"),
                _ => detail,
            },
        ),
        None => (
            kind_of_status(status),
            format!("`{location}` answers with status {status}, and not as a countem"),
        ),
    };
    let kind = match effect {
        Effect::Reads if kind == ErrorKind::InDoubt => ErrorKind::NotApplied,
        _ => kind,
    };
    StoreError::new(kind, text)
}

/// Returns what is known after an answer of a proxy, or of another program.
fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        408 | 425 | 429 => ErrorKind::NotApplied,
        300..500 => ErrorKind::Refused,
        _ => ErrorKind::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: ureq::Error, is_unsent: bool, effect: Effect) -> ErrorKind {
        Failure { error, is_unsent }.into_store_error("countem://h:7070", effect).kind()
    }

    #[test]
    fn lost_answer_leaves_a_change_in_doubt() {
        use Effect::{Changes, Reads};
        let reset = || ureq::Error::Io(io::ErrorKind::ConnectionReset.into());
        let late = || ureq::Error::Timeout(ureq::Timeout::RecvResponse);
        assert_eq!(failure(reset(), false, Changes), ErrorKind::InDoubt);
        assert_eq!(failure(late(), false, Changes), ErrorKind::InDoubt);
        assert_eq!(failure(reset(), true, Changes), ErrorKind::NotApplied);
        assert_eq!(failure(reset(), false, Reads), ErrorKind::NotApplied);
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, unknown));
        assert_eq!(failure(wrapped, true, Changes), ErrorKind::Refused);
    }

    #[test]
    fn answer_of_a_proxy_is_in_doubt() {
        let kind = |effect, status, media_type, body: &str| {
            of_answer("countem://h:7070", effect, status, media_type, body.as_bytes()).kind()
        };
        let html = "<html>Bad gateway</html>";
        let busy = r#"{"code":"busy","detail":"too many requests"}"#;
        for (status, of_change, of_read) in [
            (502, ErrorKind::InDoubt, ErrorKind::NotApplied),
            (503, ErrorKind::InDoubt, ErrorKind::NotApplied),
            (200 + 4, ErrorKind::InDoubt, ErrorKind::NotApplied),
            (404, ErrorKind::Refused, ErrorKind::Refused),
            (429, ErrorKind::NotApplied, ErrorKind::NotApplied),
        ] {
            assert_eq!(kind(Effect::Changes, status, "text/html", html), of_change, "{status}");
            assert_eq!(kind(Effect::Reads, status, "text/html", html), of_read, "{status}");
        }
        assert_eq!(kind(Effect::Changes, 503, PROBLEM_TYPE, busy), ErrorKind::NotApplied);
        assert_eq!(kind(Effect::Changes, 503, "text/html", busy), ErrorKind::InDoubt);
    }
}
