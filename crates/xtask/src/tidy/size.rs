//! No file is too long to be read in one go.

use super::{Offence, source::Tree};

/// Maximum number of lines of a source file of a crate.
const MAX_LINES: usize = 500;

/// Reports files of `crates/*/src` with more than [`MAX_LINES`] lines.
pub(super) fn files(tree: &Tree) -> Vec<Offence> {
    let sources = tree.sources().filter(|file| {
        let mut parts = file.path.split('/');
        parts.next() == Some("crates") && parts.nth(1) == Some("src")
    });
    let long = sources.map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES);
    let offence = |(file, lines): (&super::source::File, usize)| Offence {
        rule: "file size",
        at: file.path.clone(),
        what: format!("{lines} lines, more than {MAX_LINES}"),
    };
    long.map(offence).collect()
}
