//! Errors of formats, templates and time formats.

/// An error: a format, a template or a time format cannot read any line as it is defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The format has no such field.
    #[error("there is no field `{{{field}}}`; available: {}", braced(available))]
    UnknownField {
        /// Name of the wanted field.
        field: String,
        /// Names of the fields that the format has.
        available: Vec<String>,
    },
    /// Any other defect, as a readable line.
    #[error("{0}")]
    Malformed(String),
}

fn braced(names: &[String]) -> String {
    names.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(" ")
}

impl DefinitionError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }

    pub(crate) fn unknown_field(field: &str, available: &[&str]) -> Self {
        let available = available.iter().map(|&name| name.to_owned()).collect();
        Self::UnknownField { field: field.to_owned(), available }
    }
}

/// Returns the reason of an error of a regular expression, which is the last line of its text.
pub(crate) fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("regex: {}", last.trim().trim_start_matches("error: "))
}
