//! Bodies of requests, within limits that hold before anything is allocated.

use std::io::Read as _;

use actix_web::{
    HttpRequest,
    http::header,
    web::{self, Buf as _, BytesMut},
};
use flate2::bufread::MultiGzDecoder;
use futures_util::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    problem::{Code, Problem},
    state::{State, kib},
};

/// A whole body, and its share of the room for bodies.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    _room: Room,
}

/// Share of the room for bodies.
#[derive(Debug)]
struct Room {
    permits: OwnedSemaphorePermit,
    bytes: usize,
}

impl Room {
    fn new(state: &State) -> Result<Self, Problem> {
        let permits = state.bodies.clone().try_acquire_owned().map_err(|_| no_room())?;
        Ok(Self { permits, bytes: 1024 })
    }

    /// Grows the share to `bytes`.
    fn grow(&mut self, state: &State, bytes: usize) -> Result<(), Problem> {
        if bytes > self.bytes {
            // Twice as much each time, so that this is done rarely.
            let bytes = bytes.max(self.bytes * 2).min(bytes.max(state.server().max_body));
            let more = u32::try_from(kib(bytes - self.bytes)).map_err(|_| no_room())?;
            self.permits.merge(state.bodies.clone().try_acquire_many_owned(more).map_err(|_| no_room())?);
            self.bytes = bytes;
        }
        Ok(())
    }
}

fn no_room() -> Problem {
    Problem::new(Code::Busy, "the bodies of other requests take all the room: send it again in a moment")
}

/// Reads the body of a request, decompressed.
///
/// # Errors
/// It is too large, malformed, or did not arrive in time.
pub(crate) async fn read(
    state: &web::Data<State>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Body, Problem> {
    read_up_to(state, request, payload, state.server().max_body).await
}

/// Reads a body as [`read`] does, of at most `max` bytes.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_up_to(
    state: &web::Data<State>,
    request: &HttpRequest,
    mut payload: web::Payload,
    max: usize,
) -> Result<Body, Problem> {
    let is_gzip = is_gzip(request)?;
    let too_large = || Problem::new(Code::BodyTooLarge, format_args!("the body has more than {max} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced: Option<u64> = announced.and_then(|length| length.parse().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let mut room = Room::new(state)?;
    let mut bytes = BytesMut::new();
    let reading = async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk
                .map_err(|error| Problem::new(Code::BadRequest, format_args!("the body is cut: {error}")))?;
            if bytes.len() + chunk.len() > max {
                return Err(too_large());
            }
            room.grow(state, bytes.len() + chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let limit = state.server().body_timeout;
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(Code::BodyTimeout, format_args!("the body did not arrive within {limit:?}")))
    })?;
    if !is_gzip {
        return Ok(Body { bytes: bytes.into(), _room: room });
    }
    let shared = state.clone();
    let decompressing = web::block(move || {
        let mut decoder = MultiGzDecoder::new(bytes.reader());
        let (mut out, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let read = decoder.read(&mut chunk).map_err(|error| {
                Problem::new(Code::BadBody, format_args!("the body is not whole gzip: {error}"))
            })?;
            if read == 0 {
                return Ok(Body { bytes: out, _room: room });
            }
            if out.len() + read > max {
                return Err(Problem::new(
                    Code::BodyTooLarge,
                    format_args!("the body has more than {max} bytes, decompressed"),
                ));
            }
            room.grow(&shared, out.len() + read)?;
            out.extend_from_slice(&chunk[..read]);
        }
    });
    decompressing.await.map_err(|_| Problem::new(Code::Busy, "the server stops"))?
}

fn is_gzip(request: &HttpRequest) -> Result<bool, Problem> {
    match single(request, &header::CONTENT_ENCODING)? {
        None => Ok(false),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(false),
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => Ok(true),
        Some(_) => Err(Problem::new(Code::UnsupportedMediaType, "`Content-Encoding` is gzip, or none")),
    }
}

/// Returns the media type of a body, in lower case and without parameters; empty if there is none.
///
/// # Errors
/// There are two.
pub(crate) fn media_type(request: &HttpRequest) -> Result<String, Problem> {
    let text = single(request, &header::CONTENT_TYPE)?.unwrap_or_default();
    let (media, _) = text.split_once(';').unwrap_or((text, ""));
    Ok(media.trim().to_ascii_lowercase())
}

/// Returns the value of a header that may be there once.
///
/// # Errors
/// It is there twice, or is no text.
pub(crate) fn single<'a>(
    request: &'a HttpRequest,
    name: &header::HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = request.headers().get_all(name);
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Code::BadRequest, format_args!("there are two headers `{name}`")));
    }
    let text = |value: &'a header::HeaderValue| {
        let text = value.to_str().map(str::trim);
        text.map_err(|_| Problem::new(Code::BadRequest, format_args!("the header `{name}` is no text")))
    };
    value.map(text).transpose()
}
