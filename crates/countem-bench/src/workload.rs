//! The workload: the same names in the same kind of order for countem and every peer.

use std::{fmt::Write as _, sync::Arc};

/// The collection of every benchmark.
pub const COLLECTION: &str = "app-events";
/// Distinct names of the benchmarks of known counters.
pub const KNOWN: u16 = 1_000;
/// Increments in one walk: every known name comes about sixteen times, too irregularly for a branch predictor.
pub const WALK: usize = 16_384;

/// Writes the name number `i` into `name`: 25 bytes, different for each of ten million numbers.
pub fn write_name(name: &mut String, i: usize) {
    name.clear();
    write!(name, "Checkout.step{i:07}.done").expect("writing to a string does not fail");
}

/// Returns `count` distinct names of 25 bytes.
pub fn names(count: usize) -> Arc<[String]> {
    let name = |i| {
        let mut name = String::new();
        write_name(&mut name, i);
        name
    };
    (0..count).map(name).collect()
}

/// A walk through all known names in random order.
#[derive(Debug, Clone)]
pub struct Walk {
    names: Arc<[String]>,
    order: Box<[u16]>,
}

impl Walk {
    /// Shuffles a walk of its own for each `seed`.
    pub fn new(names: &Arc<[String]>, seed: u64) -> Self {
        let mut state = seed;
        let order = (0..WALK).map(|_| {
            // SplitMix64 (Steele, Lea, Flood 2014): the same walk on every machine.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let index = (mixed ^ (mixed >> 31)) % names.len().min(usize::from(u16::MAX)) as u64;
            u16::try_from(index).expect("a remainder is smaller than its divisor")
        });
        Self { order: order.collect(), names: Arc::clone(names) }
    }

    /// Hands every name of the walk to `count`, `times` over.
    #[inline]
    pub fn each(&self, times: u64, mut count: impl FnMut(&str)) {
        for _ in 0..times {
            for &index in &self.order {
                count(&self.names[usize::from(index)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_25_bytes_long_and_distinct() {
        let names = names(1_000_000);
        assert!(names.iter().all(|name| name.len() == 25));
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn walk_meets_every_known_name() {
        let names = names(KNOWN.into());
        let mut met = std::collections::BTreeSet::new();
        let mut steps = 0;
        Walk::new(&names, 1).each(2, |name| {
            met.insert(name.to_owned());
            steps += 1;
        });
        assert_eq!((met.len(), steps), (KNOWN.into(), 2 * WALK));
    }
}
