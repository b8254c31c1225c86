//! Reading as if a batch had been applied.

use countem_core::Delta;

use crate::{Query, Rows};

/// Adds to `rows` the deltas that `query` asks for, for the batch that a store found not to be applied yet.
///
/// A sum that leaves the range of `i64` is left out: the store will quarantine the delta.
pub fn overlay<'a>(rows: &mut Rows, query: &Query, deltas: impl IntoIterator<Item = Delta<'a>>) {
    for delta in deltas.into_iter().filter(|delta| query.asks_for(delta)) {
        let counters = rows.entry(delta.bucket).or_default();
        match counters.get_mut(delta.metric) {
            Some(value) => *value = value.checked_add(delta.n).unwrap_or(*value),
            None => {
                counters.insert(delta.metric.to_owned(), delta.n);
            }
        }
    }
}
