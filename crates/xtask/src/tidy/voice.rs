//! Wording of comments, docs and test names.

use super::{
    Offence,
    source::{Tree, words},
};

/// Maximum number of words in the name of a test.
const MAX_WORDS: usize = 8;
/// Words that an item's documentation does not begin with.
const OPENINGS: [&str; 5] = ["What", "Whether", "How", "Why", "Where"];

/// Reports words for persons: a sentence that needs one lacks a noun.
pub(super) fn person_words(tree: &Tree) -> Vec<Offence> {
    let bodies = ["some", "no", "any", "every"].map(|start| format!("{start}body"));
    let whos = ["m", "ever", "mever"].map(|end| format!("who{end}"));
    let forbidden: Vec<String> = bodies.into_iter().chain(whos).collect();
    let mut offences = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in words(&lower).filter(|word| forbidden.iter().any(|other| word == other)) {
                offences.push(Offence {
                    rule: "person words",
                    at: format!("{}:{}", file.path, number + 1),
                    what: format!("`{word}`"),
                });
            }
        }
    }
    offences
}

/// Reports item and module docs that begin with one of [`OPENINGS`] instead of a verb or a noun.
pub(super) fn item_docs(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in tree.sources() {
        let mut previous = "";
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            for marker in ["///", "//!"] {
                let Some(doc) = line.strip_prefix(marker) else { continue };
                let opening = words(doc).next().unwrap_or_default();
                if !previous.starts_with(marker) && OPENINGS.contains(&opening) {
                    offences.push(Offence {
                        rule: "item docs",
                        at: format!("{}:{}", file.path, number + 1),
                        what: format!("begins with `{opening}`: {}", doc.trim()),
                    });
                }
            }
            previous = line;
        }
    }
    offences
}

/// Reports tests whose names have more than [`MAX_WORDS`] words.
pub(super) fn test_names(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in tree.sources() {
        let mut is_test = false;
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            let Some((_, name)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//"))
            else {
                continue;
            };
            is_test = false;
            let name = words(name).next().unwrap_or_default();
            let count = name.split('_').filter(|word| !word.is_empty()).count();
            if count > MAX_WORDS {
                offences.push(Offence {
                    rule: "test names",
                    at: format!("{}:{}", file.path, number + 1),
                    what: format!("{count} words, more than {MAX_WORDS}: {name}"),
                });
            }
        }
    }
    offences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::File;

    fn tree(text: &str) -> Tree {
        Tree { files: vec![File { path: "crates/a/src/b.rs".to_owned(), text: text.to_owned() }] }
    }

    fn found(rule: fn(&Tree) -> Vec<Offence>, text: &str) -> Vec<String> {
        rule(&tree(text)).into_iter().map(|offence| offence.at).collect()
    }

    #[test]
    fn person_words_are_found_in_any_case() {
        let text = format!("// Some{0} and who{1}.\nfn nobodys() {{}}\n", "body", "ever");
        assert_eq!(found(person_words, &text), ["crates/a/src/b.rs:1"; 2]);
    }

    #[test]
    fn only_the_first_line_of_docs_counts() {
        let text = "/// How it goes.\nfn a() {}\n/// Goes.\n/// How it goes.\nfn b() {}\n//! Where.\n";
        assert_eq!(found(item_docs, text), ["crates/a/src/b.rs:1", "crates/a/src/b.rs:6"]);
    }

    #[test]
    fn long_names_are_found_on_tests_alone() {
        let long = "one_two_three_four_five_six_seven_eight_nine";
        let text =
            format!("#[tokio::test]\nasync fn {long}() {{}}\nfn {long}() {{}}\n#[test]\nfn short() {{}}\n");
        assert_eq!(found(test_names, &text), ["crates/a/src/b.rs:2"]);
    }
}
