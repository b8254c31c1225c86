//! Descriptors of database files beside those that SQLite opens.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

/// A descriptor of a database file, shared by all connections of this process to that file, and open for as long as one of them is.
///
/// On Unix, locks belong to a process, and closing *any* descriptor of a file releases all of them. Another process would then
/// take itself for the last one and delete the log that is in use here, as SQLite before 3.51 does. So no other code may open and close the file of a connection.
#[derive(Debug)]
pub(crate) struct Descriptor(shared::Descriptor);

impl Descriptor {
    /// Opens the file at `path` with `options`, unless a connection of this process has it open.
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        shared::Descriptor::open(path, options).map(Self)
    }

    /// Calls `read` with the file.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        self.0.with(read)
    }
}

#[cfg(unix)]
mod shared {
    use std::{
        collections::HashMap,
        fs::{File, OpenOptions},
        io,
        path::Path,
        sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    };

    use crate::Place;

    static OPEN: LazyLock<Mutex<HashMap<Place, Shared>>> = LazyLock::new(Mutex::default);

    /// The descriptors of one file.
    #[derive(Debug)]
    struct Shared {
        users: usize,
        /// The first one is read; another one only came to be because the file got its path a moment ago.
        files: Vec<File>,
    }

    #[derive(Debug)]
    pub(super) struct Descriptor(Place);

    fn all() -> MutexGuard<'static, HashMap<Place, Shared>> {
        // A panic leaves no entry half changed.
        OPEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl Descriptor {
        pub(super) fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
            let mut open = all();
            let known =
                Place::of(path).filter(|_| !path.is_symlink()).filter(|place| open.contains_key(place));
            let place = match known {
                Some(place) => place,
                None => {
                    let file = options.open(path)?;
                    let place = Place::of_file(&file)?;
                    let shared = Shared { users: 0, files: Vec::new() };
                    open.entry(place).or_insert(shared).files.push(file);
                    place
                }
            };
            if let Some(shared) = open.get_mut(&place) {
                shared.users += 1;
            }
            Ok(Self(place))
        }

        pub(super) fn with<T>(&self, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
            let open = all();
            read(open.get(&self.0).and_then(|shared| shared.files.first()).ok_or(io::ErrorKind::NotFound)?)
        }
    }

    impl Drop for Descriptor {
        fn drop(&mut self) {
            let mut open = all();
            let Some(shared) = open.get_mut(&self.0) else { return };
            shared.users -= 1;
            if shared.users == 0 {
                // Closed before another thread can open a connection.
                open.remove(&self.0);
            }
        }
    }
}

#[cfg(not(unix))]
mod shared {
    use std::{
        fs::{File, OpenOptions},
        io,
        path::{Path, PathBuf},
    };

    /// Locks belong to a descriptor here, so none is shared.
    #[derive(Debug)]
    pub(super) struct Descriptor(PathBuf);

    impl Descriptor {
        pub(super) fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
            options.open(path)?;
            Ok(Self(path.to_owned()))
        }

        pub(super) fn with<T>(&self, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
            read(&File::open(&self.0)?)
        }
    }
}
