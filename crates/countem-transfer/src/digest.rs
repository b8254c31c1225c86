//! Digests: of a set of counters, and of a sequence of them.

use std::{fmt, str::FromStr};

use countem_core::{
    Bucket,
    hash::{fnv128, splitmix64},
};

/// Digest of a set of counters, in any order: the sum of a 128-bit hash of each, and their number.
///
/// It finds what is lost, added or changed by accident. It is no signature: counters can be made up to have a given digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    sum: u128,
    counters: u64,
}

/// Identity of a sequence of counters, which depends on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity(u128);

impl Digest {
    /// Adds a counter.
    pub fn add(&mut self, collection: &str, bucket: Bucket, metric: &str, value: i64) {
        self.sum = self.sum.wrapping_add(hash(collection, bucket, metric, value));
        self.counters += 1;
    }

    /// Returns the number of counters.
    pub fn counters(&self) -> u64 {
        self.counters
    }
}

/// Digest and number, `<32 hexadecimal digits>-<number>`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{}", self.sum, self.counters)
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').and_then(|(sum, counters)| {
            let digest = Self { sum: u128::from_str_radix(sum, 16).ok()?, counters: counters.parse().ok()? };
            (digest.to_string() == text).then_some(digest)
        });
        parsed.ok_or("expected 32 hexadecimal digits, a dash and a number")
    }
}

impl Identity {
    /// Appends a counter.
    pub fn push(&mut self, collection: &str, bucket: Bucket, metric: &str, value: i64) {
        self.0 = mixed(self.0.rotate_left(1) ^ hash(collection, bucket, metric, value));
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn hash(collection: &str, bucket: Bucket, metric: &str, value: i64) -> u128 {
    // No name has a control character.
    mixed(fnv128(format!("{collection}\n{bucket}\n{value}\n{metric}").as_bytes()))
}

/// Makes every bit depend on every other, so that hashes may be added up.
fn mixed(hash: u128) -> u128 {
    let [high, low] = [hash >> 64, hash & u128::from(u64::MAX)]
        .map(|half| u64::try_from(half).expect("half of 128 bits is 64 bits"));
    let low = splitmix64(low ^ splitmix64(high));
    let high = splitmix64(high ^ splitmix64(low));
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rows = Vec<(String, i64)>;

    fn digest(rows: &Rows) -> (Digest, Identity) {
        let (mut digest, mut identity) = (Digest::default(), Identity::default());
        for (metric, value) in rows {
            digest.add("web", Bucket::ALL, metric, *value);
            identity.push("web", Bucket::ALL, metric, *value);
        }
        (digest, identity)
    }

    #[test]
    fn digest_never_changes() {
        let (digest, identity) = digest(&vec![("GET 200".into(), 5), ("a".into(), -1)]);
        let again: Digest = digest.to_string().parse().unwrap();
        assert_eq!((again, digest.counters()), (digest, 2));
        assert_eq!(digest.to_string(), "e4b6d75e78987801a5d4eb6cff352858-2");
        assert_eq!(identity.to_string(), "2fe1fba0154b85eddb36d2acd0656fcf");
    }

    proptest! {
        #[test]
        fn order_matters_to_the_identity_alone(
            rows in prop::collection::vec((".{1,9}", any::<i64>()), 2..9), at in any::<prop::sample::Index>(),
        ) {
            let mut other = rows.clone();
            other.rotate_left(at.index(rows.len()));
            prop_assert_eq!(digest(&rows).0, digest(&other).0);
            prop_assert_eq!(digest(&rows).1 == digest(&other).1, rows == other);
            let at = at.index(rows.len());
            other = rows.clone();
            other[at].1 ^= 1;
            prop_assert_ne!(digest(&rows).0, digest(&other).0);
        }
    }
}
