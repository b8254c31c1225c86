//! The command line as a user runs it.

use std::{
    env::{self, consts::EXE_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::SystemTime,
};

use tempfile::TempDir;

/// A folder without a configuration of countem, and how to run `countem` in it.
pub(super) struct CommandLine {
    folder: TempDir,
    store: String,
}

/// Outcome of a run of `countem`.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl CommandLine {
    /// Returns a command line that uses the store at `uri`.
    pub(super) fn new(uri: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self { folder, store: uri.to_owned() }
    }

    /// Writes a file that commands name without a path.
    pub(super) fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Runs `countem` to its end, without what the tester's own environment says.
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program());
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COUNTEM_")) {
            command.env_remove(name);
        }
        command.args(["--store", &self.store]).args(arguments);
        let ran = command.current_dir(self.folder.path()).stdin(Stdio::null()).output();
        let Output { status, stdout, stderr } = ran.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}

impl Ran {
    /// Checks how it ended.
    #[track_caller]
    pub(super) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Returns the JSON that it printed.
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Returns the program `countem`, built as this test was. It belongs to another package: where all packages are tested it is
/// there already, else it may be missing or old.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let itself = env::current_exe().unwrap();
        // Tests lie in the folder `deps` of the one where programs are.
        let folder = itself.ancestors().nth(2).unwrap();
        let program = folder.join(format!("countem{EXE_SUFFIX}"));
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = fs::metadata(&program).and_then(|program| program.modified());
        if built.is_ok_and(|built| newest(&tests.with_file_name("crates")) < built) {
            return program;
        }
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "countem-cli", "--bin", "countem"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.arg("--target-dir").arg(folder.parent().unwrap()).current_dir(tests);
        assert!(build.status().unwrap().success(), "`countem` cannot be built");
        program
    })
}

/// Returns when a file in `folder`, however deep, was changed last.
fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let changed = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => newest(&entry.path()),
        false => entry.metadata().unwrap().modified().unwrap(),
    });
    changed.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
