//! Reading a store without the right to write its file, its folder or both.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::harness::{BINARY, Ran, Sandbox, eventually, finish};

const DB: &str = "countem.db";

/// Commands that read.
const READS: [&[&str]; 6] =
    [&["get", "x"], &["all"], &["top", "x"], &["collections"], &["marks"], &["quarantine", "list"]];

/// Rights that a reader lacks.
#[derive(Debug, Clone, Copy)]
enum Rights {
    NotFile,
    NotFolder,
    Neither,
}

/// A user who owns nothing: another one for root, who may write everything; else this one, with its rights taken away.
struct Stranger {
    user: Option<u32>,
    program: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stranger {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
        if !is_root {
            return Self { user: None, program: BINARY.into(), _folder: folder };
        }
        // Others may not enter the folder of the build.
        let program = folder.path().join("countem");
        fs::copy(BINARY, &program).unwrap();
        set_mode(folder.path(), 0o755);
        set_mode(&program, 0o755);
        Self { user: Some(65_534), program, _folder: folder }
    }

    fn run(&self, sandbox: &Sandbox, args: &[&str]) -> Ran {
        sandbox.run_as(self.user, &self.program, args)
    }

    /// Takes rights away, of the folder last.
    fn restrict(&self, sandbox: &Sandbox, rights: Rights) {
        let (file, folder) = match (rights, self.user) {
            (Rights::NotFile, Some(_)) => (0o644, 0o777),
            (Rights::NotFolder, Some(_)) => (0o666, 0o755),
            (Rights::Neither, Some(_)) => (0o644, 0o755),
            (Rights::NotFile, None) => (0o444, 0o755),
            (Rights::NotFolder, None) => (0o644, 0o555),
            (Rights::Neither, None) => (0o444, 0o555),
        };
        for name in names(sandbox) {
            set_mode(&sandbox.path(&name), file);
        }
        set_mode(&sandbox.path("."), folder);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    fs::read_dir(sandbox.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Returns the files and their contents, but that of the index of the log: it is memory that processes share.
fn contents(sandbox: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| match name.ends_with("-shm") {
        true => Vec::new(),
        false => fs::read(sandbox.path(name)).unwrap(),
    };
    names(sandbox).into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// Copies the files of a store.
fn copy(from: &Sandbox, names: &[&str]) -> Sandbox {
    let to = Sandbox::new();
    for name in names {
        fs::copy(from.path(name), to.path(name)).unwrap();
    }
    to
}

/// Starts a process that counts, has its counts in the log and goes on.
fn live(sandbox: &Sandbox) -> (countem_testkit::Child, std::process::ChildStdin) {
    sandbox.run(&["inc", "x", "earlier", "7"]).expect(0);
    let (child, mut stdin) =
        sandbox.start_on_pipe(&["ingest", "-", "-f", "tsv", "--now", "-c", "x:{1}", "-q"]);
    std::io::Write::write_all(&mut stdin, b"a\nb\nb\n").unwrap();
    eventually(&10, || sandbox.total("x"));
    (child, stdin)
}

#[track_caller]
fn assert_read(stranger: &Stranger, sandbox: &Sandbox, rights: Rights, expected: &[Ran], case: &str) {
    stranger.restrict(sandbox, rights);
    let before = contents(sandbox);
    for (args, expected) in READS.iter().zip(expected) {
        let ran = stranger.run(sandbox, args);
        let seen = (ran.code, &ran.out);
        assert_eq!(seen, (expected.code, &expected.out), "{case}, {rights:?}: {args:?}\n{}", ran.err);
    }
    let doctor = stranger.run(sandbox, &["doctor"]).expect(0);
    assert!(doctor.out.contains("counters: 3 were read"), "{case}, {rights:?}: {}", doctor.out);
    assert_eq!(
        contents(sandbox).keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>(),
        "{case}, {rights:?}"
    );
    assert!(contents(sandbox) == before, "{case}, {rights:?}: files were changed");
    set_mode(&sandbox.path("."), 0o755);
}

#[test]
fn store_is_read_without_rights_to_write() {
    let (stranger, owner) = (Stranger::new(), Sandbox::new());
    let (child, stdin) = live(&owner);
    let expected: Vec<_> = READS.iter().map(|args| owner.run(args)).collect();
    assert!(expected[0].out.contains("earlier"), "{}", expected[0].out);
    let (log, index) = (&format!("{DB}-wal")[..], &format!("{DB}-shm")[..]);
    assert!(fs::metadata(owner.path(log)).unwrap().len() > 0, "counts are in the log");
    for rights in [Rights::NotFile, Rights::NotFolder, Rights::Neither] {
        let killed = copy(&owner, &[DB, log, index]);
        assert_read(&stranger, &killed, rights, &expected, "log and index of a killed process");
        let killed = copy(&owner, &[DB, log]);
        assert_read(&stranger, &killed, rights, &expected, "log without index");
        assert_read(&stranger, &owner, rights, &expected, "beside a process that counts");
    }
    drop(stdin);
    finish(child).expect(0);
    for rights in [Rights::NotFile, Rights::NotFolder, Rights::Neither] {
        assert_read(&stranger, &copy(&owner, &[DB]), rights, &expected, "file alone");
        let beside = copy(&owner, &[DB]);
        beside.write(log, "");
        assert_read(&stranger, &beside, rights, &expected, "empty log");
    }
}

#[test]
fn unreadable_store_is_no_missing_store() {
    let (stranger, sandbox) = (Stranger::new(), Sandbox::new());
    sandbox.run(&["inc", "x", "a"]).expect(0);
    set_mode(&sandbox.path("."), 0o755);
    set_mode(&sandbox.path(DB), 0o000);
    let refused = stranger.run(&sandbox, &["get", "x"]).expect(1).err;
    assert!(refused.contains(DB) && refused.contains("check their rights"), "{refused}");
    assert_eq!(names(&sandbox), [DB]);
}

#[test]
fn log_that_may_not_be_read_is_named() {
    let (stranger, sandbox) = (Stranger::new(), Sandbox::new());
    let (child, stdin) = live(&sandbox);
    // The file was given more rights while a process has it open.
    let log = format!("{DB}-wal");
    for (name, mode) in [(DB, 0o644), (&log, 0o000)] {
        set_mode(&sandbox.path(name), mode);
    }
    if stranger.user.is_none() {
        set_mode(&sandbox.path("."), 0o555);
    }
    let refused = stranger.run(&sandbox, &["get", "x"]).expect(1).err;
    assert!(refused.contains(&log) && refused.contains("may not be read by this user"), "{refused}");
    set_mode(&sandbox.path("."), 0o755);
    set_mode(&sandbox.path(&log), 0o600);
    drop(stdin);
    finish(child).expect(0);
}
