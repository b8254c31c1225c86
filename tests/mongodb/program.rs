//! The command line as a user runs it.

use std::{
    env::{self, consts::EXE_SUFFIX},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// A folder without a configuration of countem, and how to run `countem` in it.
pub(super) struct CommandLine {
    folder: TempDir,
    store: String,
}

/// How a run of `countem` ended.
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
        std::fs::write(self.folder.path().join(name), content).unwrap();
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

/// Returns the program `countem`, built as this test was. It belongs to another package, so nobody else has to have built it.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let itself = env::current_exe().unwrap();
        // Tests lie in the folder `deps` of the one where programs are.
        let folder = itself.ancestors().nth(2).unwrap();
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "countem-cli", "--bin", "countem"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.arg("--target-dir").arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success(), "`countem` cannot be built");
        folder.join(format!("countem{EXE_SUFFIX}"))
    })
}
