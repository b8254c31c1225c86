//! Finds the `mongod` that tests start.
//!
//! `xtask` compiles this very file too, so that both agree on the order and the cache folder without
//! `cargo xtask mongod` having to build a database driver first. Keep it to the standard library.

use std::env;
use std::path::{Path, PathBuf};

/// Finds a `mongod`: what `MONGOD` says, else the first one on `PATH`, else the one in [`cached_mongod`].
///
/// `MONGOD` is taken at its word, so that a mistyped path fails loudly when the server is started instead of
/// another server being tested in silence.
#[must_use]
pub fn mongod() -> Option<PathBuf> {
    named_by_environment().or_else(on_path).or_else(|| Some(cached_mongod()).filter(|path| path.is_file()))
}

/// Names the place in the workspace's git-ignored cache where `cargo xtask mongod` puts the server it fetches.
#[must_use]
pub fn cached_mongod() -> PathBuf {
    cache_folder().join("mongod").join("mongod")
}

/// Names the workspace's git-ignored cache folder.
#[must_use]
pub(crate) fn cache_folder() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let workspace = crates.and_then(Path::parent).expect("every crate lives two folders below the workspace");
    workspace.join(".cache")
}

fn named_by_environment() -> Option<PathBuf> {
    env::var_os("MONGOD").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join("mongod")).find(|path| path.is_file())
}
