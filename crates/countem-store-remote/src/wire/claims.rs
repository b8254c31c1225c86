//! Claims of idempotency keys on the wire.

use std::sync::Arc;

use countem_core::{Batch, BatchId, Claim, IdempotencyKey, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use super::{Applied, Text, from_hex, to_hex};

/// A claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyClaim {
    /// The key, with its scope.
    pub key: Text<IdempotencyKey>,
    /// Hash of the body, in hexadecimal digits.
    pub body: String,
    /// The entry.
    pub by: Text<BatchId>,
    /// End of the claim.
    pub expires_at: Text<Timestamp>,
    /// Counts that are added with the claim: a batch, [encoded](Batch::encode), in hexadecimal digits.
    pub batch: Option<String>,
}

/// Outcome of a claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claimed {
    /// See [`Claimed::Won`](countem_store::Claimed::Won).
    Won(Applied),
    /// See [`Claimed::Repeat`](countem_store::Claimed::Repeat).
    Repeat,
    /// See [`Claimed::Mismatch`](countem_store::Claimed::Mismatch).
    Mismatch,
}

impl From<&Claim> for KeyClaim {
    fn from(claim: &Claim) -> Self {
        let Claim { key, body, by, expires_at, batch } = claim;
        Self {
            key: Text(key.clone()),
            body: to_hex(body),
            by: Text(by.clone()),
            expires_at: Text(*expires_at),
            batch: batch.as_ref().map(|batch| to_hex(&batch.encode())),
        }
    }
}

impl KeyClaim {
    /// Returns the claim, `None` if its hash or batch is none.
    pub fn decode(&self) -> Option<Claim> {
        let decode = |digits: &String| Some(Arc::new(Batch::decode(&from_hex(digits)?).ok()?));
        Some(Claim {
            key: self.key.0.clone(),
            body: from_hex(&self.body)?.try_into().ok()?,
            by: self.by.0.clone(),
            expires_at: self.expires_at.0,
            batch: match &self.batch {
                Some(digits) => Some(decode(digits)?),
                None => None,
            },
        })
    }
}

impl From<countem_store::Claimed> for Claimed {
    fn from(claimed: countem_store::Claimed) -> Self {
        match claimed {
            countem_store::Claimed::Won(applied) => Self::Won(applied.into()),
            countem_store::Claimed::Repeat => Self::Repeat,
            countem_store::Claimed::Mismatch => Self::Mismatch,
        }
    }
}

impl From<Claimed> for countem_store::Claimed {
    fn from(claimed: Claimed) -> Self {
        match claimed {
            Claimed::Won(applied) => Self::Won(applied.into()),
            Claimed::Repeat => Self::Repeat,
            Claimed::Mismatch => Self::Mismatch,
        }
    }
}
