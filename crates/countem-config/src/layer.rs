//! The layers above the defaults: file, environment, flags, each as a list of keys with their values.
//!
//! The `config` crate reads the file. Its merge of sources is not used: it keeps only the value that wins, and a
//! mistake in one that is hidden has to be reported too.

use std::{fs, io, path::PathBuf};

use config::{FileFormat, Map, Source, Value, ValueKind};

use countem_store_uri::shown;

use crate::{
    Origin, Problem, Sources,
    keys::{KEYS, is_key, key_text},
    problem::shown_path,
    raw::RawValue,
};

/// The entries of one layer.
#[derive(Default)]
pub(crate) struct Layer {
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    pub(crate) entries: Vec<Entry>,
    /// Problems that made entries unreadable.
    pub(crate) problems: Vec<Problem>,
}

/// One value and its key.
pub(crate) struct Entry {
    /// The segments of the key: `["flush", "interval"]`.
    pub(crate) path: Vec<String>,
    pub(crate) value: RawValue,
    pub(crate) origin: Origin,
}

/// Beginning of the environment variables of countem.
pub(crate) const PREFIX: &str = "COUNTEM__";

const FILE: &str = "countem.toml";

/// Returns the file that was named, or `countem.toml` if it is there.
pub(crate) fn file(sources: &Sources) -> Layer {
    let (path, named) = match (&sources.file, &sources.directory) {
        (Some(path), _) => (path.clone(), true),
        (None, Some(directory)) => (directory.join(FILE), false),
        (None, None) => return Layer::default(),
    };
    let mut layer = Layer::default();
    let origin = Origin::File(path.clone());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return layer,
        Err(error) => {
            let text = format!("cannot read the configuration file `{}`: {error}", shown_path(&path));
            layer.problems.push(Problem::of_layer(&origin, text));
            return layer;
        }
    };
    match config::File::from_str(&text, FileFormat::Toml).collect() {
        Ok(table) => flatten(table, &mut Vec::new(), &origin, &mut layer.entries),
        Err(error) => layer.problems.push(syntax_problem(&text, &origin, &error)),
    }
    // A table has no order; messages must not change from run to run.
    layer.entries.sort_by(|a, b| a.path.cmp(&b.path));
    layer.file = Some(path);
    layer
}

/// Short form of the variable for `store.uri`.
const STORE: &str = "COUNTEM_STORE";

/// Returns the variables that begin with `COUNTEM__`, and [`STORE`]. A variable of a key with single underscores is a problem, and so
/// is one that looks like the address to listen on.
pub(crate) fn environment(sources: &Sources) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in &sources.environment {
        let name = name.to_string_lossy();
        if is_service_link(&name, &value.to_string_lossy()) {
            continue;
        }
        let origin = Origin::Variable(name.to_string());
        let path = match name.strip_prefix(PREFIX) {
            Some(key) => path_of_variable(key),
            None if name == STORE => path_of_key("store.uri"),
            None => {
                if let Some(key) = near_miss(&name) {
                    let variable = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
                    let text = format!("`{name}` is not read: the variable of `{key}` is `{variable}`");
                    layer.problems.push(Problem::of_layer(&origin, text));
                }
                continue;
            }
        };
        match value.to_str() {
            Some(text) => layer.entries.push(Entry { path, value: RawValue::Text(text.to_owned()), origin }),
            None => {
                let key = key_text(&path);
                let text = format!("`{}` in {origin} is not UTF-8", shown(&key));
                layer.problems.push(Problem::of_key(&key, &origin, text));
            }
        }
    }
    layer.entries.sort_by(|a, b| a.path.cmp(&b.path));
    layer
}

/// Returns the flags in the order of the command line.
pub(crate) fn flags(sources: &Sources) -> Layer {
    let mut layer = Layer::default();
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name.clone());
        match &flag.key {
            Some(key) => {
                let value = RawValue::Text(flag.value.clone());
                layer.entries.push(Entry { path: path_of_key(key), value, origin });
            }
            None => {
                let text =
                    format!("`{}` in {origin} has no `=`; allowed: section.key=value", shown(&flag.value));
                layer.problems.push(Problem::of_layer(&origin, text));
            }
        }
    }
    layer
}

/// Lists the values of a table. A table without values is listed itself: its name may be wrong.
fn flatten(table: Map<String, Value>, path: &mut Vec<String>, origin: &Origin, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        path.push(name);
        match value.kind {
            ValueKind::Table(table) if !table.is_empty() && !is_key(path) => {
                flatten(table, path, origin, entries);
            }
            kind => entries.push(Entry {
                path: path.clone(),
                value: RawValue::Typed(kind),
                origin: origin.clone(),
            }),
        }
        path.pop();
    }
}

/// Splits `flush.interval`. The name of a collection may have dots: it ends before the last one.
fn path_of_key(key: &str) -> Vec<String> {
    let collection = key.strip_prefix("collections.").and_then(|rest| rest.rsplit_once('.'));
    match collection {
        Some((name, key)) => {
            let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            vec!["collections".to_owned(), unquoted.unwrap_or(name).to_owned(), key.to_owned()]
        }
        None => key.split('.').map(str::to_owned).collect(),
    }
}

/// Returns the key that the variable `name` would set if its underscores were right.
fn near_miss(name: &str) -> Option<&'static str> {
    let text = name.strip_prefix("COUNTEM_")?.to_lowercase();
    let known = KEYS.iter().find(|key| key.name.replace('.', "_") == text).map(|key| key.name);
    known.or_else(|| matches!(&*text, "port" | "host" | "address" | "listen").then_some("server.listen"))
}

/// Tells whether a variable is one that Kubernetes and Docker set for each service beside this one: for a service `countem-redis`
/// they begin with `COUNTEM_REDIS_`.
fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let is_url = value.split_once("://").is_some_and(|(protocol, _)| PROTOCOLS.contains(&protocol));
    let is_port = |port: &str, protocol: &str| {
        port.parse::<u16>().is_ok() && PROTOCOLS.contains(&&*protocol.to_lowercase())
    };
    let is_link = |rest: &str| match rest.split('_').collect::<Vec<_>>()[..] {
        [""] => is_url,
        ["", port, protocol] => is_url && is_port(port, protocol),
        ["", port, protocol, "PROTO" | "PORT" | "ADDR"] => is_port(port, protocol),
        _ => false,
    };
    let is_named_port =
        |rest: &str| rest.is_empty() || rest.starts_with('_') && !rest.starts_with("__") && rest.len() > 1;
    // A service may have these words in its own name.
    let after = |part: &'static str| name.match_indices(part).map(move |(at, _)| &name[at + part.len()..]);
    name.starts_with("COUNTEM_")
        && (name.ends_with("_SERVICE_HOST")
            || after("_SERVICE_PORT").any(is_named_port)
            || after("_PORT").any(is_link))
}

/// Splits `FLUSH__INTERVAL`. The name of a collection may have underscores and is kept as it is.
fn path_of_variable(key: &str) -> Vec<String> {
    let collection = key.strip_prefix("COLLECTIONS__").and_then(|rest| rest.rsplit_once("__"));
    match collection {
        Some((name, key)) => vec!["collections".to_owned(), name.to_owned(), key.to_lowercase()],
        None => key.split("__").map(str::to_lowercase).collect(),
    }
}

/// Describes a syntax error and its position, without the line itself, which may hold a password.
fn syntax_problem(text: &str, origin: &Origin, error: &config::ConfigError) -> Problem {
    // The `config` crate does not say where a number is that is too large.
    let said = match text.parse::<toml::Table>() {
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", shown(error.message()))
        }
        Ok(_) => shown(error.to_string().lines().last().unwrap_or_default()),
    };
    Problem::of_layer(origin, format!("cannot read {origin}: {said}"))
}
