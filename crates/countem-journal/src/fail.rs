//! Fail points: named places where a test makes the journal fail or the process die.
//!
//! The names, in the order in which a journal meets them:
//!
//! | name | place |
//! |---|---|
//! | `open.before`, `open.after` | around the commit that raises the epoch |
//! | `record.before`, `record.after` | around the commit of a group that has a record |
//! | `freeze.before`, `freeze.after` | around the commit of a group that has frozen batches |
//! | `resolve.before`, `resolve.after` | around the commit of a group that forgets a batch |
//! | `other.before`, `other.after` | around the commit of a group that has any other request |
//! | `checkpoint` | before the log is moved into the file |
//! | `room` | before the log is emptied because there is no room |
//! | `settle` | before it is found out whether a failed commit took place |

use rusqlite::{Error, ffi};

/// What a place does to its caller: nothing, an error of SQLite, or it does not return.
pub(crate) type Hit = rusqlite::Result<()>;

#[cfg(not(feature = "failpoints"))]
#[derive(Debug, Clone, Default)]
pub(crate) struct FailPoints;

#[cfg(not(feature = "failpoints"))]
impl FailPoints {
    #[inline]
    pub(crate) fn hit(&self, _: &str) -> Hit {
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
pub use armed::FailPoints;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Error, Hit, ffi};

    /// Places where a journal fails or the process dies. Clones share them, so a test may arm them while the journal runs.
    ///
    /// A specification is a list of `place=action` separated by commas. Actions: `abort` (the process dies as by a
    /// signal), `error` (an `fsync` failed), `full` (no space was left). `abort@3` acts at the third time only, `error*2` at
    /// the first two times, `error` always.
    #[derive(Debug, Clone, Default)]
    pub struct FailPoints(Arc<Mutex<Vec<Point>>>);

    #[derive(Debug)]
    struct Point {
        name: String,
        action: Action,
        /// Hits that pass before it acts.
        passes: u32,
        /// Hits at which it acts.
        acts: u32,
    }

    #[derive(Debug, Clone, Copy)]
    enum Action {
        Abort,
        Error,
        Full,
    }

    impl FailPoints {
        /// Reads the environment variable `COUNTEM_JOURNAL_FAIL`.
        ///
        /// # Panics
        /// When it is set and is no specification.
        pub fn from_env() -> Self {
            let points = Self::default();
            if let Ok(specification) = std::env::var("COUNTEM_JOURNAL_FAIL") {
                points.arm(&specification);
            }
            points
        }

        /// Replaces what is armed.
        ///
        /// # Panics
        /// When the text is no specification.
        pub fn arm(&self, specification: &str) {
            let points = specification.split(',').filter(|part| !part.is_empty()).map(|part| {
                parse(part)
                    .unwrap_or_else(|| panic!("`{part}` is not a fail point such as `freeze.after=abort`"))
            });
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = points.collect();
        }

        /// Replaces what is armed by nothing.
        pub fn disarm(&self) {
            self.arm("");
        }

        pub(crate) fn hit(&self, name: &str) -> Hit {
            let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(point) = points.iter_mut().find(|point| point.name == name) else { return Ok(()) };
            if point.passes > 0 {
                point.passes -= 1;
                return Ok(());
            }
            if point.acts == 0 {
                return Ok(());
            }
            point.acts = point.acts.saturating_sub(1);
            let code = match point.action {
                Action::Abort => std::process::abort(),
                Action::Error => ffi::SQLITE_IOERR_FSYNC,
                Action::Full => ffi::SQLITE_FULL,
            };
            Err(Error::SqliteFailure(ffi::Error::new(code), Some(format!("fail point `{name}`"))))
        }
    }

    fn parse(part: &str) -> Option<Point> {
        let (name, action) = part.split_once('=')?;
        let (action, passes, acts) = if let Some((action, nth)) = action.split_once('@') {
            (action, nth.parse::<u32>().ok()?.checked_sub(1)?, 1)
        } else if let Some((action, times)) = action.split_once('*') {
            (action, 0, times.parse().ok()?)
        } else {
            (action, 0, u32::MAX)
        };
        let action = match action {
            "abort" => Action::Abort,
            "error" => Action::Error,
            "full" => Action::Full,
            _ => return None,
        };
        Some(Point { name: name.trim().to_owned(), action, passes, acts })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_acts_when_it_was_told_to() {
            let points = FailPoints::default();
            points.arm("a=error@2,b=full*2");
            let acted = |name| points.hit(name).is_err();
            assert_eq!([acted("a"), acted("a"), acted("a")], [false, true, false]);
            assert_eq!([acted("b"), acted("b"), acted("b")], [true, true, false]);
            assert!(!acted("c"));
        }

        #[test]
        #[should_panic(expected = "`freeze` is not a fail point")]
        fn a_typing_error_does_not_pass_for_a_passed_test() {
            FailPoints::default().arm("freeze");
        }
    }
}

/// Keeps the imports of both builds the same.
#[cfg(not(feature = "failpoints"))]
const _: fn(ffi::Error, Option<String>) -> Error = Error::SqliteFailure;
