//! Checksums: how a damaged journal is told from a sound one.
//!
//! SQLite checks the structure of its pages, not what stands in them: a flipped bit in a number is a wrong count that no
//! integrity check sees. So every batch has a digest, and every set of rows has one that is a *sum* over its rows: it can
//! be brought up to date from what a transaction adds, without reading what was there before.

/// A 64-bit FNV-1a hash, mixed at the end. Two inputs that differ in one byte always have different digests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }

    /// Adds a text and its end: `ab` and `c` differ from `a` and `bc`.
    pub(crate) fn text(self, text: &str) -> Self {
        // No UTF-8 text contains this byte.
        self.bytes(text.as_bytes()).bytes(&[0xff])
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn finish(self) -> u64 {
        mix(self.0)
    }

    /// Returns what `n` and `increments` of the counter that was hashed contribute to the digest of its set.
    ///
    /// Linear in both: the contributions of two deltas of one counter add up to the contribution of their sum. The
    /// factors are odd, so no change of one of the numbers leaves the product as it was.
    pub(crate) fn weigh(self, n: i64, increments: u64) -> u64 {
        let of_n = mix(self.0) | 1;
        let of_increments = mix(self.0 ^ 0x9e37_79b9_7f4a_7c15) | 1;
        of_n.wrapping_mul(n.cast_unsigned()).wrapping_add(of_increments.wrapping_mul(increments))
    }
}

/// The finaliser of splitmix64: every bit of the input reaches every bit of the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_keep_their_borders() {
        assert_ne!(Digest::new().text("ab").text("c").finish(), Digest::new().text("a").text("bc").finish());
    }

    proptest! {
        #[test]
        fn contributions_of_one_counter_add_up(name in ".{1,20}", a: i64, b: i64, i: u32, j: u32) {
            let counter = Digest::new().text(&name);
            let apart = counter.weigh(a, i.into()).wrapping_add(counter.weigh(b, j.into()));
            prop_assert_eq!(apart, counter.weigh(a.wrapping_add(b), u64::from(i) + u64::from(j)));
        }

        #[test]
        fn one_changed_number_is_always_seen(name in ".{1,20}", n: i64, increments: u64, bit in 0..64) {
            let counter = Digest::new().text(&name);
            let whole = counter.weigh(n, increments);
            prop_assert_ne!(whole, counter.weigh(n ^ (1_i64 << bit), increments));
            prop_assert_ne!(whole, counter.weigh(n, increments ^ (1_u64 << bit)));
        }

        #[test]
        fn one_changed_byte_is_always_seen(bytes in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, flip in 1..=255_u8) {
            let whole = Digest::new().bytes(&bytes).finish();
            let mut damaged = bytes;
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            prop_assert_ne!(whole, Digest::new().bytes(&damaged).finish());
        }
    }
}
