//! Provenance of a journal file: how a copy is recognised.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::recovered::Origin;

/// Birth time and host of a journal file: unchanged as long as it is neither copied nor taken to another machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Creation time of the file in nanoseconds since 1970, where the file system records it. A copy has a later one.
    pub(crate) born: Option<i64>,
    /// Id of the machine, else its name.
    pub(crate) host: Option<String>,
}

impl Provenance {
    /// Reads the provenance of the file at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let created = fs::metadata(path).and_then(|found| found.created());
        Self { born: created.ok().and_then(nanoseconds), host: host() }
    }

    /// Compares the recorded provenance with the one found now. A value missing on either side counts as equal: a false
    /// alarm would quarantine good counts, and the store's registry of writers notices the remaining copies.
    pub(crate) fn origin(&self, now: &Self) -> Origin {
        let differs = |was: bool, is: bool, equal: bool| was && is && !equal;
        if differs(self.born.is_some(), now.born.is_some(), self.born == now.born) {
            Origin::Copied
        } else if differs(self.host.is_some(), now.host.is_some(), self.host == now.host) {
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

    fn provenance(born: Option<i64>, host: Option<&str>) -> Provenance {
        Provenance { born, host: host.map(str::to_owned) }
    }

    #[test]
    fn copied_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&original, "x").unwrap();
        let before = Provenance::of(&original);
        fs::write(&original, "written again").unwrap();
        assert_eq!(before.origin(&Provenance::of(&original)), Origin::Same);
        fs::copy(&original, &copy).unwrap();
        if before.born.is_some() {
            assert_eq!(before.origin(&Provenance::of(&copy)), Origin::Copied);
        }
        fs::rename(&original, dir.path().join("c")).unwrap();
        assert_eq!(before.origin(&Provenance::of(&dir.path().join("c"))), Origin::Same);
    }

    #[test]
    fn unknown_provenance_counts_as_equal() {
        let known = provenance(Some(1), Some("a"));
        assert_eq!(known.origin(&provenance(None, None)), Origin::Same);
        assert_eq!(provenance(None, None).origin(&known), Origin::Same);
        assert_eq!(known.origin(&provenance(Some(1), Some("b"))), Origin::OtherHost);
        assert_eq!(known.origin(&provenance(Some(2), Some("b"))), Origin::Copied);
        assert_eq!(known.origin(&known), Origin::Same);
    }
}
