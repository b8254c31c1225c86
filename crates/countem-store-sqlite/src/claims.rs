//! Claims of idempotency keys: one row each, together with the batch of the claim in one transaction.

use countem_core::{Claim, jiff::Timestamp};
use countem_store::{Applied, Claimed};
use rusqlite::{Connection, Error, OptionalExtension as _, TransactionBehavior, params};

use crate::apply::{self, Failure, Outcome};

const FIND: &str = "SELECT body, by, expires_at FROM claim WHERE key = ?1";
const SET: &str = "INSERT OR REPLACE INTO claim (key, body, by, expires_at) VALUES (?1, ?2, ?3, ?4)";
const REMOVE_EXPIRED: &str = "DELETE FROM claim WHERE key IN (SELECT key FROM claim WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// Expired claims that are removed in passing, beside two for each new one.
const REMOVED_IN_PASSING: usize = 16;

/// The outcomes of claims.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) claimed: Vec<Claimed>,
    /// Nothing was written: what was found may not be on the disk yet, as after [`Outcome::Found`].
    pub(crate) is_found: bool,
}

/// Claims keys at `now`. No other connection can write between the look-up of a key and the commit.
pub(crate) fn claim(
    connection: &mut Connection,
    claims: &[Claim],
    now: Timestamp,
) -> Result<Outcomes, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut claimed = Vec::with_capacity(claims.len());
    let mut is_found = true;
    for claim in claims {
        let by = claim.by.to_string();
        let found = transaction.prepare_cached(FIND)?.query_row([claim.key.as_str()], |row| {
            let is_same_body = row.get_ref(0)?.as_blob()? == claim.body;
            Ok((is_same_body, row.get_ref(1)?.as_str()? == by, row.get::<_, i64>(2)?))
        });
        match found.optional()? {
            Some((_, true, _)) => {}
            Some((is_same_body, false, expires_at)) if expires_at > now.as_millisecond() => {
                claimed.push(if is_same_body { Claimed::Repeat } else { Claimed::Mismatch });
                continue;
            }
            _ => {
                let expires_at = claim.expires_at.as_millisecond();
                let row = params![claim.key.as_str(), claim.body, by, expires_at];
                transaction.prepare_cached(SET)?.execute(row)?;
                is_found = false;
            }
        }
        let applied = match &claim.batch {
            None => Applied::default(),
            Some(batch) => match apply::add_batch(&transaction, batch)? {
                Outcome::Added(applied) | Outcome::Found(applied) => applied,
                // The batch of a claim has no mark.
                Outcome::Conflict => return Err(Error::InvalidQuery.into()),
            },
        };
        claimed.push(Claimed::Won(applied));
    }
    if !is_found {
        let limit = i64::try_from(REMOVED_IN_PASSING + 2 * claims.len()).unwrap_or(i64::MAX);
        transaction.prepare_cached(REMOVE_EXPIRED)?.execute(params![now.as_millisecond(), limit])?;
        transaction.commit().map_err(Failure::Commit)?;
    }
    Ok(Outcomes { claimed, is_found })
}
