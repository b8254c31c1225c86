//! Rates of requests: a token bucket for each sender.

use std::{collections::HashMap, time::Instant};

use parking_lot::Mutex;

use super::Party;

/// Senders that are remembered. When there are more, those that have sent nothing for a second are forgotten.
const MAX_PARTIES: usize = 100_000;

/// Limits the requests of each sender to a number per second, with bursts of as many.
#[derive(Debug)]
pub(super) struct Rates {
    /// 0 for no limit.
    limit: u32,
    buckets: Mutex<HashMap<Party, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, buckets: Mutex::default() }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a request, or returns the seconds to wait.
    pub(super) fn take(&self, party: Party) -> Result<(), u32> {
        self.take_at(party, Instant::now())
    }

    fn take_at(&self, party: Party, now: Instant) -> Result<(), u32> {
        if self.limit == 0 {
            return Ok(());
        }
        let limit = f64::from(self.limit);
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_PARTIES {
            buckets.retain(|_, bucket| now.duration_since(bucket.at).as_secs() < 1);
            if buckets.len() >= MAX_PARTIES {
                return Err(1);
            }
        }
        let bucket = buckets.entry(party).or_insert(Bucket { left: limit, at: now });
        bucket.left = (bucket.left + now.duration_since(bucket.at).as_secs_f64() * limit).min(limit);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(1);
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rate_holds_for_each_sender() {
        let (rates, now) = (Rates::new(2), Instant::now());
        let take =
            |id: &str, after| rates.take_at(Party::Token(id.to_owned()), now + Duration::from_millis(after));
        assert_eq!(
            [take("a", 0), take("a", 0), take("a", 0), take("b", 0)],
            [Ok(()), Ok(()), Err(1), Ok(())]
        );
        assert_eq!([take("a", 400), take("a", 600), take("a", 600)], [Err(1), Ok(()), Err(1)]);
        assert_eq!(Rates::new(0).take_at(Party::Address(None), now), Ok(()));
    }
}
