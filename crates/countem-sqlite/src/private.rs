//! Files that only their owner may read, and the disk that they are on.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

/// Returns options that create a file for its owner alone, and do not follow a link in its place: in a folder where others may
/// write, a link could lead to any file of this user.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

/// Creates the folder `dir` for its owner alone if it is missing, durably, together with the folders above it.
///
/// # Errors
/// The folder is not there, or its name may not survive a power cut.
pub fn create_private_folder(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|folder| !folder.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(dir)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync_folder)
}

/// Makes the names of files in `dir` durable.
///
/// # Errors
/// They may not survive a power cut.
pub fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Returns the size in bytes of the disk that has `dir`, where the system tells.
pub fn bytes_of_disk(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(dir).ok().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Tells whether this process, or the machine, can open no further file.
pub(crate) fn are_files_exhausted() -> bool {
    #[cfg(unix)]
    {
        let opened = File::open("/");
        let exhausted =
            [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|error| error.raw_os_error());
        opened.is_err_and(|error| error.raw_os_error().is_some_and(|code| exhausted.contains(&code)))
    }
    #[cfg(not(unix))]
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
    }

    #[test]
    fn private_files_are_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (above, dir) = (folder.path().join("above"), folder.path().join("above/dir"));
        create_private_folder(&dir).unwrap();
        create_private_folder(&dir).unwrap();
        private_file().write(true).create(true).open(dir.join("file")).unwrap();
        assert_eq!((mode(&above), mode(&dir), mode(&dir.join("file"))), (0o700, 0o700, 0o600));
    }

    #[test]
    fn link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        assert!(private_file().write(true).create(true).truncate(true).open(&link).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
