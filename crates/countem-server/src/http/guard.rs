//! Steps of every request: checks of host and origin, its id, the log of accesses, the end of its connection.

use std::time::Instant;

use actix_web::http::ConnectionType;
use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{body::single, params::shown};
use crate::{
    problem::{Code, Problem},
    state::{Phase, State},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Passes a request on, unless a page of another site may have sent it.
pub(crate) async fn guard<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let state = request.app_data::<web::Data<State>>().expect("every app has the state").clone();
    let began = Instant::now();
    let id = request_id(request.request());
    request.extensions_mut().insert(id.clone());
    if request.method() == Method::HEAD {
        // The routes are those of GET; the body is left out where the answer is written.
        request.head_mut().method = Method::GET;
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let refused = check(request.request(), &state).err();
    let mut response = match refused {
        Some(problem) => {
            state.metrics.refused(problem.code());
            request.error_response(problem).map_into_right_body()
        }
        None => match next.call(request).await {
            Ok(response) => response.map_into_left_body(),
            Err(error) => return Err(error),
        },
    };
    let head = response.response_mut().head_mut();
    head.headers.insert(REQUEST_ID, id);
    head.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if state.phase() >= Phase::Closing {
        head.set_connection_type(ConnectionType::Close);
    }
    log(&response, &state, began);
    Ok(response)
}

fn log<B>(response: &ServiceResponse<B>, state: &State, began: Instant) {
    let (request, status) = (response.request(), response.status().as_u16());
    state.metrics.answered(status);
    tracing::debug!(
        target: "countem::access",
        method = %request.method(),
        path = %shown(request.path()),
        status,
        took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        peer = request.peer_addr().map(|peer| tracing::field::display(peer.ip())),
        request_id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()),
        "answered",
    );
}

/// Returns the id of a request: its own if it has a sensible one.
fn request_id(request: &HttpRequest) -> HeaderValue {
    let is_sensible = |id: &&HeaderValue| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
    };
    request.headers().get(REQUEST_ID).filter(is_sensible).cloned().unwrap_or_else(|| {
        let id = format!("{:016x}", rand::random::<u64>());
        HeaderValue::from_str(&id).expect("digits are a header")
    })
}

/// Checks host and origin. Without tokens the server trusts what reaches it, and a page in a browser on this machine would reach it.
fn check(request: &HttpRequest, state: &State) -> Result<(), Problem> {
    let host = single(request, &header::HOST)?.unwrap_or_default();
    let host = request.uri().host().unwrap_or_else(|| without_port(host)).to_ascii_lowercase();
    let hosts = &state.server().hosts;
    let is_checked = !hosts.is_empty() || !state.access.has_tokens();
    // Browsers always name a host; health checks of balancers may not.
    let is_own =
        || host.is_empty() || is_this_machine(&host) || hosts.contains(&host) || is_listened(&host, state);
    if is_checked && !is_own() {
        return Err(Problem::new(
            Code::WrongHost,
            format_args!("`{}` is none of this server's names: add it to `server.hosts`", shown(&host)),
        ));
    }
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_foreign = match single(request, &HeaderName::from_static("sec-fetch-site"))? {
        Some(site) => !matches!(site, "same-origin" | "none"),
        None => single(request, &header::ORIGIN)?.is_some_and(|origin| {
            let origin = origin.split_once("://").map_or(origin, |(_, host)| host);
            without_port(origin).to_ascii_lowercase() != host
        }),
    };
    if is_foreign && !is_safe {
        return Err(Problem::new(Code::CrossSite, "a page of another site must not change anything here"));
    }
    Ok(())
}

/// Returns a host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn is_listened(host: &str, state: &State) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.is_ok_and(|address| {
        state.server().listen.iter().any(|listen| listen.ip() == address || listen.ip().is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_no_part_of_a_host() {
        for (host, name) in [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(without_port(host), name);
        }
        assert!(is_this_machine("localhost") && is_this_machine("[::1]") && is_this_machine("127.0.0.2"));
        assert!(!is_this_machine("localhost.example.org") && !is_this_machine("10.0.0.1"));
    }
}
