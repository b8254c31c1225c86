//! Claims of idempotency keys.
//!
//! `_countem_keys`: `{_id: "<scope>/<key>", body, by: "<entry>", expires_at: Date, batch}`
//!
//! 1. *Insert if absent*: one update with upsert for each key, all in one command. The filter is equality on `_id` only.
//! 2. *Read who has the key*, with read concern majority. Neither an insertion nor a duplicate key is taken for an answer, and a
//!    read is believed only for a key whose update was answered: the answer waits until the majority has the state that the update met.
//! 3. *An expired claim gives way* by compare-and-set. It is expired when both the caller's clock and the server's say so; the TTL index
//!    removes it at any time after that.
//!
//! The batch of a claim lies in its document until it is added, as that of a mark does: an entry that meets it completes it before it
//! is told that it repeats that request. So a process that dies between the claim and the counts loses nothing.

use std::{collections::HashMap, sync::Arc};

use countem_core::{Batch, Claim, jiff::Timestamp};
use countem_store::{Applied, Claimed, ErrorKind, StoreError};
use mongodb::bson::{
    Binary, DateTime, RawArrayBuf, RawDocument, RawDocumentBuf,
    raw::{CStr, cstr},
    rawdoc,
    spec::BinarySubtype,
};

use crate::{
    command::{self, Level, action},
    connection::Connection,
    document::{EXPIRES_AT, KEYS},
    error::WriteError,
};

const BODY: &CStr = cstr!("body");
const BY: &CStr = cstr!("by");
const BATCH: &CStr = cstr!("batch");
/// Computed by a read: true for a claim that has expired by the server's clock.
const IS_OVER: &CStr = cstr!("is_over");

/// Maximum number of claims in one command.
const MAX_CLAIMS: usize = 1000;
/// Maximum number of bytes of the batches in one command, and of one batch. A document ends at 16 MB.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Maximum number of attempts. If a document changes more often, the caller may back off.
const MAX_ROUNDS: usize = 16;

/// The document of a key.
#[derive(Debug)]
struct Found {
    body: Vec<u8>,
    by: String,
    expires_at: DateTime,
    is_over: bool,
    batch: Option<Arc<Batch>>,
}

/// A claim without an outcome.
struct Open<'a> {
    index: usize,
    claim: &'a Claim,
    by: String,
    /// The frozen batch.
    batch: Option<Vec<u8>>,
}

/// Claims keys; see [`Store::claim`](countem_store::Store::claim). `add` adds the deltas of a batch, exactly once.
pub(crate) async fn claim<F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    claims: &[Claim],
    now: Timestamp,
    add: impl Fn(Arc<Batch>) -> F,
) -> Result<Vec<Claimed>, StoreError> {
    let mut outcomes: Vec<Option<Claimed>> = claims.iter().map(|_| None).collect();
    let mut open = Vec::with_capacity(claims.len());
    for (index, claim) in claims.iter().enumerate() {
        let batch = claim.batch.as_deref().map(Batch::encode);
        if batch.as_ref().is_some_and(|bytes| bytes.len() > MAX_BATCH_BYTES) {
            let why = format!("a request with an idempotency key has more than {MAX_BATCH_BYTES} bytes");
            return Err(StoreError::new(ErrorKind::Refused, why));
        }
        open.push(Open { index, claim, by: claim.by.to_string(), batch });
    }
    let mut is_first = true;
    for _ in 0..MAX_ROUNDS {
        let mut rest = Vec::new();
        while !open.is_empty() {
            let later = open.split_off(fitting(&open));
            let claimed = round(connection, std::mem::replace(&mut open, later), now, &add).await;
            // A command before this one may have claimed.
            let claimed = if is_first { claimed } else { claimed.map_err(in_doubt) };
            is_first = false;
            for (claim, outcome) in claimed? {
                match outcome {
                    Some(outcome) => outcomes[claim.index] = Some(outcome),
                    None => rest.push(claim),
                }
            }
        }
        open = rest;
        if open.is_empty() {
            break;
        }
    }
    let why = "cannot claim an idempotency key: other processes change its claim all the time";
    let all: Option<Vec<_>> = outcomes.into_iter().collect();
    all.ok_or_else(|| StoreError::new(ErrorKind::InDoubt, why))
}

/// Returns the number of leading claims that fit into one command, at least one.
fn fitting(open: &[Open<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |claim: &&Open<'_>| {
        bytes += claim.batch.as_ref().map_or(0, Vec::len);
        bytes <= MAX_BATCH_BYTES
    };
    open.iter().take(MAX_CLAIMS).take_while(fits).count().max(1)
}

/// Sends claims, reads who has their keys, and returns the outcomes that are known by then.
async fn round<'a, F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    open: Vec<Open<'a>>,
    now: Timestamp,
    add: &impl Fn(Arc<Batch>) -> F,
) -> Result<Vec<(Open<'a>, Option<Claimed>)>, StoreError> {
    let is_answered = insert(connection, &open).await?;
    let mut found = find(connection, &open).await.map_err(in_doubt)?;
    let mut outcomes = Vec::with_capacity(open.len());
    for (claim, is_answered) in open.into_iter().zip(is_answered) {
        let outcome = match found[outcomes.len()].take() {
            Some(found) if is_answered => {
                decide(connection, &claim, found, now, add).await.map_err(in_doubt)?
            }
            _ => None,
        };
        outcomes.push((claim, outcome));
    }
    Ok(outcomes)
}

/// Inserts the claims whose keys are free, and tells of each whether its update was answered without an error.
async fn insert(connection: &Connection, open: &[Open<'_>]) -> Result<Vec<bool>, StoreError> {
    let updates = open.iter().map(|claim| {
        let change = rawdoc! { "$setOnInsert": claim.fields() };
        rawdoc! { "q": { "_id": claim.claim.key.as_str() }, "u": change, "upsert": true }
    });
    let reply = command::write(connection, "claim keys in", KEYS, updates).await?;
    let mut is_answered = vec![true; open.len()];
    let failed = reply.errors.len();
    for (at, error) in reply.errors {
        match error {
            // Two insertions met: the next update of this key finds one of them.
            WriteError::Exists => is_answered[at] = false,
            WriteError::Data(words) | WriteError::Other(ErrorKind::Refused, words)
                if failed == open.len() =>
            {
                return Err(connection.failed(ErrorKind::Refused, &action("claim keys in", KEYS), &words));
            }
            WriteError::Data(words) | WriteError::Other(_, words) => {
                return Err(connection.failed(ErrorKind::InDoubt, &action("claim keys in", KEYS), &words));
            }
        }
    }
    Ok(is_answered)
}

/// Reads the documents of the keys, in their order.
async fn find(connection: &Connection, open: &[Open<'_>]) -> Result<Vec<Option<Found>>, StoreError> {
    let keys: RawArrayBuf = open.iter().map(|claim| claim.claim.key.as_str()).collect();
    let filter = rawdoc! { "_id": { "$in": keys } };
    let projection = rawdoc! { BODY: 1, BY: 1, EXPIRES_AT: 1, BATCH: 1, IS_OVER: has_expired() };
    let find = command::find(connection, KEYS, Level::Majority, filter, projection);
    let mut found: Vec<Option<Found>> = open.iter().map(|_| None).collect();
    let at: HashMap<_, _> =
        open.iter().enumerate().map(|(at, claim)| (claim.claim.key.as_str(), at)).collect();
    command::read(connection, KEYS, find, |document| {
        if let Some(at) = document.get_str("_id").ok().and_then(|key| at.get(key)) {
            found[*at] = Some(Found::of(document)?);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Returns the outcome of a claim whose key belongs to the entry in `found`; `None` when that has to be looked at again.
async fn decide<F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    claim: &Open<'_>,
    found: Found,
    now: Timestamp,
    add: &impl Fn(Arc<Batch>) -> F,
) -> Result<Option<Claimed>, StoreError> {
    if found.by == claim.by {
        let Some(batch) = &claim.claim.batch else { return Ok(Some(Claimed::Won(Applied::default()))) };
        // Adding it again adds nothing, and reports what was quarantined.
        let applied = add(Arc::clone(batch)).await?;
        if found.batch.is_some() {
            complete(connection, claim, &found.by).await?;
        }
        return Ok(Some(Claimed::Won(applied)));
    }
    if found.is_over && found.expires_at.timestamp_millis() <= now.as_millisecond() {
        replace(connection, claim, &found.by).await?;
        return Ok(None);
    }
    if found.body != claim.claim.body {
        return Ok(Some(Claimed::Mismatch));
    }
    if let Some(batch) = found.batch {
        add(batch).await?;
        complete(connection, claim, &found.by).await?;
    }
    Ok(Some(Claimed::Repeat))
}

/// Removes the batch, which is added, from the claim of the entry `by`.
async fn complete(connection: &Connection, claim: &Open<'_>, by: &str) -> Result<(), StoreError> {
    let query = rawdoc! { "_id": claim.claim.key.as_str(), BY: by };
    update(connection, rawdoc! { "q": query, "u": { "$unset": { BATCH: true } } }).await
}

/// Puts the claim in place of the one of the entry `by`, which has expired.
async fn replace(connection: &Connection, claim: &Open<'_>, by: &str) -> Result<(), StoreError> {
    let query = rawdoc! { "_id": claim.claim.key.as_str(), BY: by, "$expr": has_expired() };
    let mut change = rawdoc! { "$set": claim.fields() };
    if claim.batch.is_none() {
        change.append(cstr!("$unset"), rawdoc! { BATCH: true });
    }
    update(connection, rawdoc! { "q": query, "u": change }).await
}

fn has_expired() -> RawDocumentBuf {
    rawdoc! { "$lte": [format!("${EXPIRES_AT}"), "$$NOW"] }
}

async fn update(connection: &Connection, update: RawDocumentBuf) -> Result<(), StoreError> {
    command::write_all(connection, "update", KEYS, [update]).await.map(drop)
}

impl Open<'_> {
    fn fields(&self) -> RawDocumentBuf {
        let body = Binary { subtype: BinarySubtype::Generic, bytes: self.claim.body.to_vec() };
        let expires_at = DateTime::from_millis(self.claim.expires_at.as_millisecond());
        let mut fields = rawdoc! { BODY: body, BY: self.by.as_str(), EXPIRES_AT: expires_at };
        if let Some(batch) = &self.batch {
            fields.append(BATCH, Binary { subtype: BinarySubtype::Generic, bytes: batch.clone() });
        }
        fields
    }
}

impl Found {
    fn of(document: &RawDocument) -> Result<Self, StoreError> {
        let damaged = |what: &str| {
            let key = document.get_str("_id").unwrap_or_default();
            StoreError::new(
                ErrorKind::Refused,
                format!("the claim of `{key}` in `{KEYS}` is damaged: {what}"),
            )
        };
        let batch = match document.get_binary(BATCH) {
            Err(_) => None,
            Ok(binary) => {
                Some(Arc::new(Batch::decode(binary.bytes).map_err(|_| damaged("its batch cannot be read"))?))
            }
        };
        Ok(Self {
            body: document.get_binary(BODY).map_err(|_| damaged("it has no body"))?.bytes.to_vec(),
            by: document.get_str(BY).map_err(|_| damaged("it has no entry"))?.to_owned(),
            expires_at: document.get_datetime(EXPIRES_AT).map_err(|_| damaged("it has no expiry"))?,
            is_over: document.get_bool(IS_OVER).unwrap_or(false),
            batch,
        })
    }
}

/// Returns an error after a command that may have claimed.
fn in_doubt(error: StoreError) -> StoreError {
    match error.kind() {
        ErrorKind::InDoubt => error,
        _ => StoreError::new(ErrorKind::InDoubt, error.to_string()),
    }
}
