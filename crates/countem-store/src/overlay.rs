//! Rows as if a batch had been applied.

use countem_core::Delta;

use crate::{RowQuery, Rows};

/// Adds to `rows`, the answer to `query`, the deltas of the query's counters: those of a batch that is not applied yet.
///
/// A page stays right: deltas may bring metrics into it, and it is cut again. What falls out of it here, or was cut
/// before, sorts after a whole page of other metrics. A sum that leaves the range of `i64` is unreadable until the store has
/// quarantined the delta.
pub fn overlay<'a>(rows: &mut Rows, query: &RowQuery, deltas: impl IntoIterator<Item = Delta<'a>>) {
    for delta in deltas.into_iter().filter(|delta| query.asks_for(delta)) {
        rows.entry(delta.bucket).or_default().merge(delta.metric, Ok(delta.n));
    }
    query.cut(rows);
}
