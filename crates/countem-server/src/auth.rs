//! Access: tokens with roles and collections, and the rate of requests.
//!
//! A handler names the role that it needs, so nothing of the body of a request without it is read.

mod rate;
pub(crate) mod tokens;

use std::{net::IpAddr, sync::Arc};

use actix_web::{HttpRequest, http::header};
use countem::Timestamp;
use parking_lot::RwLock;

use self::{
    rate::Rates,
    tokens::{Role, Token, Tokens},
};
use crate::problem::{Code, Problem};

/// Wrong tokens per second of one address.
const WRONG_TOKENS: u32 = 10;

/// Checks who may do what.
#[derive(Debug)]
pub(crate) struct Access {
    /// `None`: every sender that reaches the server may do everything.
    tokens: RwLock<Option<Arc<Tokens>>>,
    rates: Rates,
    wrong: Rates,
}

impl Access {
    pub(crate) fn new(tokens: Option<Tokens>, rate: u32) -> Self {
        Self {
            tokens: RwLock::new(tokens.map(Arc::new)),
            rates: Rates::new(rate),
            wrong: Rates::new(WRONG_TOKENS),
        }
    }

    /// Takes other tokens. A server that has some never goes on without.
    pub(crate) fn replace(&self, tokens: Tokens) {
        let mut current = self.tokens.write();
        if current.is_some() {
            *current = Some(Arc::new(tokens));
        }
    }

    /// Tells whether a token is needed.
    pub(crate) fn has_tokens(&self) -> bool {
        self.tokens.read().is_some()
    }

    /// Returns the permission of a request.
    pub(crate) fn permission(&self, request: &HttpRequest) -> Result<Permission, Problem> {
        let tokens = self.tokens.read().clone();
        let address = request.peer_addr().map(|address| address.ip());
        let Some(tokens) = tokens else {
            check_rate(&self.rates, Party::Address(address))?;
            return Ok(Permission { token: None });
        };
        let found = given_token(request)
            .and_then(|text| tokens.find(text, Timestamp::now()).map_err(Problem::unauthorized));
        match found {
            Ok(token) => {
                check_rate(&self.rates, Party::Token(token.id.clone()))?;
                Ok(Permission { token: Some(token) })
            }
            Err(problem) => {
                check_rate(&self.wrong, Party::Address(address))?;
                Err(problem)
            }
        }
    }
}

fn check_rate(rates: &Rates, party: Party) -> Result<(), Problem> {
    rates.take(party).map_err(|wait| {
        Problem::new(Code::RateLimited, format_args!("more than {} requests per second", rates.limit()))
            .retry_after(wait)
    })
}

/// Sender whose requests are limited together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    Token(String),
    Address(Option<IpAddr>),
}

/// Returns the text of the token of a request.
fn given_token(request: &HttpRequest) -> Result<&str, Problem> {
    let mut given = request.headers().get_all(header::AUTHORIZATION);
    let text = match (given.next(), given.next()) {
        (None, _) => return Err(Problem::unauthorized("a token is needed: `Authorization: Bearer TOKEN`")),
        (Some(_), Some(_)) => return Err(Problem::unauthorized("there are two `Authorization` headers")),
        (Some(text), None) => text.to_str().unwrap_or_default(),
    };
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    match text.split_once(' ') {
        Some((scheme, token)) if is_bearer(scheme) => Ok(token.trim()),
        _ => Err(Problem::unauthorized("`Authorization` has to be `Bearer TOKEN`")),
    }
}

/// Rights of the sender of a request.
#[derive(Debug, Clone)]
pub(crate) struct Permission {
    /// `None`: everything.
    token: Option<Arc<Token>>,
}

impl Permission {
    /// # Errors
    /// The token lacks the role.
    pub(crate) fn check_role(&self, role: Role) -> Result<(), Problem> {
        match &self.token {
            Some(token) if !token.has(role) => {
                let name = role.name();
                Err(Problem::new(
                    Code::Forbidden,
                    format_args!("the token `{}` has no role `{name}`", token.id),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the collection is one of the token's.
    pub(crate) fn covers(&self, collection: &str) -> bool {
        self.token.as_ref().is_none_or(|token| token.covers(collection))
    }

    /// Tells whether every collection is one of the token's.
    pub(crate) fn covers_all(&self) -> bool {
        self.token.as_ref().is_none_or(|token| token.covers_all())
    }

    /// # Errors
    /// The collection is none of the token's.
    pub(crate) fn check(&self, collection: &str) -> Result<(), Problem> {
        if self.covers(collection) {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, format_args!("the token is not for the collection `{collection}`")))
    }

    /// # Errors
    /// The token is for some collections only.
    pub(crate) fn check_all(&self) -> Result<(), Problem> {
        if self.covers_all() {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, "the token is for some collections only, and this is about all"))
    }

    /// Returns the id of the token, empty without one: the scope of idempotency keys.
    pub(crate) fn id(&self) -> &str {
        self.token.as_ref().map_or("", |token| &token.id)
    }

    /// Returns the name of the sender, for the log of corrections.
    pub(crate) fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }
}
