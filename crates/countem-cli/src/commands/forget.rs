//! `countem forget`

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf, absolute},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use countem_core::{Deltas, Mark, Writer};
use countem_engine::{Outbox, Retry, deliver};
use countem_store::Store;

use crate::{
    commands::marks::name,
    exit::{Exit, NotFound},
    global::Global,
    ingest::{
        identity::{agreeing, lags_behind, read_head},
        marks::{self, FileId, StoredMark},
    },
    input::Input,
    output::say,
    store::{Effective, block_on},
    transfer::marks::StoredImport,
};

/// Forget how far files were counted: `ingest --once` begins them anew
///
/// The counters stay. To count a file anew without counting it twice, take its counts back with `ingest --undo` instead.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Files to forget, by their content or by the path under which they were counted
    #[arg(value_name = "FILE", required_unless_present = "all")]
    files: Vec<PathBuf>,
    /// Forget all files
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// Forget imports of the files, by path or by the key that `marks -o json` shows: `import` adds their rows anew
    #[arg(long)]
    imports: bool,
}

/// Maximum time that the store may be away.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

impl Forget {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        effective.require_store()?;
        let forgotten = block_on(async {
            let store = effective.open().await?;
            let retry = Retry::new(effective.engine.retry_first, effective.engine.retry_longest);
            if self.imports {
                let imports = StoredImport::read_all(&*store).await?;
                let is_wanted =
                    |import: &&StoredImport| self.all || self.files.iter().any(|file| import.is_of(file));
                let lacks = |file: &&PathBuf| !imports.iter().any(|import| import.is_of(file));
                if let Some(file) = self.files.iter().find(lacks) {
                    return Err(unknown(file));
                }
                let chosen: Vec<_> = imports.iter().filter(is_wanted).collect();
                remove(&store, chosen.iter().map(|import| import.removal()), &retry).await?;
                return Ok(chosen.iter().map(|import| import.name().to_owned()).collect());
            }
            let marks =
                marks::read(&store, &marks::all_prefixes(), retry.clone(), Some(STORE_TIMEOUT)).await?;
            let chosen = if self.all { (0..marks.len()).collect() } else { choose(&self.files, &marks)? };
            let chosen: Vec<_> = chosen.into_iter().map(|at| &marks[at]).collect();
            if let Some(mark) = chosen.iter().find(|mark| mark.value.undo.is_some()) {
                bail!(
                    "the counts of `{}` are being taken back: repeat the `ingest --undo` that was interrupted",
                    name(mark)
                );
            }
            remove(&store, chosen.iter().map(|mark| mark.removal()), &retry).await?;
            Ok(chosen.into_iter().map(name).collect::<BTreeSet<_>>())
        })?;
        if !global.quiet {
            forgotten.iter().for_each(|name| say(format_args!("forgot {name}")));
        }
        Ok(Exit::Ok)
    }
}

/// Returns the indexes of the marks of `files`.
fn choose(files: &[PathBuf], marks: &[StoredMark]) -> Result<BTreeSet<usize>> {
    let mut chosen = BTreeSet::new();
    for path in files {
        let found = find(path, marks)?;
        if found.is_empty() {
            return Err(unknown(path));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

fn unknown(path: &Path) -> anyhow::Error {
    let advice = "`countem marks` lists what is remembered";
    NotFound::new(format!("nothing is remembered of `{}`: {advice}", path.display())).into()
}

/// Returns the indexes of the marks of a file: those of the longer contents of which it may be a copy that lags behind, or else those
/// that were set for it, or else those of its content.
fn find(path: &Path, marks: &[StoredMark]) -> Result<Vec<usize>> {
    let id = path.metadata().ok().map(|metadata| FileId::new(path, &metadata));
    let known_path = id.as_ref().map_or_else(|| absolute(path), |id| Ok(id.path.clone()))?;
    let at = |is_wanted: &dyn Fn(&StoredMark) -> bool| -> Vec<usize> {
        (0..marks.len()).filter(|&at| is_wanted(&marks[at])).collect()
    };
    let (mut agree, mut lag) = (Vec::new(), Vec::new());
    if let Some(id) = &id {
        let mut source = Input::File(path.to_owned()).open(&Arc::default())?;
        let head = read_head(&mut source)?;
        let cannot_read = || format!("cannot read `{}`", path.display());
        let found = agreeing(&mut source, &head, marks).with_context(cannot_read)?;
        agree = found.into_iter().map(|(mark, _)| mark.key.clone()).collect();
        let group = marks::group(&head);
        let is_own = marks.iter().any(|mark| mark.value.file.is_same(id));
        for mark in marks.iter().filter(|mark| !is_own && mark.key.starts_with(&group)) {
            if lags_behind(&mut source, id, mark, &[]).with_context(cannot_read)? {
                lag.push(mark.key.clone());
            }
        }
    }
    let agrees = |mark: &StoredMark| agree.contains(&mark.key);
    if !lag.is_empty() {
        return Ok(at(&|mark| lag.contains(&mark.key)));
    }
    let is_set_for = |mark: &StoredMark| {
        let file = &mark.value.file;
        file.path == known_path || id.as_ref().is_some_and(|id| file.is_same(id) && agrees(mark))
    };
    if marks.iter().any(is_set_for) {
        return Ok(at(&|mark| is_set_for(mark) || (mark.is_old() && agrees(mark))));
    }
    Ok(at(&agrees))
}

/// Removes marks, each unless it has moved meanwhile.
async fn remove(store: &Arc<dyn Store>, removals: impl Iterator<Item = Mark>, retry: &Retry) -> Result<()> {
    let writer = Writer::new(rand::random(), 1);
    let mut outbox = Outbox::new(writer.clone(), 0, 1);
    removals.for_each(|removal| outbox.freeze_whole(Deltas::default(), Some(removal)));
    let (mut was_in_doubt, is_needed) = (false, outbox.has_frozen());
    while let Some(batch) = outbox.advance() {
        let deadline = tokio::time::Instant::now() + STORE_TIMEOUT;
        let (store, retry) = (Arc::clone(store), retry.clone());
        let sending = tokio::spawn(async move { deliver(&*store, &batch, retry, deadline).await });
        let (applied, doubted) = sending.await??;
        was_in_doubt |= doubted;
        outbox.resolve(&applied);
    }
    if !was_in_doubt && is_needed {
        // Bookkeeping that stays is harmless.
        store.forget(&writer).await.ok();
    }
    Ok(())
}
