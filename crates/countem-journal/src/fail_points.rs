//! Fail points: places at which a test makes a journal fail or the process die, by the crate [`fail`].
//!
//! The fail points of a journal are named `<directory>/<point>`, so that tests in one process do not meet those of each
//! other. `return(error)` fails like an `fsync`, `return(full)` like a full disk, and `return(abort)` ends the process as
//! a signal does; `2*off->1*return(abort)` does so the third time. In the order in which a journal meets them:
//!
//! | point | place |
//! |---|---|
//! | `born` | before the birth time of the file is used: an error hides it, as some file systems do |
//! | `open.before`, `open.after` | around the commit that raises the epoch |
//! | `record.before`, `record.after` | around the commit of a group that has a record |
//! | `freeze.before`, `freeze.after` | around the commit of a group that has frozen batches |
//! | `resolve.before`, `resolve.after` | around the commit of a group that resolves a batch |
//! | `other.before`, `other.after` | around the commit of a group that has any other request |
//! | `checkpoint` | before the log is moved into the file |
//! | `room` | before the log is emptied because there is no room |
//! | `outcome` | before the outcome of a failed commit is looked up |

use std::path::Path;

use rusqlite::{Error, ffi};

/// Arms points of the journal in `dir`, such as `record.after=1*return(error);outcome=return(error)`, in place of those
/// that were armed before.
///
/// # Panics
/// `points` has another form.
pub fn arm(dir: &Path, points: &str) {
    disarm(dir);
    for point in points.split(';') {
        let (point, actions) = point.split_once('=').expect("a point and its actions");
        fail::cfg(dir.join(point).display().to_string(), actions).expect("actions of the crate `fail`");
    }
}

/// Disarms all points of the journal in `dir`.
pub fn disarm(dir: &Path) {
    let armed = fail::list().into_iter().map(|(name, _)| name);
    armed.filter(|name| Path::new(name).parent() == Some(dir)).for_each(fail::remove);
}

/// Fails or ends the process if `point` of the journal file `journal` is armed.
pub(crate) fn hit(journal: &Path, point: &str) -> rusqlite::Result<()> {
    let name = journal.with_file_name(point).display().to_string();
    fail::fail_point!(&name, |action| {
        let code = match action.as_deref() {
            Some("abort") => std::process::abort(),
            Some("error") => ffi::SQLITE_IOERR_FSYNC,
            Some("full") => ffi::SQLITE_FULL,
            action => panic!("fail point `{name}` has the unknown action {action:?}"),
        };
        Err(Error::SqliteFailure(ffi::Error::new(code), Some(format!("fail point `{name}`"))))
    });
    Ok(())
}
