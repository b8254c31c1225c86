//! Marks of imports and copies in the store.

use std::{collections::BTreeMap, path::Path};

use countem_core::Mark;
use countem_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// Prefix of the keys of imports.
pub(crate) const IMPORTS: &str = "import/";
/// Prefix of the keys of copies.
pub(crate) const COPIES: &str = "copy/";

/// Value of the mark of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportMark {
    /// Rows that are stored.
    pub(crate) rows: u64,
    /// Rows of the file.
    pub(crate) of: u64,
    /// The file that had the rows.
    #[serde(default)]
    pub(crate) file: String,
    /// Identity of the rows that are stored, in their order.
    #[serde(default)]
    pub(crate) identity: String,
}

/// Value of the mark of a copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CopyMark {
    /// Location of the source.
    #[serde(default)]
    pub(crate) from: String,
    /// Time by which buckets have expired, or not.
    pub(crate) now: String,
    pub(crate) digest: String,
    pub(crate) collection: String,
    pub(crate) bucket: String,
    pub(crate) metric: String,
    /// The counters are copied and compared.
    pub(crate) done: bool,
    /// The copy lacks counters that cannot be read, or that were counted meanwhile.
    #[serde(default)]
    pub(crate) lacks: bool,
}

/// An import as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredImport {
    pub(crate) key: String,
    text: String,
    pub(crate) value: ImportMark,
}

impl StoredImport {
    /// Reads all imports, by file.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn read_all(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let stored = store.marks(IMPORTS).await?;
        let mut imports: Vec<_> = read(stored).map(|(key, text, value)| Self { key, text, value }).collect();
        imports.sort_by(|a, b| (&a.value.file, &a.key).cmp(&(&b.value.file, &b.key)));
        Ok(imports)
    }

    /// Returns the file, or the key of an import whose file is not known.
    pub(crate) fn name(&self) -> &str {
        if self.value.file.is_empty() { &self.key } else { &self.value.file }
    }

    /// Tells whether the import is of the file at `path`, or has it as its key.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        self.value.file == full_path(path) || path.to_str() == Some(&self.key)
    }

    /// Returns a batch's change that removes the mark.
    pub(crate) fn removal(&self) -> Mark {
        Mark { key: self.key.clone(), expected: Some(self.text.clone()), value: None }
    }
}

/// Reads all copies into the store.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn copies(store: &dyn Store) -> Result<Vec<(String, CopyMark)>, StoreError> {
    Ok(read(store.marks(COPIES).await?).map(|(key, _, value)| (key, value)).collect())
}

/// Returns the path of a file as its mark has it.
pub(crate) fn full_path(path: &Path) -> String {
    let full = path.canonicalize().or_else(|_| std::path::absolute(path));
    full.unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// Reads marks. One that cannot be read is none of ours.
fn read<T: for<'a> Deserialize<'a>>(
    stored: BTreeMap<String, String>,
) -> impl Iterator<Item = (String, String, T)> {
    stored.into_iter().filter_map(|(key, text)| {
        let value = serde_json::from_str(&text).ok()?;
        Some((key, text, value))
    })
}
