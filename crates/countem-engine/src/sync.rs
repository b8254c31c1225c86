//! The locks, atomics and thread-locals of the counting path, so that shuttle can explore their interleavings.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(crate) use std::{
        sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        thread_local,
    };

    pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};

    /// A spin lock that yields: held for some ten nanoseconds, and given back with a plain store.
    pub(crate) type SpinMutex<T> = spin::mutex::SpinMutex<T, spin::relax::Yield>;
    pub(crate) type SpinMutexGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;
}

#[cfg(feature = "shuttle")]
mod real {
    use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use shuttle::{
        sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        thread_local,
    };

    pub(crate) type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;
    pub(crate) type SpinMutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;
    pub(crate) type SpinMutex<T> = Mutex<T>;

    const UNPOISONED: &str = "no explored thread panics while it holds a lock";

    /// A mutex without poisoning, like the ones that it stands for.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect(UNPOISONED)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// A lock without poisoning, like the one that it stands for.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect(UNPOISONED)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect(UNPOISONED)
        }
    }
}

pub(crate) use real::*;
