//! Translation of the driver's and the server's errors into those of a store.

use std::time::Duration;

use countem_store::{ErrorKind, StoreError};
use mongodb::error::{Error, ErrorKind as Driver};

/// A request that brought no usable answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Reported by the driver or the server.
    Driver(Error),
    /// The server of a direct connection is not the primary, or was not for a while.
    NotPrimary,
    /// No answer came within the deadline. The request may still be carried out at any later time.
    TimedOut(Duration),
    /// There is no client yet, and making one failed.
    NoClient(StoreError),
    /// The task that carried the request ended without an answer: its runtime was shut down, or the driver panicked.
    TaskEnded { panicked: bool },
}

/// Context of a failed request, for the words of its error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    /// A verb with its object, such as ``update `web` ``.
    pub(crate) action: &'a str,
    /// Location of the database, without any secret.
    pub(crate) at: &'a str,
    /// Last known state of each server.
    pub(crate) servers: &'a str,
    /// Reason of the last login's failure, if it failed.
    pub(crate) login: Option<&'a str>,
}

/// Error codes of the server after which the command had no effect.
mod code {
    pub(super) const UNAUTHORIZED: i32 = 13;
    pub(super) const AUTHENTICATION_FAILED: i32 = 18;
    /// The command or one of its fields is not understood or not allowed here: an older or other server.
    pub(super) const NOT_UNDERSTOOD: [i32; 7] = [9, 14, 40415, 59, 72, 73, 115];
}

impl Failure {
    /// Describes in one line what failed and what is known afterwards.
    pub(crate) fn into_store_error(self, attempt: Attempt<'_>) -> StoreError {
        let Attempt { action, at, .. } = attempt;
        match self {
            Self::Driver(error) => driver_error(&error, attempt),
            Self::TimedOut(deadline) => StoreError::new(
                ErrorKind::InDoubt,
                format!("cannot {action} at `{at}`: no answer within {deadline:?}"),
            ),
            Self::NotPrimary => StoreError::new(
                ErrorKind::NotApplied,
                format!(
                    "cannot {action} at `{at}`: the server is not the primary; name all members and `replicaSet` in the URI, \
                     and no `directConnection`"
                ),
            ),
            Self::NoClient(error) => error,
            Self::TaskEnded { panicked } => {
                let why =
                    if panicked { "the driver panicked" } else { "the runtime ended before the answer came" };
                StoreError::new(ErrorKind::InDoubt, format!("cannot {action} at `{at}`: {why}"))
            }
        }
    }

    /// Tells whether a request that changes nothing may succeed when it is sent again.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Driver(error) => {
                matches!(*error.kind, Driver::Io(_) | Driver::ConnectionPoolCleared { .. })
                    || command_code(error).is_some_and(is_transient)
            }
            Self::NotPrimary | Self::TimedOut(_) | Self::NoClient(_) | Self::TaskEnded { .. } => false,
        }
    }
}

/// Turns "in doubt" into "not applied", for requests that change no counter.
pub(crate) fn without_effect(error: StoreError) -> StoreError {
    match error.kind() {
        ErrorKind::InDoubt => StoreError::new(ErrorKind::NotApplied, error.to_string()),
        _ => error,
    }
}

fn driver_error(error: &Error, attempt: Attempt<'_>) -> StoreError {
    let Attempt { action, at, servers, login } = attempt;
    let failed = |kind, why: &str| StoreError::new(kind, format!("cannot {action} at `{at}`: {why}"));
    let login_failed = |words: &str| {
        let why = format!("login failed; check user, password and `authSource` ({})", one_line(words));
        failed(ErrorKind::Refused, &why)
    };
    match &*error.kind {
        Driver::Authentication { message, .. } => login_failed(message),
        // After a failed login the driver takes the server for unknown until the next heartbeat.
        Driver::ServerSelection { .. } if login.is_some() => login_failed(login.unwrap_or_default()),
        Driver::ServerSelection { .. } if servers.is_empty() => failed(
            ErrorKind::NotApplied,
            "no server can take it; check the hosts and `replicaSet` of the URI",
        ),
        Driver::ServerSelection { .. } => {
            failed(ErrorKind::NotApplied, &format!("no server can take it: {servers}"))
        }
        // The driver's words name types of its resolver.
        Driver::DnsResolve { .. } => failed(
            ErrorKind::NotApplied,
            "the host name of the URI cannot be resolved; `mongodb+srv://` needs an SRV record in the DNS",
        ),
        // A connection that was refused never carried a request.
        Driver::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            failed(ErrorKind::NotApplied, &one_line(&cause.to_string()))
        }
        Driver::Io(cause) => failed(
            ErrorKind::InDoubt,
            &format!("the connection broke before the answer came ({})", one_line(&cause.to_string())),
        ),
        Driver::InvalidTlsConfig { message, .. } => {
            failed(ErrorKind::Refused, &format!("the TLS settings are wrong ({})", one_line(message)))
        }
        Driver::InvalidArgument { message, .. } | Driver::IncompatibleServer { message, .. } => {
            failed(ErrorKind::Refused, &one_line(message))
        }
        Driver::Command(command) => {
            let kind = command_kind(command.code);
            failed(kind, &server_words(command.code, &command.code_name, &command.message))
        }
        // Everything else, above all what later versions of the driver may add, could have happened at any point.
        _ => failed(ErrorKind::InDoubt, &one_line(&error.kind.to_string())),
    }
}

fn command_code(error: &Error) -> Option<i32> {
    match &*error.kind {
        Driver::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Returns what is known after a command failed with `code` as a whole. Some of its updates may have applied before.
fn command_kind(code: i32) -> ErrorKind {
    match code {
        code::UNAUTHORIZED | code::AUTHENTICATION_FAILED => ErrorKind::Refused,
        _ if code::NOT_UNDERSTOOD.contains(&code) => ErrorKind::Refused,
        _ => ErrorKind::InDoubt,
    }
}

/// Tells whether the server is going down, is no longer the primary, or was interrupted.
fn is_transient(code: i32) -> bool {
    matches!(code, 6 | 7 | 50 | 89 | 91 | 134 | 189 | 262 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436)
}

/// Explains an error of the server.
fn server_words(code: i32, name: &str, message: &str) -> String {
    match code {
        code::UNAUTHORIZED if message.contains("requires authentication") => {
            "the server wants a login; name user and password in the URI".to_owned()
        }
        code::UNAUTHORIZED => {
            "no permission; the role `readWrite` on the database has all that is needed".to_owned()
        }
        _ => format!("the server says `{}` ({code} {name})", one_line(message)),
    }
}

/// Failure of one update of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// The document holds a value to which one of the increments cannot be added. The update had no effect.
    Data(String),
    /// Another writer created the document first. Says nothing about the batch.
    Exists,
    /// Any other reason.
    Other(ErrorKind, String),
}

impl WriteError {
    /// Reads the entry of `writeErrors`.
    pub(crate) fn new(code: i32, message: &str) -> Self {
        let words = server_words(code, "write error", message);
        match code {
            // Overflow, a target that is no number, a path through a value, `c` or `w` that is no document.
            2 | 14 | 28 | 31393 => Self::Data(one_line(message)),
            11000 => Self::Exists,
            // A validator of the collection's owner, or a document that cannot take another field.
            121 | 10334 | 17419 | 17420 => Self::Other(ErrorKind::Refused, words),
            code => Self::Other(command_kind(code), words),
        }
    }
}

/// Explains a write concern error: the primary has the write, and it may still be rolled back.
pub(crate) fn write_concern_words(code: i32, message: &str) -> String {
    match code {
        64 => "the primary has it, but a majority of the replica set did not confirm in time".to_owned(),
        _ => format!("the primary has it, but the majority did not confirm: {} ({code})", one_line(message)),
    }
}

/// Maximum length of a quoted foreign message, in characters.
const MAX_QUOTED: usize = 200;

/// Cuts a foreign message to one readable line. The server repeats whole commands, which are long.
fn one_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(MAX_QUOTED) {
        None => line.to_owned(),
        Some((at, _)) => format!("{}…", &line[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Attempt<'_> =
        Attempt { action: "update `web`", at: "mongodb://db:27017/countem", servers: "", login: None };

    #[test]
    fn broken_connection_is_in_doubt_unlike_refused_one() {
        let io = |kind| {
            let error = Error::from(std::io::Error::from(kind));
            Failure::Driver(error).into_store_error(ATTEMPT).kind()
        };
        assert_eq!(io(std::io::ErrorKind::ConnectionRefused), ErrorKind::NotApplied);
        for kind in [
            std::io::ErrorKind::ConnectionReset,
            std::io::ErrorKind::UnexpectedEof,
            std::io::ErrorKind::TimedOut,
            std::io::ErrorKind::BrokenPipe,
        ] {
            assert_eq!(io(kind), ErrorKind::InDoubt);
        }
    }

    #[test]
    fn request_without_an_answer_is_in_doubt() {
        let error = Failure::TimedOut(Duration::from_secs(10)).into_store_error(ATTEMPT);
        assert_eq!(error.kind(), ErrorKind::InDoubt);
        assert_eq!(
            error.to_string(),
            "cannot update `web` at `mongodb://db:27017/countem`: no answer within 10s"
        );
    }

    #[test]
    fn command_of_a_former_primary_is_in_doubt() {
        for code in [10107, 11602, 189, 91, 50, 64, 112, 4711] {
            assert_eq!(command_kind(code), ErrorKind::InDoubt, "{code}");
        }
        for code in [13, 18, 59] {
            assert_eq!(command_kind(code), ErrorKind::Refused, "{code}");
        }
    }

    #[test]
    fn duplicate_key_is_never_taken_for_applied() {
        assert_eq!(WriteError::new(11000, "E11000 duplicate key error"), WriteError::Exists);
    }

    #[test]
    fn data_error_is_caused_by_a_single_counter() {
        for code in [2, 14, 28, 31393] {
            assert!(matches!(WriteError::new(code, "m"), WriteError::Data(_)), "{code}");
        }
        for code in [13, 50, 112, 121, 189, 10107, 11600] {
            assert!(matches!(WriteError::new(code, "m"), WriteError::Other(..)), "{code}");
        }
    }

    #[test]
    fn server_message_is_cut_to_one_line() {
        assert_eq!(one_line("a\nb"), "a");
        assert_eq!(one_line(&"ä".repeat(500)).chars().count(), MAX_QUOTED + 1);
    }
}
