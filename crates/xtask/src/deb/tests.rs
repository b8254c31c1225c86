//! The package and its unit, built, checked and installed in a folder.

use std::{env, fs, path::Path, process::Output};

use tempfile::TempDir;

use super::*;

/// A folder in which dpkg installs as if it were the root of a machine.
struct Machine {
    folder: TempDir,
    package: PathBuf,
}

impl Machine {
    fn new() -> Option<Self> {
        if !step::works(command("dpkg-deb", &["--version"])) {
            eprintln!("SKIPPED: no dpkg-deb on this machine");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        fs::create_dir_all(&made).unwrap();
        let package = build(&program(&made), &made, "none").unwrap();
        for path in ["var/lib/dpkg/updates", "var/lib/dpkg/info", "etc/systemd/system"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        for file in ["status", "available"] {
            fs::write(folder.path().join("var/lib/dpkg").join(file), "").unwrap();
        }
        Some(Self { folder, package })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Runs dpkg on this machine; its scripts know by `DPKG_ROOT` that nothing runs there.
    fn dpkg(&self, args: &[&str]) {
        let mut dpkg = match is_root() {
            true => command("dpkg", &[]),
            false => command("unshare", &["--map-root-user", "dpkg"]),
        };
        dpkg.arg(format!("--root={}", self.folder.path().display()));
        // The libraries are not installed there, and neither is a shell.
        dpkg.args(["--force-depends", "--force-script-chrootless", "--force-confold", "--log=/dev/null"]);
        let Output { status, stdout, stderr } = dpkg.args(args).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{args:?}: {}\n{}", text(&stdout), text(&stderr));
    }

    fn install(&self) {
        self.dpkg(&["--install", self.package.to_str().unwrap()]);
    }

    /// Tells whether the service starts with the machine.
    fn is_enabled(&self) -> bool {
        self.path("etc/systemd/system/multi-user.target.wants/countem.service").is_symlink()
    }
}

fn is_root() -> bool {
    output(&mut command("id", &["-u"])).unwrap().trim() == "0"
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Returns `countem` as the other tests have it, without the tables of the debugger, which are nine tenths of the file.
fn program(folder: &Path) -> PathBuf {
    let itself = env::current_exe().unwrap();
    let built = itself.ancestors().nth(2).unwrap().join("countem");
    assert!(built.exists(), "build {} first: `cargo nextest run --workspace` does", built.display());
    let stripped = folder.join("countem");
    let strip = command("strip", &["-o", stripped.to_str().unwrap(), built.to_str().unwrap()]);
    if step::works(strip) { stripped } else { built }
}

#[test]
fn package_holds_program_unit_pages_and_completions() {
    let Some(machine) = Machine::new() else { return };
    let root = machine.path("x");
    output(command("dpkg-deb", &["-x"]).arg(&machine.package).arg(&root)).unwrap();
    for (file, mode) in [
        ("usr/bin/countem", 0o755),
        ("usr/lib/systemd/system/countem.service", 0o644),
        ("etc/countem/countem.toml", 0o644),
        ("usr/share/doc/countem/countem.toml", 0o644),
        ("usr/share/doc/countem/copyright", 0o644),
        ("usr/share/man/man1/countem.1.gz", 0o644),
        ("usr/share/man/man1/countem-serve.1.gz", 0o644),
        ("usr/share/bash-completion/completions/countem", 0o644),
        ("usr/share/zsh/vendor-completions/_countem", 0o644),
        ("usr/share/fish/vendor_completions.d/countem.fish", 0o644),
    ] {
        let found = fs::metadata(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
        assert!(found.len() > 100, "{file}");
    }
    let fields = output(command("dpkg-deb", &["-f"]).arg(&machine.package)).unwrap();
    for field in ["Package: countem\n", "Version: 0.1.0-1\n", "Depends: libc6 (>= 2.", "Section: database\n"]
    {
        assert!(fields.contains(field), "{field}: {fields}");
    }
    let version =
        output(&mut command(root.join("usr/bin/countem").to_str().unwrap(), &["--version"])).unwrap();
    assert!(version.starts_with("countem 0.1.0"), "{version}");
}

#[test]
fn configuration_of_package_names_existing_keys() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = fs::read_to_string(step::workspace().join("packaging/countem.toml")).unwrap();
    let uncommented = shipped.replace("\n# tokens =", "\ntokens =").replace("\n# tls_", "\ntls_");
    assert_ne!(shipped, uncommented);
    for text in [shipped, uncommented] {
        let file = folder.path().join("countem.toml");
        fs::write(&file, text).unwrap();
        let countem = program(folder.path());
        let mut check = command(countem.to_str().unwrap(), &["config", "--config"]);
        let effective = output(check.arg(&file)).unwrap();
        assert!(effective.contains("level = \"journal\""), "{effective}");
    }
}

#[test]
fn service_is_enabled_as_administrator_left_it() {
    let Some(machine) = Machine::new() else { return };
    if !is_root() && !step::works(command("unshare", &["--map-root-user", "true"])) {
        eprintln!("SKIPPED: this user may neither install nor make a user namespace");
        return;
    }
    if !step::works(command("sh", &["-c", "command -v deb-systemd-helper"])) {
        eprintln!("SKIPPED: no deb-systemd-helper on this machine");
        return;
    }
    machine.install();
    assert!(machine.is_enabled(), "after the first installation");
    machine.dpkg(&["--remove", "countem"]);
    machine.install();
    assert!(machine.is_enabled(), "after it was removed and installed again");

    let configured = machine.path("etc/countem/countem.toml");
    fs::write(&configured, "# of the administrator\n").unwrap();
    let wanted = machine.path("etc/systemd/system/multi-user.target.wants/countem.service");
    fs::remove_file(&wanted).unwrap();
    machine.install();
    assert!(!machine.is_enabled(), "an upgrade leaves a disabled service disabled");
    machine.dpkg(&["--remove", "countem"]);
    assert!(!machine.path("usr/bin/countem").exists());
    machine.install();
    assert!(!machine.is_enabled(), "also after it was removed");
    assert_eq!(fs::read_to_string(&configured).unwrap(), "# of the administrator\n");

    let mask = machine.path("etc/systemd/system/countem.service");
    std::os::unix::fs::symlink("/dev/null", &mask).unwrap();
    machine.install();
    assert!(mask.is_symlink(), "a masked service stays masked");
    fs::remove_file(mask).unwrap();

    machine.dpkg(&["--purge", "countem"]);
    assert!(!configured.exists());
    machine.install();
    assert!(machine.is_enabled(), "after a purge it is a first installation");
}

#[test]
fn unit_is_verified_and_hardened() {
    if !step::works(command("systemd-analyze", &["--version"])) {
        eprintln!("SKIPPED: no systemd-analyze on this machine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(step::workspace().join("packaging/countem.service")).unwrap();
    // The program is not installed here.
    let there = folder.path().join("countem.service");
    fs::write(&there, text.replace("/usr/bin/countem", "/bin/true")).unwrap();
    let check = |args: &[&str]| command("systemd-analyze", args).arg(&there).output().unwrap();
    let verified = check(&["verify", "--man=no"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("countem.service"), "{said}");
    // 10 is a service without any protection.
    let rated = check(&["security", "--offline=yes", "--threshold=20"]);
    let said = String::from_utf8_lossy(&rated.stdout);
    assert!(rated.status.success(), "{said}");
}

#[test]
fn unit_waits_longer_than_server() {
    let text = fs::read_to_string(step::workspace().join("packaging/countem.service")).unwrap();
    let config = fs::read_to_string(step::workspace().join("config/countem.toml")).unwrap();
    let seconds = |text: &str, key: &str, end: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.strip_suffix(end).unwrap().parse().unwrap()
    };
    let stop = seconds(&text, "TimeoutStopSec=", "s");
    let (_, shutdown) = config.split_once("[shutdown]").unwrap();
    let deadline = seconds(shutdown, "deadline = \"", "s\"");
    // Once for requests that are under way, once for counts that are pending.
    assert!(stop > 2 * deadline, "{stop} s against twice {deadline} s");
}
