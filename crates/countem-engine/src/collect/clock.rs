//! The time by which increments are counted.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::Calendar;

/// The time by which increments are counted.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The wall clock of the machine.
    #[default]
    System,
    /// A clock that shows what it is set to.
    Manual(ManualClock),
}

/// A clock that stands still until it is [`set`](Self::set). Clones show the same time.
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Mutex<Shown>>,
}

struct Shown {
    now: Timestamp,
    calendars: Vec<Weak<Calendar>>,
}

impl ManualClock {
    /// Returns a clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { shared: Arc::new(Mutex::new(Shown { now, calendars: Vec::new() })) }
    }

    /// Sets the clock, forwards or backwards. Increments that begin after this call are counted at the new time.
    pub fn set(&self, now: Timestamp) {
        let mut shown = self.shared.lock();
        shown.now = now;
        shown.calendars.retain(|calendar| calendar.upgrade().is_some());
        let calendars = shown.calendars.iter().filter_map(Weak::upgrade);
        let advanced: Vec<_> = calendars.map(|calendar| calendar.advance(now)).collect();
        drop(shown);
        for advanced in advanced {
            advanced.log();
        }
    }
}

impl Clock {
    /// Returns the time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Manual(clock) => clock.shared.lock().now,
        }
    }

    /// Tells whether time passes by itself.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::System)
    }

    /// Makes the time now the one at which increments are counted, and returns how long that is valid.
    pub(crate) fn advance(&self, calendar: &Calendar) -> SignedDuration {
        let advanced = match self {
            Self::System => calendar.advance(Timestamp::now()),
            // Under the lock: a time that was read before a `set` must not be told after it.
            Self::Manual(clock) => {
                let shown = clock.shared.lock();
                calendar.advance(shown.now)
            }
        };
        advanced.log()
    }

    /// Lets a manual clock advance `calendar` whenever it is set; a thread does that for the system clock.
    pub(crate) fn drive(&self, calendar: &Arc<Calendar>) {
        if let Self::Manual(clock) = self {
            clock.shared.lock().calendars.push(Arc::downgrade(calendar));
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.shared.lock().now).finish()
    }
}
