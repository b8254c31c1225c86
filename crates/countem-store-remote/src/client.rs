//! HTTP to another countem, on threads that may block.

use std::{fs, io::BufReader, path::Path, sync::Arc};

use countem_store::{ErrorKind, Rows, StoreError};
use tokio::sync::Semaphore;
use ureq::{
    Agent, Body, SendBody,
    config::AutoHeaderValue,
    http::Response,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsProvider, parse_pem},
};

use crate::{
    RemoteConfig, TlsConfig,
    error::{Effect, Failure, of_answer},
    wire::{self, RowsError},
};

/// Maximum number of calls at the same time; further ones wait.
const MAX_CALLS: usize = 16;
/// Age at which an idle connection is not used again. Servers and firewalls close them sooner or later, and a request that is sent
/// then is in doubt.
const MAX_IDLE: std::time::Duration = std::time::Duration::from_secs(3);
/// Media type of calls and of most answers.
pub(crate) const JSON: &str = "application/json";
/// Maximum length of an answer that is not read line by line.
const MAX_ANSWER: u64 = 64 << 20;
/// Maximum length of a problem.
const MAX_PROBLEM: u64 = 64 << 10;

/// Sends requests. Every one has a body of a known length, so that one whose body was not sent to its end was certainly not carried out.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    agent: Agent,
    /// Scheme, host and port.
    base: String,
    authorization: Option<String>,
    location: String,
    calls: Semaphore,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) media_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) effect: Effect,
}

impl Client {
    /// Prepares a client; contacts no server.
    ///
    /// # Errors
    /// A file cannot be read, or the token cannot be sent.
    pub(crate) fn new(config: &RemoteConfig) -> Result<Self, StoreError> {
        let authorization = config.token.as_deref().map(authorization).transpose()?;
        let (timeout, total) = (Some(config.timeout), Some(config.total_timeout));
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A store is no web page: what the environment says of proxies does not concern it.
            .proxy(None)
            // Compression would cost more than a network between racks.
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("countem/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(MAX_CALLS)
            .max_idle_connections_per_host(MAX_CALLS)
            .max_idle_age(MAX_IDLE)
            .timeout_global(total)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_send_body(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout);
        if let Some(tls) = &config.tls {
            agent = agent.https_only(true).tls_config(tls_config(tls)?);
        }
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let shared = Shared {
            agent: agent.build().into(),
            base: format!("{scheme}://{}", config.host),
            authorization,
            location: config.location(),
            calls: Semaphore::new(MAX_CALLS),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn location(&self) -> &str {
        &self.shared.location
    }

    /// Sends a request and returns the answer.
    ///
    /// # Errors
    /// What is known after the failure. A change is never sent twice.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the request.
    pub(crate) async fn bytes(&self, request: Request) -> Result<Vec<u8>, StoreError> {
        self.run(request, JSON, |answer| {
            answer.into_body().into_with_config().limit(MAX_ANSWER).read_to_vec().map_err(Unread::Failed)
        })
        .await
    }

    /// Sends a request and returns the rows of the answer.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) async fn rows(&self, request: Request) -> Result<Rows, StoreError> {
        self.run(request, wire::ROWS_TYPE, |answer| {
            // The limits are those of lines and counters.
            let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
            wire::read_rows(&mut BufReader::new(body)).map_err(|error| match error {
                RowsError::Io(error) => Unread::Failed(error.into()),
                RowsError::Malformed(what) => Unread::Malformed(what),
            })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        request: Request,
        media_type: &'static str,
        read: impl Fn(Response<Body>) -> Result<T, Unread> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = move |answer: Response<Body>| match answer.body().mime_type() {
            Some(found) if found == media_type => read(answer),
            found => {
                let found = found.unwrap_or("unknown");
                Err(Unread::Malformed(format!("its type is {found} and not `{media_type}`")))
            }
        };
        let shared = Arc::clone(&self.shared);
        let effect = request.effect;
        let _permit = shared.calls.acquire().await.expect("the semaphore is never closed");
        let (of_call, shared) = (Arc::clone(&shared), &shared);
        let call = tokio::task::spawn_blocking(move || of_call.call(&request, &read));
        call.await.unwrap_or_else(|error| {
            let kind = if effect == Effect::Reads { ErrorKind::NotApplied } else { ErrorKind::InDoubt };
            Err(StoreError::new(kind, format!("the call of `{}` ended", shared.location)).with_source(error))
        })
    }
}

/// A failure while an answer is read.
#[derive(Debug)]
enum Unread {
    Failed(ureq::Error),
    Malformed(String),
}

impl Shared {
    fn call<T>(
        &self,
        request: &Request,
        read: &impl Fn(Response<Body>) -> Result<T, Unread>,
    ) -> Result<T, StoreError> {
        let tried = match self.attempt(request, read) {
            // A read may be repeated. A change is left to the caller, who knows its identity.
            Err(Tried::Failed(failure))
                if request.effect == Effect::Reads && failure.is_closed_connection() =>
            {
                self.attempt(request, read)
            }
            tried => tried,
        };
        tried.map_err(|tried| match tried {
            Tried::Failed(failure) => failure.into_store_error(&self.location, request.effect),
            Tried::Answered(error) => error,
        })
    }

    fn attempt<T>(
        &self,
        request: &Request,
        read: &impl Fn(Response<Body>) -> Result<T, Unread>,
    ) -> Result<T, Tried> {
        let mut rest = request.body.as_slice();
        let mut post = self
            .agent
            .post(format!("{}{}", self.base, request.path))
            .header("content-type", request.media_type)
            .header("content-length", request.body.len());
        if let Some(authorization) = &self.authorization {
            post = post.header("authorization", authorization);
        }
        let answer = post.send(SendBody::from_reader(&mut rest));
        let is_unsent = !rest.is_empty();
        let failed = |error| Tried::Failed(Failure { error, is_unsent });
        let answer = answer.map_err(failed)?;
        let status = answer.status().as_u16();
        if status != 200 {
            let mut body = answer.into_body();
            let media_type = body.mime_type().unwrap_or_default().to_owned();
            // A problem that cannot be read is one of another program.
            let text = body.with_config().limit(MAX_PROBLEM).read_to_vec().unwrap_or_default();
            return Err(Tried::Answered(of_answer(
                &self.location,
                request.effect,
                status,
                &media_type,
                &text,
            )));
        }
        read(answer).map_err(|unread| match unread {
            Unread::Failed(error) => failed(error),
            Unread::Malformed(what) => Tried::Answered(malformed(&self.location, request.effect, &what)),
        })
    }
}

/// Returns the error of an answer that no countem gives.
pub(crate) fn malformed(location: &str, effect: Effect, what: &str) -> StoreError {
    let kind = if effect == Effect::Reads { ErrorKind::Refused } else { ErrorKind::InDoubt };
    StoreError::new(kind, format!("the answer of `{location}` cannot be read: {what}"))
}

#[derive(Debug)]
enum Tried {
    Failed(Failure),
    Answered(StoreError),
}

fn authorization(token: &str) -> Result<String, StoreError> {
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(format!("Bearer {token}")),
        false => Err(refused("the token has a character that no token has".to_owned())),
    }
}

fn tls_config(files: &TlsConfig) -> Result<ureq::tls::TlsConfig, StoreError> {
    let roots = match &files.ca {
        Some(file) => RootCerts::Specific(Arc::new(certificates(file)?)),
        None => RootCerts::WebPki,
    };
    let identity = match &files.identity {
        Some((chain, key)) => Some(ClientCert::new_with_certs(&certificates(chain)?, private_key(key)?)),
        None => None,
    };
    let config = ureq::tls::TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots)
        .client_cert(identity);
    Ok(config.build())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, StoreError> {
    let items = parse_pem(&content(file)?).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|error| refused(format!("`{}`", file.display())).with_source(error))?;
    let found = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    match found.is_empty() {
        true => Err(refused(format!("`{}` holds no certificate in PEM", file.display()))),
        false => Ok(found),
    }
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>, StoreError> {
    PrivateKey::from_pem(&content(file)?).map_err(|error| {
        refused(format!("`{}` holds no private key in PEM", file.display())).with_source(error)
    })
}

fn content(file: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(file).map_err(|error| refused(format!("cannot read `{}`", file.display())).with_source(error))
}

fn refused(why: String) -> StoreError {
    StoreError::new(ErrorKind::Refused, why)
}
