//! Bounds of an answer.

/// Maximum sizes of an answer. A query that exceeds one is an error with the name of the limit; an answer is never cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Buckets that a range may have.
    pub buckets: u64,
    /// Rows of an answer.
    pub rows: usize,
    /// Points of all rows together.
    pub points: usize,
    /// Bytes of the names of all rows together.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buckets: 100_000, rows: 100_000, points: 1_000_000, bytes: 32 << 20 }
    }
}
