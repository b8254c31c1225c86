//! Values before they are read as the type of their key.
//!
//! A file holds typed values, which must have the right type. The environment and the command line hold text; it is
//! read as the type of the key and never guessed, so that the password `007` stays `007`.

use config::ValueKind;
use countem_store_uri::shown;

/// A value as it was written.
#[derive(Debug, Clone)]
pub(crate) enum RawValue {
    /// From an environment variable or a flag.
    Text(String),
    /// From a file.
    Typed(ValueKind),
}

/// End of a sentence about a wrong value; the key is its subject.
pub(crate) type Refusal = String;

impl RawValue {
    /// Returns the end of a sentence about a key whose value is not `allowed`.
    pub(crate) fn refuse(&self, allowed: &str) -> Refusal {
        format!("is {}; allowed: {allowed}", self.shown())
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Typed(ValueKind::String(text)) => Some(text),
            Self::Typed(_) => None,
        }
    }

    /// Returns the digits of what may be a whole number.
    pub(crate) fn integer(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.trim().to_owned()),
            Self::Typed(ValueKind::I64(number)) => Some(number.to_string()),
            Self::Typed(_) => None,
        }
    }

    pub(crate) fn list(&self) -> Option<Vec<&str>> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Text(text) => Some(text.split(',').map(str::trim).collect()),
            Self::Typed(ValueKind::Array(values)) => values
                .iter()
                .map(|value| match &value.kind {
                    ValueKind::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            Self::Typed(_) => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) if text.is_empty() => "empty".to_owned(),
            Self::Text(text) => format!("`{}`", shown(text)),
            // The quotes tell the text `"2"` of a file from the number `2`.
            Self::Typed(ValueKind::String(text)) => format!("`\"{}\"`", shown(text)),
            Self::Typed(ValueKind::Array(_)) => "a list".to_owned(),
            Self::Typed(ValueKind::Table(_)) => "a section".to_owned(),
            Self::Typed(value) => format!("`{value}`"),
        }
    }
}
