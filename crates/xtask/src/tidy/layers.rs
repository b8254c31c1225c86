//! Arrows of dependency between crates only point downwards.

use super::{
    Offence,
    source::{Tree, is_within, words},
};

/// The crates, top layer first. A crate depends on crates of lower layers alone.
const LAYERS: [&[&str]; 9] = [
    &["countem-cli"],
    &["countem-server"],
    &["countem"],
    &["countem-config"],
    &["countem-engine", "countem-store-uri"],
    &[
        "countem-lines",
        "countem-transfer",
        "countem-query",
        "countem-journal",
        "countem-store-sqlite",
        "countem-store-mongodb",
        "countem-store-remote",
    ],
    &["countem-sqlite"],
    &["countem-store"],
    &["countem-core"],
];
/// Crates beside the layers, which no layer depends on but in tests.
const BESIDE: [&str; 3] = ["countem-testkit", "countem-bench", "xtask"];
/// Files that may name the actor framework.
const ACTIX: [&str; 4] = [
    "crates/countem-engine/src/actors.rs",
    "crates/countem-engine/src/actors",
    "crates/countem-bench/src/peers",
    "crates/countem-bench/src/peers.rs",
];

/// Reports crates that depend on a crate of their own or a higher layer, and crates without a layer.
pub(super) fn arrows(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let Some(name) = file.path.strip_prefix("crates/").and_then(|rest| rest.split('/').next()) else {
            continue;
        };
        if BESIDE.contains(&name) {
            continue;
        }
        let mut report = |what| offences.push(Offence { rule: "layers", at: file.path.clone(), what });
        let Some(own) = layer(name) else {
            report(format!("`{name}` has no layer: give it one in `layers.rs`"));
            continue;
        };
        for dependency in dependencies(&file.text) {
            let is_ours = BESIDE.contains(&dependency) || dependency.starts_with("countem");
            if is_ours && layer(dependency).is_none_or(|layer| layer <= own) {
                report(format!("`{dependency}` is not below `{name}`"));
            }
        }
    }
    offences
}

/// Reports code that names the actor framework anywhere but in [`ACTIX`].
pub(super) fn actor_framework(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in tree.sources().filter(|file| !ACTIX.iter().any(|path| is_within(&file.path, path))) {
        for (number, line) in file.code().lines().enumerate() {
            if words(line).any(|word| word == "actix" || word == "actix_rt") {
                offences.push(Offence {
                    rule: "actix",
                    at: format!("{}:{}", file.path, number + 1),
                    what: "the actor framework outside of the actors".to_owned(),
                });
            }
        }
    }
    offences
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Returns the dependencies of a manifest that are not for tests alone.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut is_in_dependencies = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            is_in_dependencies = section == "dependencies" || section.ends_with(".dependencies");
        } else if is_in_dependencies && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::File;

    #[test]
    fn arrow_that_points_up_is_found() {
        let manifest = "[dependencies]\nanyhow = \"1\"\ncountem-engine.workspace = true\n\n\
                        [dev-dependencies]\ncountem.workspace = true\n";
        let file = |path: &str| File { path: path.to_owned(), text: manifest.to_owned() };
        let tree =
            Tree { files: vec![file("crates/countem/Cargo.toml"), file("crates/countem-store/Cargo.toml")] };
        let found = arrows(&tree);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "`countem-engine` is not below `countem-store`");
    }
}
