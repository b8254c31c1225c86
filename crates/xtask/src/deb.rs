//! `cargo xtask deb`: the Debian package, from the section of the manifest that cargo-deb reads.
//!
//! cargo-deb takes minutes to build; dpkg-deb is on every Debian machine, so a test can afford to make the package and install it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::step;

/// Folder of the manifest with the metadata; its paths begin there.
const PACKAGE: &str = "crates/countem-cli";
/// Completions by shell, under the names that the shells look for.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "countem"), ("zsh", "_countem"), ("fish", "countem.fish")];

/// Builds the program and the package, and prints the package's path.
///
/// # Errors
/// When a program fails, or the metadata names a file that does not exist.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let binary = match args {
        [] => {
            step::run(step::cargo(&["build", "--release", "--locked", "--package", "countem-cli"]))?;
            target().join("release/countem")
        }
        [flag, binary] if flag == "--binary" => PathBuf::from(binary),
        _ => bail!("usage: cargo xtask deb [--binary FILE]"),
    };
    let folder = target().join("packaging");
    println!("{}", build(&binary, &folder, "xz")?.display());
    Ok(())
}

/// Makes the package of `binary` in `folder` and returns its path.
pub(crate) fn build(binary: &Path, folder: &Path, compression: &str) -> Result<PathBuf> {
    generate(binary, folder)?;
    let metadata = Metadata::read()?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    for asset in metadata.assets()? {
        asset.install(binary, folder, &root)?;
    }
    let copyright = format!(
        "Copyright: {}\nLicense: Apache-2.0\n The text is in /usr/share/common-licenses/Apache-2.0.\n",
        metadata.text("copyright")?
    );
    write(&root.join("usr/share/doc/countem/copyright"), &copyright, 0o644)?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    metadata.control(binary, architecture.trim(), &root)?;
    let package = folder.join(format!("countem_{}_{}.deb", version(), architecture.trim()));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", &format!("-Z{compression}"), "--build"]).arg(&root).arg(&package);
    output(&mut dpkg)?;
    Ok(package)
}

/// Lets the program write its manual pages and completions.
fn generate(binary: &Path, folder: &Path) -> Result<()> {
    output(Command::new(binary).arg("man").arg(folder.join("man")))?;
    for (shell, name) in COMPLETIONS {
        let script = output(Command::new(binary).args(["completions", shell]))?;
        write(&folder.join("completions").join(name), &script, 0o644)?;
    }
    Ok(())
}

/// The section `[package.metadata.deb]`.
struct Metadata(toml::Table);

impl Metadata {
    fn read() -> Result<Self> {
        let manifest = step::workspace().join(PACKAGE).join("Cargo.toml");
        let mut manifest: toml::Table = fs::read_to_string(manifest)?.parse()?;
        let deb = ["package", "metadata", "deb"].iter().try_fold(&mut manifest, |table, key| {
            table.get_mut(*key).and_then(toml::Value::as_table_mut).with_context(|| format!("no `{key}`"))
        })?;
        Ok(Self(std::mem::take(deb)))
    }

    fn text(&self, key: &str) -> Result<&str> {
        let value = self.0.get(key).and_then(toml::Value::as_str);
        value.with_context(|| format!("`{key}` of [package.metadata.deb] is no text"))
    }

    fn list(&self, key: &str) -> Result<&[toml::Value]> {
        let value = self.0.get(key).and_then(toml::Value::as_array);
        value.map(Vec::as_slice).with_context(|| format!("`{key}` of [package.metadata.deb] is no list"))
    }

    fn assets(&self) -> Result<Vec<Asset<'_>>> {
        let assets = self.list("assets")?.iter().map(|value| {
            Asset::of(value)
                .with_context(|| format!("an asset is a source, a folder and a mode, not {value}"))
        });
        assets.collect()
    }

    /// Writes what dpkg reads: control fields, the list of configuration files, and the maintainer scripts.
    fn control(&self, binary: &Path, architecture: &str, root: &Path) -> Result<()> {
        let control = root.join("DEBIAN");
        let description = self.text("extended-description")?;
        let mut fields = vec![
            ("Package", self.text("name")?.to_owned()),
            ("Version", version()),
            ("Architecture", architecture.to_owned()),
            ("Maintainer", self.text("maintainer")?.to_owned()),
            ("Section", self.text("section")?.to_owned()),
            ("Priority", self.text("priority")?.to_owned()),
            ("Description", format!("exactly-once event counters\n {}", wrapped(description))),
        ];
        let depends = match self.text("depends")? {
            "$auto" => libraries(binary)?,
            depends => depends.to_owned(),
        };
        if !depends.is_empty() {
            fields.insert(4, ("Depends", depends));
        }
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        write(&control.join("control"), &fields, 0o644)?;
        let files = self.list("conf-files")?.iter().filter_map(toml::Value::as_str);
        let files: String = files.map(|file| format!("{file}\n")).collect();
        write(&control.join("conffiles"), &files, 0o644)?;
        let scripts = step::workspace().join(PACKAGE).join(self.text("maintainer-scripts")?);
        for script in
            fs::read_dir(&scripts).with_context(|| format!("no scripts in {}", scripts.display()))?
        {
            let script = script?;
            write(&control.join(script.file_name()), &fs::read_to_string(script.path())?, 0o755)?;
        }
        Ok(())
    }
}

/// A file of the package.
struct Asset<'a> {
    source: &'a str,
    /// Its folder.
    to: &'a str,
    mode: u32,
}

impl<'a> Asset<'a> {
    fn of(value: &'a toml::Value) -> Option<Self> {
        let [source, to, mode] = value.as_array()?.as_slice() else { return None };
        let mode = u32::from_str_radix(mode.as_str()?, 8).ok()?;
        Some(Self { source: source.as_str()?, to: to.as_str()?, mode })
    }

    fn install(&self, binary: &Path, generated: &Path, root: &Path) -> Result<()> {
        let program = self.source.strip_prefix("target/release/");
        let source = match self.source.split_once("target/packaging/") {
            _ if program.is_some() => binary.to_owned(),
            Some((_, rest)) => generated.join(rest),
            None => step::workspace().join(PACKAGE).join(self.source),
        };
        let folder = root.join(self.to);
        fs::create_dir_all(&folder)?;
        for file in matching(&source)? {
            let name = program.map_or(file.file_name().unwrap_or_default(), OsStr::new);
            let to = folder.join(name);
            fs::copy(&file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(self.mode))?;
            if self.to.contains("/man/") {
                // Without name and time, so that the same page is the same file.
                output(Command::new("gzip").args(["-9nf"]).arg(&to))?;
            }
        }
        Ok(())
    }
}

/// Lists the files of a path whose name may be `*` and an ending.
fn matching(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(ending) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix('*'))
    else {
        return Ok(vec![path.to_owned()]);
    };
    let folder = path.parent().unwrap_or(path);
    let files = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<_> = files.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    ensure!(!files.is_empty(), "no file is {}", path.display());
    files.sort();
    Ok(files)
}

/// Returns the packages of the libraries that a program needs, with the version of the C library; none for a static one.
fn libraries(binary: &Path) -> Result<String> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let names: Vec<_> = bytes.split(|byte| *byte == 0).filter(|name| name.len() < 32).collect();
    if !names.contains(&&b"libc.so.6"[..]) {
        return Ok(String::new());
    }
    let versions = names.iter().filter_map(|name| {
        let (major, minor) = std::str::from_utf8(name.strip_prefix(b"GLIBC_")?).ok()?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.split('.').next()?.parse::<u32>().ok()?))
    });
    let (major, minor) = versions.max().context("a program with a C library names its version")?;
    let unwinder = if names.contains(&&b"libgcc_s.so.1"[..]) { ", libgcc-s1" } else { "" };
    Ok(format!("libc6 (>= {major}.{minor}){unwinder}"))
}

/// Breaks a text into the lines of a control field.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        match line.len() + word.len() {
            0..=76 if line.is_empty() => line.push_str(word),
            0..=76 => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n ")
}

/// Returns the version of the package, as cargo-deb numbers it.
fn version() -> String {
    concat!(env!("CARGO_PKG_VERSION"), "-1").to_owned()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| step::workspace().join("target"), PathBuf::from)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Runs a program and returns its output.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ran = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{program}`"))?;
    let error = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "`{program}`: {}: {}", ran.status, error.trim());
    Ok(String::from_utf8(ran.stdout)?)
}

#[cfg(test)]
mod tests;
