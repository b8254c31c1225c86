//! Every guarantee of the README is shown by tests, and the README says by which.

use std::collections::BTreeMap;

use super::{
    Offence,
    source::{Tree, is_within},
};

/// The file with the table.
const README: &str = "README.md";
/// Opening of the line in which a test module names the guarantees that it shows.
const SHOWS: &str = "//! Shows G";

/// Reports guarantees without tests, tests of guarantees that do not exist, and links that lead nowhere.
pub(super) fn table(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut report = |at: &str, what: String| {
        offences.push(Offence { rule: "guarantees", at: at.to_owned(), what });
    };
    let promised = promised(tree);
    let shown = shown(tree);
    if promised.is_empty() {
        report(README, "no table of guarantees: its rows begin with `| G1 |`".to_owned());
    }
    if !tree.file(README).is_some_and(|readme| readme.text.contains("cargo xtask test")) {
        report(README, "does not name `cargo xtask test`".to_owned());
    }
    for (number, links) in &promised {
        let files = shown.get(number).map_or(&[][..], |files| &files[..]);
        if files.is_empty() {
            report(README, format!("G{number} is shown by no test"));
        }
        for link in links {
            if !tree.contains(link) {
                report(README, format!("G{number} links to `{link}`, which does not exist"));
            } else if !files.iter().any(|file| is_within(file, link)) {
                report(README, format!("G{number} links to `{link}`, which does not say that it shows it"));
            }
        }
        for file in files.iter().filter(|file| !links.iter().any(|link| is_within(file, link))) {
            report(file, format!("shows G{number}, and the README does not link to it"));
        }
    }
    for (number, files) in shown.iter().filter(|(number, _)| !promised.contains_key(number)) {
        for file in files {
            report(file, format!("shows G{number}, which is not in the README"));
        }
    }
    offences
}

/// Returns the guarantees of the README with the paths that each links to.
fn promised(tree: &Tree) -> BTreeMap<u32, Vec<&str>> {
    let text = tree.file(README).map_or("", |readme| &readme.text);
    let rows = text.lines().filter_map(|line| {
        let row = line.strip_prefix("| G")?;
        let (number, row) = row.split_once(" |")?;
        let links = row.split("](").skip(1).filter_map(|link| link.split(')').next());
        Some((number.parse().ok()?, links.collect()))
    });
    rows.collect()
}

/// Returns the guarantees that tests show, with the files of each.
fn shown(tree: &Tree) -> BTreeMap<u32, Vec<&str>> {
    let mut shown = BTreeMap::<u32, Vec<&str>>::new();
    for file in tree.sources() {
        let lines = file.text.lines().filter_map(|line| line.strip_prefix(SHOWS));
        // `Shows G1, G2 and G12.`
        for number in lines.flat_map(|line| line.split('G')) {
            let digits = number.trim_end_matches(|char: char| !char.is_ascii_digit());
            if let Ok(number) = digits.parse() {
                shown.entry(number).or_default().push(&file.path);
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::File;

    #[test]
    fn each_side_of_the_table_needs_the_other() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let readme = "cargo xtask test\n| G1 | when | what | [`a`](tests/a.rs) |\n\
                      | G2 | when | what | [`b`](tests/b.rs) |\n| G3 | when | what | [`d`](tests/d) |\n";
        let tree = Tree {
            files: vec![
                file(README, readme),
                file("tests/a.rs", "//! Laws.\n//!\n//! Shows G1 and G4.\n"),
                file("tests/d/e.rs", "//! Shows G3.\n"),
            ],
        };
        let found: Vec<_> = table(&tree).into_iter().map(|offence| offence.what).collect();
        assert_eq!(
            found,
            [
                "G2 is shown by no test",
                "G2 links to `tests/b.rs`, which does not exist",
                "shows G4, which is not in the README"
            ]
        );
    }
}
