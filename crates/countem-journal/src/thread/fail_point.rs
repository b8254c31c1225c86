//! Fail points in production code.

use std::{fmt, path::Path};

/// Fails if a test has armed `point` of the journal file `journal`. Does nothing without the feature `failpoints`.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables))]
pub(crate) fn hit(journal: &Path, point: fmt::Arguments<'_>) -> rusqlite::Result<()> {
    #[cfg(feature = "failpoints")]
    crate::fail_points::hit(journal, &point.to_string())?;
    Ok(())
}
