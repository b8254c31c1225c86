//! Where a journal lives: how a copy of one is noticed.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// What stays the same as long as a journal is neither copied nor taken to another machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// When the file was created, in nanoseconds since 1970, where the file system remembers. Copying a file creates one.
    pub(crate) born: Option<i64>,
    /// The machine's id, else its name.
    pub(crate) host: Option<String>,
}

/// How a journal came to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// It was created by this opening.
    Created,
    /// It was used here before, as far as can be seen from here.
    Same,
    /// It is a copy of a file, such as a cloned directory or a restored backup. Its node has a fresh identity.
    Copied,
    /// The same file was last used on another machine: a disk that was moved, or copied as a whole. Its node has a fresh
    /// identity.
    OtherHost,
}

impl Place {
    /// Looks around at the file `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let created = fs::metadata(path).and_then(|found| found.created());
        Self { born: created.ok().and_then(nanoseconds), host: host() }
    }

    /// Tells how a journal that was at `self` came to be at `here`. What either does not know is no difference: a false
    /// alarm would be worse, and the store's registry of nodes catches what cannot be seen here.
    pub(crate) fn origin(&self, here: &Self) -> Origin {
        let differs = |was: bool, is: bool, equal: bool| was && is && !equal;
        if differs(self.born.is_some(), here.born.is_some(), self.born == here.born) {
            Origin::Copied
        } else if differs(self.host.is_some(), here.host.is_some(), self.host == here.host) {
            Origin::OtherHost
        } else {
            Origin::Same
        }
    }
}

fn nanoseconds(moment: SystemTime) -> Option<i64> {
    let (sign, span) = match moment.duration_since(UNIX_EPOCH) {
        Ok(span) => (1, span),
        Err(before) => (-1, before.duration()),
    };
    i64::try_from(span.as_nanos()).ok().map(|nanoseconds| sign * nanoseconds)
}

fn host() -> Option<String> {
    let sources =
        ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/hostname", "/etc/hostname"];
    let read = |path: &&str| -> io::Result<String> { Ok(fs::read_to_string(path)?.trim().to_owned()) };
    let found = sources.iter().filter_map(|path| read(path).ok()).find(|text| !text.is_empty());
    found.or_else(|| std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(born: Option<i64>, host: Option<&str>) -> Place {
        Place { born, host: host.map(str::to_owned) }
    }

    #[test]
    fn a_copied_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&original, "x").unwrap();
        let before = Place::of(&original);
        fs::write(&original, "written again").unwrap();
        assert_eq!(before.origin(&Place::of(&original)), Origin::Same);
        fs::copy(&original, &copy).unwrap();
        if before.born.is_some() {
            assert_eq!(before.origin(&Place::of(&copy)), Origin::Copied);
        }
        fs::rename(&original, dir.path().join("c")).unwrap();
        assert_eq!(before.origin(&Place::of(&dir.path().join("c"))), Origin::Same);
    }

    #[test]
    fn what_is_not_known_is_no_difference() {
        let known = place(Some(1), Some("a"));
        assert_eq!(known.origin(&place(None, None)), Origin::Same);
        assert_eq!(place(None, None).origin(&known), Origin::Same);
        assert_eq!(known.origin(&place(Some(1), Some("b"))), Origin::OtherHost);
        assert_eq!(known.origin(&place(Some(2), Some("b"))), Origin::Copied);
        assert_eq!(known.origin(&known), Origin::Same);
    }
}
