//! Puts the unwinder of GCC into the binary, where the linker can do that: a process that counts once spends a twentieth of its time
//! on finding, loading and leaving the shared one.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let linked_by_gcc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // The library of another machine is somewhere else.
    if !linked_by_gcc || env::var("HOST") != env::var("TARGET") {
        return;
    }
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let Some(found) = asked.ok().and_then(|answer| String::from_utf8(answer.stdout).ok()) else { return };
    // Without a folder it is not there, and the shared one is used.
    let library = Path::new(found.trim());
    if let Some(folder) = library.parent().filter(|folder| folder.is_absolute() && library.exists()) {
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static:+whole-archive=gcc_eh");
    }
}
