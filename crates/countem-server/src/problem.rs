//! Errors of the API: RFC 9457 problems, each with a stable code.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use countem::{Error, ErrorKind, Refusal, engine::ReadError, query::QueryError};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{Object, Schema, Type},
    },
};

/// Media type of a problem.
pub(crate) const PROBLEM: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident = $name:literal, $status:ident;)*) => {
        /// Kind of an error. The names never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $code,)*
        }

        impl PartialSchema for Code {
            fn schema() -> RefOr<Schema> {
                let names = Self::ALL.iter().map(|code| code.name());
                let lines = Self::ALL.iter().map(|code| format!("- `{}`: {}", code.name(), code.title()));
                Object::builder()
                    .schema_type(Type::String)
                    .enum_values(Some(names))
                    .description(Some(lines.collect::<Vec<_>>().join("\n")))
                    .into()
            }
        }

        impl ToSchema for Code {}

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// Returns the name, as answers have it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// Returns the status of answers with this code.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)* }
            }

            /// Returns the meaning, in one line.
            fn title(self) -> &'static str {
                match self { $(Self::$code => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

codes! {
    /// The request is malformed.
    BadRequest = "bad_request", BAD_REQUEST;
    /// A parameter is unknown, missing or wrong.
    BadParameter = "bad_parameter", BAD_REQUEST;
    /// A collection, metric or label has no valid name.
    BadName = "bad_name", BAD_REQUEST;
    /// The time lies outside the window in which increments are accepted.
    BadTime = "bad_time", BAD_REQUEST;
    /// The body is not what its content type says.
    BadBody = "bad_body", BAD_REQUEST;
    /// The idempotency key is malformed.
    BadKey = "bad_key", BAD_REQUEST;
    /// No token, or one that is not valid.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// The token does not allow this.
    Forbidden = "forbidden", FORBIDDEN;
    /// The request comes from a page of another site.
    CrossSite = "cross_site", FORBIDDEN;
    /// The host of the request is not one of this server's.
    WrongHost = "wrong_host", MISDIRECTED_REQUEST;
    /// There is no such thing.
    NotFound = "not_found", NOT_FOUND;
    /// The method is not for this path.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// No media type that the client accepts is offered.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE;
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT;
    /// A request with the same idempotency key goes on.
    InProgress = "in_progress", CONFLICT;
    /// The body is larger than the server takes.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// There are more increments in the request than the server takes.
    TooManyItems = "too_many_items", PAYLOAD_TOO_LARGE;
    /// The content type or encoding is not one that the server reads.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The idempotency key was used for another request.
    KeyReused = "key_reused", UNPROCESSABLE_ENTITY;
    /// No increment of the request was accepted.
    NothingAccepted = "nothing_accepted", UNPROCESSABLE_ENTITY;
    /// The query has no exact answer.
    NotExact = "not_exact", UNPROCESSABLE_ENTITY;
    /// The answer would exceed a limit.
    AnswerTooLarge = "answer_too_large", UNPROCESSABLE_ENTITY;
    /// A stored value is no whole number of 64 bits.
    Unreadable = "unreadable", UNPROCESSABLE_ENTITY;
    /// The guarantee is weaker or stronger than this server gives.
    GuaranteeUnavailable = "guarantee_unavailable", UNPROCESSABLE_ENTITY;
    /// The correction was refused.
    CorrectionRefused = "correction_refused", UNPROCESSABLE_ENTITY;
    /// More requests than allowed.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// There is no room for the increments now. Nothing was counted.
    Full = "full", SERVICE_UNAVAILABLE;
    /// The server is busy.
    Busy = "busy", SERVICE_UNAVAILABLE;
    /// The server stops. Nothing was counted.
    Stopping = "stopping", SERVICE_UNAVAILABLE;
    /// The store cannot be used now. What was counted stays counted.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE;
    /// The store does not take the batch before a person has acted.
    StoreRefused = "store_refused", UNPROCESSABLE_ENTITY;
    /// The store does not support the call.
    Unsupported = "unsupported", UNPROCESSABLE_ENTITY;
    /// The mark of the batch is elsewhere. Nothing of it is stored.
    MarkMoved = "mark_moved", CONFLICT;
    /// The store did not answer in time. The same batch may be sent again, and is added once.
    InDoubt = "in_doubt", GATEWAY_TIMEOUT;
    /// The increments are counted, but the journal cannot be written. Do not send them again.
    NotDurable = "not_durable", SERVICE_UNAVAILABLE;
    /// The increments are counted; the guarantee does not hold yet. Do not send them again.
    NotYet = "not_yet", GATEWAY_TIMEOUT;
    /// The store, or what is stored, needs a person.
    StoreFailed = "store_failed", INTERNAL_SERVER_ERROR;
    /// The server made a mistake.
    Internal = "internal", INTERNAL_SERVER_ERROR;
}

/// An error of the API, in the form of RFC 9457.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    /// Seconds after which the same request may succeed.
    retry_after: Option<u32>,
    rejected: Option<serde_json::Value>,
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Problem")]
pub(crate) struct ProblemBody<'a> {
    /// Kind of the error, for programs.
    code: Code,
    /// The meaning of the code.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// The reason, and what is known of the request.
    detail: &'a str,
    /// Increments that were not accepted, where the request had several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Rejected>>)]
    rejected: Option<&'a serde_json::Value>,
}

/// An increment that was not counted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Rejected {
    /// Its place in the array, or its line, from 0.
    pub(crate) index: usize,
    /// Kind of the error.
    pub(crate) code: Code,
    /// The reason.
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl fmt::Display) -> Self {
        let retry_after =
            (code.status() == StatusCode::SERVICE_UNAVAILABLE && code != Code::NotDurable).then_some(1);
        Self { code, detail: detail.to_string(), retry_after, rejected: None }
    }

    pub(crate) fn rejected(self, rejected: impl Serialize) -> Self {
        Self { rejected: serde_json::to_value(rejected).ok(), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn unauthorized(detail: impl fmt::Display) -> Self {
        Self::new(Code::Unauthorized, detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse {
        let body = ProblemBody {
            code: self.code,
            title: self.code.title(),
            status: self.status_code().as_u16(),
            detail: &self.detail,
            rejected: self.rejected.as_ref(),
        };
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.code == Code::Unauthorized {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"countem\""));
        }
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        let body = serde_json::to_string(&body).expect("a problem is always JSON");
        response.content_type(PROBLEM).body(body)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(code_of(&refusal), refusal)
    }
}

/// Returns the code of a refused increment.
pub(crate) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Name(_) | Refusal::Labels(_) => Code::BadName,
        Refusal::Window { .. } | Refusal::Bucket(_) | Refusal::Expired { .. } => Code::BadTime,
        Refusal::Closed | Refusal::Forked => Code::Stopping,
        _ => Code::Full,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Name(_) | Error::Labels(_) => Code::BadName,
            Error::Bucket(_) => Code::BadParameter,
            Error::Refused(refusal) => code_of(refusal),
            Error::NotDurable(_) => Code::NotDurable,
            Error::NotStored => Code::Stopping,
            Error::Read(ReadError::Unreadable { .. }) => Code::Unreadable,
            Error::Read(ReadError::Bucket(_)) => Code::BadParameter,
            Error::Read(
                ReadError::NotStored { .. }
                | ReadError::PeriodsChanged { .. }
                | ReadError::ZoneChanged { .. }
                | ReadError::Expired { .. },
            ) => Code::NotExact,
            Error::Query(QueryError::Limit { .. }) => Code::AnswerTooLarge,
            Error::Query(_) => Code::BadParameter,
            other => match other.kind() {
                ErrorKind::Unavailable => Code::StoreUnavailable,
                ErrorKind::Closed => Code::Stopping,
                ErrorKind::Invalid => Code::BadParameter,
                _ => Code::StoreFailed,
            },
        };
        Self::new(code, error)
    }
}
