//! The files of the workspace, and their code without comments, literals and tests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Folders that hold sources and prose of the project.
const FOLDERS: [&str; 5] = ["crates", "tests", "examples", "fuzz", "config"];
/// Files beside those folders.
const FILES: [&str; 5] = ["README.md", "CHANGELOG.md", "Cargo.toml", "docker-compose.yml", ".ci/run"];

/// All files that the rules look at.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// A text file.
pub(crate) struct File {
    /// Path below the root of the workspace, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Tree {
    /// Reads the workspace at `root`.
    ///
    /// # Errors
    /// When a file that has to be there is not, or a file is no text.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in FILES {
            read_file(root, name, &mut files)?;
        }
        for folder in FOLDERS {
            read_folder(root, folder, &mut files)?;
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { files })
    }

    /// Returns the file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Returns all Rust sources.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// Tells whether `path` is a file or a folder with files.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.files.iter().any(|file| is_within(&file.path, path))
    }
}

impl File {
    /// Returns the code alone: comments, literals and items under `#[cfg(test)]` are blank, lines stay where they are.
    pub(crate) fn code(&self) -> String {
        without_tests(&without_literals(&self.text))
    }
}

/// Tells whether `file` is `path` or lies below it.
pub(crate) fn is_within(file: &str, path: &str) -> bool {
    file.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read_folder(root: &Path, folder: &str, files: &mut Vec<File>) -> Result<()> {
    let dir = root.join(folder);
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            // Builds and corpora are not written by a person.
            if !["target", "corpus", "artifacts"].contains(&&*name) && !name.starts_with('.') {
                read_folder(root, &path, files)?;
            }
        } else if [".rs", ".md", ".toml"].iter().any(|kind| name.ends_with(kind)) {
            read_file(root, &path, files)?;
        }
    }
    Ok(())
}

fn read_file(root: &Path, path: &str, files: &mut Vec<File>) -> Result<()> {
    let text = fs::read_to_string(root.join(path)).with_context(|| format!("cannot read `{path}`"))?;
    files.push(File { path: path.to_owned(), text });
    Ok(())
}

/// Blanks comments and the insides of strings and characters.
fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let literal = literal_len(rest, code.ends_with(is_word));
        let step = if literal > 0 {
            code.extend(rest[..literal].chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            literal
        } else {
            let char = rest.chars().next().expect("there is a rest");
            code.push(char);
            char.len_utf8()
        };
        at += step;
    }
    code
}

/// Returns the length of the comment, string or character that `rest` begins with, 0 if it begins with none.
fn literal_len(rest: &str, is_after_word: bool) -> usize {
    let end = |pattern: &str, from: usize| rest[from..].find(pattern).map(|at| from + at + pattern.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return end("*/", 2).unwrap_or(rest.len());
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"');
    }
    if !is_after_word && rest.starts_with('r') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return end(&close, hashes + 2).unwrap_or(rest.len());
        }
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        let mut inside = quoted.chars();
        let is_char = match inside.next() {
            Some('\\') => true,
            Some(_) => inside.next() == Some('\''),
            None => false,
        };
        // Anything else is a lifetime.
        return if is_char { quoted_len(rest, '\'') } else { 0 };
    }
    0
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Blanks every item under an attribute `#[cfg(…test…)]`.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let attribute = rest[at..].find(']').map_or(rest.len(), |end| at + end + 1);
        let is_test = words(&rest[at..attribute]).any(|word| word == "test");
        let end = if is_test { attribute + item_len(&rest[attribute..]) } else { attribute };
        kept.push_str(&rest[..at]);
        let cut = &rest[at..end];
        kept.extend(cut.chars().map(|char| if is_test && char != '\n' { ' ' } else { char }));
        rest = &rest[end..];
    }
    kept.push_str(rest);
    kept
}

/// Returns the length of the item that `code` begins with: up to its semicolon, or the brace that closes it.
fn item_len(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, char) in code.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns the words of a text: letters, digits and underscores.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char| !is_word(char)).filter(|word| !word.is_empty())
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_no_comments_literals_and_tests() {
        let text = r##"
use a::b; // crate::one
const C: &str = "crate::two \" //"; let x: &'static str = r#"crate::"three""#;
let quote = '"'; let brace = '{';
#[cfg(test)]
mod tests {
    fn f() { crate::four(); }
}
#[cfg(feature = "x")]
fn after() { crate::five() }
"##;
        let file = File { path: String::new(), text: text.to_owned() };
        let code = file.code();
        assert!(code.contains("crate::five()") && code.contains("&'static str"), "{code}");
        for word in ["one", "two", "three", "four"] {
            assert!(!code.contains(word), "{word}: {code}");
        }
        assert_eq!(code.lines().count(), text.lines().count());
    }
}
