//! Whole stores: reading every counter in order, and writing counters under a mark.

pub(crate) mod rows;
pub(crate) mod scan;
pub(crate) mod sender;
