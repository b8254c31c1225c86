//! The locks, atomics and thread-locals of the counting path, so that shuttle can explore their interleavings.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(crate) use std::{
        sync::atomic::{AtomicU32, AtomicU64, Ordering},
        thread_local,
    };

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    /// A spin lock that yields: held for some ten nanoseconds, and given back with a plain store.
    pub(crate) type SpinMutex<T> = spin::mutex::SpinMutex<T, spin::relax::Yield>;
    pub(crate) type SpinMutexGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;
}

#[cfg(feature = "shuttle")]
mod real {
    pub(crate) use shuttle::{
        sync::atomic::{AtomicU32, AtomicU64, Ordering},
        thread_local,
    };

    pub(crate) type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;
    pub(crate) type SpinMutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;
    pub(crate) type SpinMutex<T> = Mutex<T>;

    /// A mutex without poisoning, like the ones that it stands for.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no explored thread panics while it holds a lock")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

pub(crate) use real::*;
