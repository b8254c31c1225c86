//! Digests that tell a damaged journal from a sound one.
//!
//! SQLite checks the structure of its pages, not the values in them: a flipped bit in a number is a wrong count that no
//! integrity check sees. So every batch has a digest, and every set of rows has one that is a *sum* over its rows: a
//! transaction brings it up to date from what it adds, without reading the other rows.

use countem_core::hash::{Fnv64, splitmix64};

/// A 64-bit hash of a row. Two inputs that differ in one byte always have different digests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(Fnv64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Fnv64::new())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        Self(self.0.bytes(bytes))
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
        splitmix64(self.0.finish())
    }

    /// Returns the share of `n` and `increments` of the hashed counter in the digest of its set.
    ///
    /// Linear in both: the shares of two deltas of one counter add up to the share of their sum. The factors are odd, so
    /// that any change of one of the numbers changes the product.
    pub(crate) fn weigh(self, n: i64, increments: u64) -> u64 {
        let of_n = self.finish() | 1;
        let of_increments = splitmix64(self.0.finish() ^ 0x9e37_79b9_7f4a_7c15) | 1;
        of_n.wrapping_mul(n.cast_unsigned()).wrapping_add(of_increments.wrapping_mul(increments))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A change of these values would make every existing journal look damaged.
    #[test]
    fn digests_are_those_of_stored_journals() {
        let digest = Digest::new().text("web").number(7);
        assert_eq!(digest.finish(), 0x1a46_0c2c_6028_70bd);
        assert_eq!(digest.weigh(-5, 3), 0xcdef_7b9d_9fb9_a0ee);
    }

    #[test]
    fn texts_keep_their_borders() {
        assert_ne!(Digest::new().text("ab").text("c").finish(), Digest::new().text("a").text("bc").finish());
    }

    proptest! {
        #[test]
        fn shares_of_one_counter_add_up(name in ".{1,20}", a: i64, b: i64, i: u32, j: u32) {
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
