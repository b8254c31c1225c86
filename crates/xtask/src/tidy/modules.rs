//! No circle among the top-level modules of a crate.
//!
//! An arrow from one module to another is a path `crate::other`, also behind a name that the root re-exports. Tests do not
//! count: they may look at everything.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Offence,
    source::{File, Tree, is_within, words},
};

/// Arrows between the modules of a crate, each with a file that draws it.
type Arrows<'a> = BTreeMap<(String, String), &'a str>;

/// Reports each arrow that lies on a circle.
pub(super) fn circles(tree: &Tree) -> Vec<Offence> {
    let roots = tree.sources().filter(|file| {
        file.path.starts_with("crates/")
            && (file.path.ends_with("/src/lib.rs")
                || file.path.ends_with("/src/main.rs")
                || (file.path.contains("/src/bin/") && file.path.ends_with("/main.rs")))
    });
    roots.flat_map(|root| circles_of(tree, root)).collect()
}

fn circles_of(tree: &Tree, root: &File) -> Vec<Offence> {
    let arrows = arrows(tree, root);
    let on_circle = arrows.iter().filter(|((from, to), _)| reaches(&arrows, to, from));
    let offence = |((from, to), at): (&(String, String), &&str)| Offence {
        rule: "module circles",
        at: (*at).to_owned(),
        what: format!("`{from}` uses `{to}`, which leads back to `{from}`"),
    };
    on_circle.map(offence).collect()
}

fn arrows<'a>(tree: &'a Tree, root: &File) -> Arrows<'a> {
    let folder = root.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let code = root.code();
    let modules: BTreeSet<&str> = declared(&code).collect();
    let exported = exports(&code, &modules);
    let mut arrows = Arrows::new();
    for module in &modules {
        let (file, below) = (format!("{folder}/{module}.rs"), format!("{folder}/{module}"));
        let sources = tree.sources().filter(|source| source.path == file || is_within(&source.path, &below));
        for source in sources.filter(|source| !is_test(&source.path[folder.len()..])) {
            // How many folders lie between the source and the root, so that `super` can be followed.
            let depth = source.path[folder.len() + 1..].trim_end_matches("/mod.rs").matches('/').count();
            let supers = format!("{}super", "super::".repeat(depth));
            let code = source.code();
            let names = paths(&code, "crate").chain(paths(&code, &supers));
            for name in names {
                let target = if modules.contains(name) { Some(name) } else { exported.get(name).copied() };
                if let Some(target) = target.filter(|target| target != module) {
                    arrows.entry(((*module).to_owned(), target.to_owned())).or_insert(&*source.path);
                }
            }
        }
    }
    arrows
}

/// Tells whether a file holds tests of the module above it.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Returns the modules that the root declares.
fn declared(code: &str) -> impl Iterator<Item = &str> {
    code.split(';').filter_map(|item| {
        let (before, name) = item.rsplit_once("mod ")?;
        let is_item = before.is_empty() || before.ends_with([' ', '\n', ')', ']']);
        Some(name.trim()).filter(|name| is_item && words(name).next() == Some(*name))
    })
}

/// Returns the names that the root takes out of its modules, with the module of each.
fn exports<'a>(code: &'a str, modules: &BTreeSet<&'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut exported = BTreeMap::new();
    for item in code.split(';') {
        let Some((_, path)) = item.rsplit_once("use ") else { continue };
        let path = path.trim().trim_start_matches("crate::").trim_start_matches("self::");
        let Some(module) = words(path).next().and_then(|first| modules.get(first)) else { continue };
        for name in words(path).skip(1) {
            exported.insert(name, *module);
        }
    }
    exported
}

/// Returns the first names of all paths that begin with `start`, also of those in braces.
fn paths<'a>(code: &'a str, start: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("{start}::");
    let found: Vec<&str> = code
        .match_indices(&start)
        .filter_map(|(at, _)| {
            let is_whole =
                !code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':');
            is_whole.then_some(&code[at + start.len()..])
        })
        .collect();
    found.into_iter().flat_map(first_names)
}

fn first_names(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return words(rest).take(1).collect() };
    let (mut depth, mut is_first) = (0_usize, true);
    let mut names = Vec::new();
    let mut word_start = None;
    for (at, char) in group.char_indices() {
        if char.is_alphanumeric() || char == '_' {
            word_start = word_start.or(Some(at));
            continue;
        }
        if let Some(start) = word_start.take()
            && depth == 0
            && is_first
        {
            names.push(&group[start..at]);
            is_first = false;
        }
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            _ => {}
        }
    }
    names
}

fn reaches(arrows: &Arrows, from: &str, to: &str) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(arrows.keys().filter(|(start, _)| start == module).map(|(_, end)| &**end));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: format!("crates/x/src/{path}"),
            text: (*text).to_owned(),
        };
        Tree { files: files.iter().map(file).collect() }
    }

    #[test]
    fn circle_is_found_through_groups_and_exports() {
        let tree = tree(&[
            ("lib.rs", "mod a;\nmod b;\npub(crate) mod c;\npub use c::Thing;\n"),
            ("a.rs", "use crate::{b::{self, x}, Other};\n"),
            ("b/deep.rs", "fn f() { super::super::c::g() }\n"),
            ("b.rs", "use crate::Thing;\n"),
            ("c.rs", "#[cfg(test)]\nmod tests { use crate::a; }\nuse super::a::Z;\n"),
        ]);
        let found: Vec<_> = circles(&tree).into_iter().map(|offence| offence.what).collect();
        assert_eq!(found.len(), 3, "{found:#?}");
    }

    #[test]
    fn arrows_of_tests_make_no_circle() {
        let tree = tree(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "use crate::b;\n"),
            ("b.rs", "#[cfg(test)]\nmod tests { use crate::a; }\n// crate::a\n"),
            ("b/tests.rs", "use crate::a;\n"),
        ]);
        assert_eq!(circles(&tree), []);
    }
}
