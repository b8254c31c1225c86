//! The configuration as a file that can be loaded again, and as a serialised value.

use std::{collections::BTreeSet, fmt::Write};

use countem_core::CollectionName;
use serde::{Serialize, Serializer, ser::SerializeMap};
use toml::Value;

use crate::{
    Config, Origin,
    keys::{KEYS, Key, RETENTION, key_text},
    kind::{Keep, Kind, Periods, Separator},
    problem::shown_path,
};

/// Head of `config/countem.toml`.
const DEFAULT_HEAD: &str = "\
# Every key of countem at its default; a key that is left out keeps it. Later layers win: default, `countem.toml` in
# the working directory (or the file that is named), environment (`COUNTEM__FLUSH__INTERVAL=5s`), command line.
# Durations are text such as \"250ms\", \"10s\", \"1h 30m\" or \"7d\"; sizes are whole numbers; lists in the environment and
# on the command line are separated by commas (`COUNTEM__TIME__PERIODS=hour,day`).
# Relative paths begin in the folder of this file; in the environment and on the command line, in the working directory.
";

const COLLECTION_EXAMPLE: &str = "
# What one collection has of its own wins over the keys above; a name that has dots has to be quoted.
# [collections.\"app-events\"]
# periods = [\"hour\", \"day\"]
# retention = [\"hour=90d\"]
# hierarchy = \".\" # text between two levels of a metric, for `top` and `series` with --level and --under
";

impl Config {
    /// Returns the text of `config/countem.toml`: every key at its default, with its meaning.
    pub fn default_toml() -> String {
        Self::default().render(DEFAULT_HEAD)
    }

    /// Returns the configuration in effect as TOML: every key with its meaning, and its origin unless it is the default.
    /// Passwords are replaced.
    pub fn to_toml(&self) -> String {
        self.render(&match self.file() {
            Some(path) => format!("# The configuration in effect, with {}.\n", shown_path(path)),
            None => "# The configuration in effect, without a file.\n".to_owned(),
        })
    }

    fn render(&self, head: &str) -> String {
        let mut text = head.to_owned();
        for section in sections() {
            write_line(&mut text, format_args!("\n[{}]", section[0].section));
            for key in section {
                key.comment.iter().for_each(|line| write_line(&mut text, format_args!("#{line}")));
                self.write_value(&mut text, &[key.section, key.key], &(key.get)(self));
            }
        }
        text += COLLECTION_EXAMPLE;
        for (name, values) in self.collections() {
            write_line(&mut text, format_args!("\n[collections.{}]", Value::from(name)));
            for (key, value) in values.0 {
                self.write_value(&mut text, &["collections", name, key], &value);
            }
        }
        text
    }

    /// Lists the collections that have keys of their own, with their values.
    fn collections(&self) -> Vec<(&str, Ordered<'static, Value>)> {
        let schedule = &self.engine.schedule;
        let names = schedule.own.keys().chain(schedule.own_retention.keys()).chain(self.hierarchies.keys());
        let names: BTreeSet<_> = names.collect();
        let values = |name| {
            let periods = schedule.own.get(name).map(|periods| ("periods", Periods.write(periods)));
            let retention = schedule.own_retention.get(name);
            let retention = retention.map(|retention| ("retention", Keep(RETENTION).write(retention)));
            let hierarchy = self.hierarchies.get(name);
            let hierarchy = hierarchy.map(|separator| ("hierarchy", Separator.write(separator)));
            let values = periods.into_iter().chain(retention).chain(hierarchy);
            (CollectionName::as_str(name), Ordered(values.collect()))
        };
        names.into_iter().map(values).collect()
    }

    fn write_value(&self, text: &mut String, path: &[&str], value: &Value) {
        let key = path.last().copied().unwrap_or_default();
        match self.origin(&key_text(path)) {
            Origin::Default => write_line(text, format_args!("{key} = {value}")),
            origin => write_line(text, format_args!("{key} = {value} # {origin}")),
        }
    }
}

/// Serialises to the structure of the file, with passwords replaced.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for section in sections() {
            let values = section.iter().map(|key| (key.key, (key.get)(self))).collect();
            map.serialize_entry(section[0].section, &Ordered(values))?;
        }
        map.serialize_entry("collections", &Ordered(self.collections()))?;
        map.end()
    }
}

/// A map that serialises in the order of its entries.
struct Ordered<'a, V>(Vec<(&'a str, V)>);

impl<V: Serialize> Serialize for Ordered<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn sections() -> impl Iterator<Item = &'static [Key]> {
    KEYS.chunk_by(|a, b| a.section == b.section)
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every text");
}
