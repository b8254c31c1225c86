//! `cargo xtask tidy`: rules of the house that no compiler checks.
//!
//! Plain text search over the sources, without dependencies: a rule that needs more than that is not worth its code. Every
//! rule reports all of its offenders, so that one run is enough.

mod guarantees;
mod layers;
mod modules;
mod size;
mod source;
mod voice;

use anyhow::{Result, ensure};

use crate::step;
use source::Tree;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    rule: &'static str,
    at: String,
    what: String,
}

type Rule = fn(&Tree) -> Vec<Offence>;

const RULES: [Rule; 8] = [
    size::files,
    voice::person_words,
    voice::item_docs,
    voice::test_names,
    layers::arrows,
    layers::actor_framework,
    modules::circles,
    guarantees::table,
];

/// Prints every offence of the workspace.
///
/// # Errors
/// When there is one.
pub(crate) fn run() -> Result<()> {
    let offences = offences()?;
    for Offence { rule, at, what } in &offences {
        println!("{at}: {what} ({rule})");
    }
    ensure!(offences.is_empty(), "{} offences", offences.len());
    Ok(())
}

/// Returns every offence of the workspace, rule by rule.
fn offences() -> Result<Vec<Offence>> {
    let tree = Tree::read(&step::workspace())?;
    Ok(RULES.iter().flat_map(|rule| rule(&tree)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_is_tidy() {
        let offences = offences().unwrap();
        assert!(offences.is_empty(), "{offences:#?}");
    }
}
