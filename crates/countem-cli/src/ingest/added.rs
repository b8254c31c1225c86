//! Sum of all that a counter has added from a content.

use countem_core::{Bucket, hash};
use serde::{Deserialize, Serialize};

/// Sum of all that a counter has added from a content. A second reading that counts the same comes to the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Added {
    /// Position from which lines were counted.
    pub(crate) from: u64,
    /// Sum over the added amounts, each multiplied with the [hash](of) of its bucket and metric.
    pub(crate) sum: u64,
}

/// Returns the hash of a bucket.
pub(crate) fn of_bucket(bucket: Bucket) -> u64 {
    hash::fnv64(&bucket.to_string())
}

/// Returns the product of an amount with the hash of its bucket, which is `bucket`, and metric.
#[inline]
pub(crate) fn of(bucket: u64, metric: &[u8], n: i64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: [u8; 8]| {
        let hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        hash ^ (hash >> 32)
    };
    let (words, rest) = metric.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = words.iter().fold(bucket ^ metric.len() as u64, |hash, word| mix(hash, *word));
    hash::splitmix64(mix(hash, last)).wrapping_mul(n.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_counts_apart() {
        let day = |text: &str| of_bucket(text.parse().unwrap());
        let (monday, tuesday) = (day("2026-11-23"), day("2026-11-24"));
        let counts = [
            (monday, &b"GET 200"[..], 1),
            (tuesday, b"GET 200", 1),
            (monday, b"GET 200 ", 1),
            (monday, b"GET 200\0", 1),
            (monday, b"GET 2000 and more", 1),
            (monday, b"GET 200", 2),
        ];
        for (at, (bucket, metric, n)) in counts.into_iter().enumerate() {
            for (bucket_2, metric_2, n_2) in counts.into_iter().skip(at + 1) {
                assert_ne!(of(bucket, metric, n), of(bucket_2, metric_2, n_2));
            }
        }
        let twice = of(monday, b"a", 1).wrapping_add(of(monday, b"a", 1));
        assert_eq!(twice, of(monday, b"a", 2));
        // Marks in stores depend on it.
        assert_eq!(of(monday, b"GET 200", 3), 18_134_213_889_162_186_515);
    }
}
