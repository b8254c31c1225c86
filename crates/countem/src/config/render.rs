//! The configuration in effect, as a file one could load again.
//!
//! The words are those of `config/countem.toml`; only values are replaced, so that a key is explained in one place.

use std::fmt::Write;

use toml::{Table, Value};

use super::{Config, Origin, problem::shown_path, schema::key_text};

pub(super) fn toml(config: &Config) -> String {
    let values =
        Table::try_from(config).expect("every value of a checked configuration can be written as TOML");
    let mut text = match config.file() {
        Some(path) => format!("# The configuration in effect, with {}.\n", shown_path(path)),
        None => "# The configuration in effect, without a file.\n".to_owned(),
    };
    // The head of the default file is about that file.
    let body = Config::default_toml().lines().skip_while(|line| !line.is_empty());
    let mut section = "";
    for line in body {
        section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(section);
        let value = line.split_once(" = ").and_then(|(key, _)| Some((key, values.get(section)?.get(key)?)));
        match value {
            Some((key, value)) => write_value(&mut text, config, &[section, key], value),
            None => write_line(&mut text, format_args!("{line}")),
        }
    }
    for (name, keys) in values.get("collections").and_then(Value::as_table).into_iter().flatten() {
        write_line(&mut text, format_args!("\n[collections.{}]", Value::from(name.as_str())));
        for (key, value) in keys.as_table().into_iter().flatten() {
            write_value(&mut text, config, &["collections", name, key], value);
        }
    }
    text
}

fn write_value(text: &mut String, config: &Config, path: &[&str], value: &Value) {
    let key = path.last().copied().unwrap_or_default();
    let path: Vec<_> = path.iter().map(|&segment| segment.to_owned()).collect();
    match config.origin(&key_text(&path)) {
        Origin::Default => write_line(text, format_args!("{key} = {value}")),
        origin => write_line(text, format_args!("{key} = {value} # {origin}")),
    }
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every text");
}
