//! Idempotency keys: the same request under the same key counts once, whichever node of a store gets it.
//!
//! The key is the header `Idempotency-Key`, in quotation marks or not. It belongs to the token, so holders of other tokens may use the
//! same one. A request that is refused is not remembered.

use actix_web::{HttpRequest, http::header::HeaderName};
use countem::keyed::{Guarantee as Kept, IdempotencyKey, Keyed, KeyedError, KeyedIncrement};
use countem_config::Guarantee;
use sha2::{Digest, Sha256};

use super::{body::single, items::Item};
use crate::{
    auth::Permission,
    problem::{Code, Problem, Rejected, code_of},
    state::State,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns the key of a request, in the scope of its token.
///
/// # Errors
/// It is malformed, or there are two.
pub(crate) fn key_of(
    request: &HttpRequest,
    permission: &Permission,
) -> Result<Option<IdempotencyKey>, Problem> {
    let bad = |why: String| Problem::new(Code::BadKey, why);
    let given = single(request, &HEADER).map_err(|problem| bad(problem.detail().to_owned()))?;
    let Some(text) = given else { return Ok(None) };
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let key = IdempotencyKey::in_scope(permission.id(), text);
    key.map(Some).map_err(|error| bad(error.to_string()))
}

/// Returns the hash of a request, by which another one under the same key is noticed.
pub(crate) fn hash_of(request: &HttpRequest, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [request.uri().path().as_bytes(), request.query_string().as_bytes(), body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Counts the increments of a request under its key, all or none.
///
/// # Errors
/// Nothing is counted, or it is not known yet; the code says which.
pub(crate) async fn count(
    state: &State,
    key: &IdempotencyKey,
    hash: [u8; 32],
    items: &[Item<'_>],
    guarantee: Guarantee,
) -> Result<(), Problem> {
    let mut metrics = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        metrics.push(item.metric_text().map_err(|refusal| problem(KeyedError::Refused { index, refusal }))?);
    }
    let increments: Vec<_> = items
        .iter()
        .zip(&metrics)
        .map(|(item, metric)| KeyedIncrement { collection: &item.collection, metric, n: item.n, at: item.at })
        .collect();
    let kept = if guarantee == Guarantee::Store { Kept::Store } else { Kept::Journal };
    let limit = state.server().write_timeout;
    let counting = state.collector.increment_keyed(key, hash, &increments, kept);
    let outcome = tokio::time::timeout(limit, counting).await.map_err(|_| {
        let why = format_args!(
            "not known yet whether it is counted, after {limit:?}: send it again with the same key"
        );
        Problem::new(Code::InProgress, why).retry_after(1)
    })?;
    match outcome.map_err(problem)? {
        Keyed::Counted | Keyed::Repeat => Ok(()),
        Keyed::Mismatch => Err(Problem::new(
            Code::KeyReused,
            "the idempotency key was used for another request in the last day",
        )),
    }
}

fn problem(error: KeyedError) -> Problem {
    let code = match &error {
        KeyedError::Refused { index, refusal } => {
            let code = code_of(refusal);
            let rejected = [Rejected { index: *index, code, detail: refusal.to_string() }];
            return Problem::new(code, &error).rejected(rejected);
        }
        KeyedError::Busy => Code::Busy,
        KeyedError::Unavailable { .. } => Code::StoreUnavailable,
        KeyedError::InProgress { .. } => return Problem::new(Code::InProgress, &error).retry_after(1),
        _ => Code::NotYet,
    };
    Problem::new(code, &error)
}
