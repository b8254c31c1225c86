//! Whole stores: reading every counter in order, and writing counters under a mark.

pub(crate) mod marks;
pub(crate) mod new_file;
pub(crate) mod rows;
pub(crate) mod scan;
pub(crate) mod sender;
pub(crate) mod sums;
