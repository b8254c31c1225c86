//! The row `state`: identity, number and digests as of the newest transaction.

use std::{collections::BTreeMap, fmt, str::FromStr};

use countem_core::{BatchId, Writer};
use rusqlite::{Connection, params};

use crate::{disk::provenance::Provenance, error::ReadError, tables::digest::Digest};

/// State of a journal as of one transaction. Small, so that a transaction works on a copy.
#[derive(Debug, Clone)]
pub(crate) struct JournalState {
    pub(crate) node: u64,
    pub(crate) epoch: u64,
    /// Drawn at random by every opening, so that an identity never comes back; `None` as long as the file is an older one.
    pub(crate) incarnation: Option<u32>,
    /// Number of lanes with which the content was recorded.
    pub(crate) lanes: u16,
    /// The newest numbers that batches of each lane have got.
    pub(crate) numbers: Numbers,
    pub(crate) provenance: Provenance,
    /// Rises by one with every transaction.
    pub(crate) tick: u64,
    /// Pending deltas by lane, without empty lanes.
    pub(crate) pending: BTreeMap<u16, Sum>,
    pub(crate) frozen: Sum,
    pub(crate) quarantined: Sum,
    /// `None` as long as the file is an older one.
    pub(crate) keyed: Option<Sum>,
    pub(crate) resolved: Resolved,
}

/// The newest number that each lane has used, and the writer that did.
///
/// Whatever is pending in a lane was recorded by this writer, and belongs into its next batch: a store that has that batch
/// already, because the journal is an older copy or could not be written, then recognises it. A lane without an entry has
/// used no number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) BTreeMap<u16, (Writer, u64)>);

impl Numbers {
    /// Notes that `writer` has used the numbers of `lane` up to `seq`.
    pub(crate) fn raise(&mut self, lane: u16, writer: &Writer, seq: u64) {
        let known = self.0.get(&lane).filter(|(known, _)| known == writer).map_or(0, |(_, seq)| *seq);
        self.0.insert(lane, (writer.clone(), seq.max(known)));
    }

    /// Returns the identities of the next batches.
    pub(crate) fn next(&self) -> BTreeMap<u16, BatchId> {
        let next = |(&lane, (writer, seq)): (&u16, &(Writer, u64))| {
            (lane, BatchId { writer: writer.clone(), lane, seq: seq + 1 })
        };
        self.0.iter().map(next).collect()
    }
}

/// As in the file: `<lane>/<writer>/<seq>`, separated by spaces.
impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (lane, (writer, seq))) in self.0.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{lane}/{writer}/{seq}")?;
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let entry = |entry: &str| {
            let (lane, rest) = entry.split_once('/')?;
            let (writer, seq) = rest.split_once('/')?;
            Some((lane.parse().ok()?, (writer.parse().ok()?, seq.parse().ok()?)))
        };
        text.split_whitespace().map(entry).collect::<Option<_>>().map(Self).ok_or(())
    }
}

/// A sum over a set of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Adds up over the rows, wrapping.
    pub(crate) digest: u64,
    /// Number of batches or of quarantined deltas; zero for pending deltas.
    pub(crate) items: u64,
    pub(crate) increments: u64,
}

/// Number and size of the resolved batches that are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, item: Self) {
        self.digest = self.digest.wrapping_add(item.digest);
        self.items = self.items.wrapping_add(item.items);
        self.increments = self.increments.wrapping_add(item.increments);
    }

    pub(crate) fn subtract(&mut self, item: Self) {
        self.digest = self.digest.wrapping_sub(item.digest);
        self.items = self.items.wrapping_sub(item.items);
        self.increments = self.increments.wrapping_sub(item.increments);
    }
}

const SAVE: &str = "INSERT OR REPLACE INTO state
    (one, node, epoch, incarnation, lanes, numbers, born, host, tick, pending, frozen, quarantined, digest, keyed)
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

impl JournalState {
    /// Returns the state of a new journal.
    pub(crate) fn new(node: u64, lanes: u16) -> Self {
        Self {
            node,
            epoch: 0,
            incarnation: None,
            lanes,
            numbers: Numbers::default(),
            provenance: Provenance::default(),
            tick: 0,
            pending: BTreeMap::new(),
            frozen: Sum::default(),
            quarantined: Sum::default(),
            keyed: None,
            resolved: Resolved::default(),
        }
    }

    /// Returns the identity under which batches are frozen now.
    pub(crate) fn writer(&self) -> Writer {
        match self.incarnation {
            Some(incarnation) => Writer::incarnation(self.node, self.epoch, incarnation),
            None => Writer::new(self.node, self.epoch),
        }
    }

    /// Notes which writer has recorded what is pending, at a start after the state `before`.
    pub(crate) fn adopt_numbers(&mut self, before: &Self) {
        // The numbers that were used before an older file was brought up to date are not known.
        let writer = if before.incarnation.is_some() { before.writer() } else { self.writer() };
        let used = |lane: &u16| before.numbers.0.get(lane).cloned().unwrap_or_else(|| (writer.clone(), 0));
        // What is counted of requests that are not decided goes into the same batches.
        let undecided = if self.keyed.is_some_and(|keyed| keyed.items > 0) { 0..self.lanes } else { 0..0 };
        let lanes = self.pending.keys().copied().chain(undecided);
        self.numbers = Numbers(lanes.map(|lane| (lane, used(&lane))).collect());
    }

    /// Tells whether no delta is pending, no batch is frozen, and every request is decided.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.frozen.items == 0 && self.keyed.is_none_or(|keyed| keyed.items == 0)
    }

    /// Returns the number of pending increments.
    pub(crate) fn pending_increments(&self) -> u64 {
        self.pending.values().fold(0, |sum, lane| sum.wrapping_add(lane.increments))
    }

    /// Writes the row.
    pub(crate) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached(SAVE)?.execute(params![
            format!("{:016x}", self.node),
            self.epoch.cast_signed(),
            self.incarnation,
            self.lanes,
            self.numbers.to_string(),
            self.provenance.born,
            self.provenance.host,
            self.tick.cast_signed(),
            self.pending_digest().cast_signed(),
            self.frozen.digest.cast_signed(),
            self.quarantined.digest.cast_signed(),
            self.digest().cast_signed(),
            self.keyed.map(|keyed| keyed.digest.cast_signed()),
        ])?;
        Ok(())
    }

    /// Returns the digest of all pending deltas.
    pub(crate) fn pending_digest(&self) -> u64 {
        self.pending.values().fold(0, |sum, lane| sum.wrapping_add(lane.digest))
    }

    /// Returns the digest of the row.
    pub(crate) fn digest(&self) -> u64 {
        let Provenance { born, host } = &self.provenance;
        let newer = |digest: Digest| match self.incarnation {
            Some(incarnation) => digest.number(incarnation.into()).text(&self.numbers.to_string()),
            None => digest,
        };
        let digest = newer(Digest::new().number(self.node).number(self.epoch))
            .number(self.lanes.into())
            .text(&born.map_or_else(String::new, |born| born.to_string()))
            .text(host.as_deref().unwrap_or_default())
            .number(self.tick)
            .number(self.pending_digest())
            .number(self.frozen.digest)
            .number(self.quarantined.digest);
        let keyed = self.keyed.map(|keyed| keyed.digest);
        keyed.into_iter().fold(digest, Digest::number).finish()
    }
}

/// The row `state` as it is in the file: a state without its sums, and the digests that these must have.
pub(crate) struct StateRow {
    pub(crate) state: JournalState,
    pub(crate) pending: u64,
    pub(crate) frozen: u64,
    pub(crate) quarantined: u64,
    pub(crate) keyed: Option<u64>,
    pub(crate) digest: u64,
}

impl StateRow {
    pub(crate) fn read(connection: &Connection) -> Result<Self, ReadError> {
        let columns = "node, lanes, epoch, born, host, tick, pending, frozen, quarantined, digest, incarnation, numbers, keyed";
        let row = connection.query_row(&format!("SELECT {columns} FROM state"), [], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let state = JournalState {
                epoch: number(2)?,
                provenance: Provenance { born: row.get(3)?, host: row.get(4)? },
                tick: number(5)?,
                incarnation: row.get(10)?,
                ..JournalState::new(0, row.get(1)?)
            };
            let text = (row.get::<_, String>(0)?, row.get::<_, Option<String>>(11)?);
            let row = Self {
                state,
                pending: number(6)?,
                frozen: number(7)?,
                quarantined: number(8)?,
                digest: number(9)?,
                keyed: row.get::<_, Option<i64>>(12)?.map(i64::cast_unsigned),
            };
            Ok((text, row))
        });
        let ((node, numbers), mut row) = row?;
        row.state.numbers = numbers
            .unwrap_or_default()
            .parse()
            .map_err(|()| ReadError::damaged("the numbers of its batches are none"))?;
        row.state.node =
            u64::from_str_radix(&node, 16).map_err(|_| ReadError::damaged("its node is not one"))?;
        Ok(row)
    }
}
