//! Laws of claims.

use std::sync::Arc;

use countem_core::{BatchId, Claim, jiff::SignedDuration, jiff::Timestamp};

use super::{DAY, Lane, apply::join_all, counters};
use crate::{Applied, Claimed, ErrorKind, Store};

const WON: Claimed = Claimed::Won(Applied { quarantined: Vec::new() });

impl Lane {
    /// Returns a claim of the key `name` by the entry `seq`, for a day.
    fn claim(&self, name: &str, seq: u64) -> Claim {
        let key = format!("{}/{name}", self.collection).parse();
        Claim {
            key: key.expect("the collection and the name make a key"),
            body: [7; 32],
            by: BatchId { writer: self.writer.clone(), lane: 0, seq },
            expires_at: Timestamp::now() + SignedDuration::from_hours(24),
            batch: None,
        }
    }

    /// Returns a claim with a batch that adds `n` to `m`.
    fn counting(&mut self, name: &str, n: i64) -> Claim {
        let batch = self.batch(&[(DAY, "m", n)]);
        Claim { batch: Some(Arc::clone(&batch)), ..self.claim(name, batch.id().seq) }
    }
}

/// Tells whether the store keeps keys; one that does not says so.
async fn keeps_keys(store: &dyn Store) -> bool {
    match store.claim(&[], Timestamp::now()).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            false
        }
    }
}

async fn claim(store: &dyn Store, claims: &[Claim]) -> Vec<Claimed> {
    store.claim(claims, Timestamp::now()).await.expect("claiming succeeds")
}

pub(super) async fn a_key_is_won_by_one_entry(store: &dyn Store, lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    let (first, second) = (lane.claim("a", 1), lane.other(2).claim("a", 1));
    let other_body = Claim { body: [8; 32], ..lane.claim("a", 2) };
    for _ in 0..2 {
        assert_eq!(claim(store, std::slice::from_ref(&first)).await, [WON]);
        assert_eq!(claim(store, std::slice::from_ref(&second)).await, [Claimed::Repeat]);
        assert_eq!(claim(store, std::slice::from_ref(&other_body)).await, [Claimed::Mismatch]);
    }
    let of_another = [lane.claim("b", 3), lane.claim("a", 3), Claim { body: [8; 32], ..lane.claim("c", 3) }];
    assert_eq!(claim(store, &of_another).await, [WON, Claimed::Repeat, WON]);
    assert_eq!(claim(store, &[]).await, []);
}

pub(super) async fn of_concurrent_claims_one_wins(store: &dyn Store, lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    const KEYS: usize = 20;
    let won = std::sync::Mutex::new([0; KEYS]);
    join_all((0..6).map(|racer| {
        let lane = lane.other(10 + racer);
        let claims: Vec<_> = (0..KEYS).map(|key| lane.claim(&key.to_string(), 1)).collect();
        let won = &won;
        async move {
            for _ in 0..2 {
                for (key, outcome) in claim(store, &claims).await.into_iter().enumerate() {
                    match outcome {
                        Claimed::Won(_) => won.lock().expect("no racer panics")[key] += 1,
                        outcome => assert_eq!(outcome, Claimed::Repeat),
                    }
                }
            }
        }
    }))
    .await;
    assert_eq!(won.into_inner().expect("no racer panics"), [2; KEYS], "the winner wins again");
}

pub(super) async fn an_expired_key_is_won_again(store: &dyn Store, lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    let moment = Timestamp::now();
    let expired = Claim { expires_at: moment - SignedDuration::from_secs(1), ..lane.claim("a", 1) };
    let next = Claim { body: [8; 32], ..lane.claim("a", 2) };
    assert_eq!(claim(store, std::slice::from_ref(&expired)).await, [WON]);
    assert_eq!(claim(store, std::slice::from_ref(&next)).await, [WON]);
    assert_eq!(claim(store, std::slice::from_ref(&expired)).await, [Claimed::Mismatch]);
}

pub(super) async fn of_concurrent_claims_of_an_expired_key_one_wins(store: &dyn Store, lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    let moment = Timestamp::now() - SignedDuration::from_secs(1);
    claim(store, &[Claim { expires_at: moment, ..lane.claim("a", 1) }]).await;
    let won = std::sync::atomic::AtomicU32::new(0);
    join_all((0..6).map(|racer| {
        let (claims, won) = ([lane.other(10 + racer).claim("a", 1)], &won);
        async move {
            if claim(store, &claims).await == [WON] {
                won.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }))
    .await;
    assert_eq!(won.into_inner(), 1);
}

pub(super) async fn a_claim_adds_its_batch_if_it_wins(store: &dyn Store, mut lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    let (first, second) = (lane.counting("a", 1), lane.other(2).counting("a", 10));
    for _ in 0..2 {
        assert_eq!(claim(store, std::slice::from_ref(&first)).await, [WON]);
        assert_eq!(claim(store, std::slice::from_ref(&second)).await, [Claimed::Repeat]);
        assert_eq!(lane.day(store).await, counters(&[("m", 1)]));
    }
    let both = [lane.counting("b", 100), lane.counting("a", 1000)];
    assert_eq!(claim(store, &both).await, [WON, Claimed::Repeat]);
    assert_eq!(lane.day(store).await, counters(&[("m", 101)]));
}

pub(super) async fn a_claim_reports_what_its_batch_cannot_add(store: &dyn Store, mut lane: Lane) {
    if !keeps_keys(store).await {
        return;
    }
    let claims = [lane.counting("a", i64::MAX), lane.counting("b", 1)];
    claim(store, &claims[..1]).await;
    for _ in 0..2 {
        let outcome = claim(store, &claims[1..]).await;
        assert!(matches!(&outcome[..], [Claimed::Won(applied)] if applied.quarantined.len() == 1));
    }
    assert_eq!(lane.day(store).await, counters(&[("m", i64::MAX)]));
}
