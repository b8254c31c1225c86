//! The row `state`: identity, number and digests as of the newest transaction.

use std::collections::BTreeMap;

use countem_core::Writer;
use rusqlite::{Connection, params};

use crate::{disk::provenance::Provenance, error::ReadError, tables::digest::Digest};

/// State of a journal as of one transaction. Small, so that a transaction works on a copy.
#[derive(Debug, Clone)]
pub(crate) struct JournalState {
    pub(crate) node: u64,
    pub(crate) epoch: u64,
    /// Number of lanes with which the content was recorded.
    pub(crate) lanes: u16,
    pub(crate) provenance: Provenance,
    /// Rises by one with every transaction.
    pub(crate) tick: u64,
    /// Pending deltas by lane, without empty lanes.
    pub(crate) pending: BTreeMap<u16, Sum>,
    pub(crate) frozen: Sum,
    pub(crate) quarantined: Sum,
    pub(crate) resolved: Resolved,
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
    (one, node, epoch, lanes, born, host, tick, pending, frozen, quarantined, digest)
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl JournalState {
    /// Returns the state of a new journal.
    pub(crate) fn new(node: u64, lanes: u16) -> Self {
        Self {
            node,
            epoch: 0,
            lanes,
            provenance: Provenance::default(),
            tick: 0,
            pending: BTreeMap::new(),
            frozen: Sum::default(),
            quarantined: Sum::default(),
            resolved: Resolved::default(),
        }
    }

    /// Returns the identity under which batches are frozen now.
    pub(crate) fn writer(&self) -> Writer {
        Writer::new(self.node, self.epoch)
    }

    /// Tells whether no delta is pending and no batch is frozen.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.frozen.items == 0
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
            self.lanes,
            self.provenance.born,
            self.provenance.host,
            self.tick.cast_signed(),
            self.pending_digest().cast_signed(),
            self.frozen.digest.cast_signed(),
            self.quarantined.digest.cast_signed(),
            self.digest().cast_signed(),
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
        Digest::new()
            .number(self.node)
            .number(self.epoch)
            .number(self.lanes.into())
            .text(&born.map_or_else(String::new, |born| born.to_string()))
            .text(host.as_deref().unwrap_or_default())
            .number(self.tick)
            .number(self.pending_digest())
            .number(self.frozen.digest)
            .number(self.quarantined.digest)
            .finish()
    }
}

/// The row `state` as it is in the file: a state without its sums, and the digests that these must have.
pub(crate) struct StateRow {
    pub(crate) state: JournalState,
    pub(crate) pending: u64,
    pub(crate) frozen: u64,
    pub(crate) quarantined: u64,
    pub(crate) digest: u64,
}

impl StateRow {
    pub(crate) fn read(connection: &Connection) -> Result<Self, ReadError> {
        let columns = "node, lanes, epoch, born, host, tick, pending, frozen, quarantined, digest";
        let row = connection.query_row(&format!("SELECT {columns} FROM state"), [], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let state = JournalState {
                epoch: number(2)?,
                provenance: Provenance { born: row.get(3)?, host: row.get(4)? },
                tick: number(5)?,
                ..JournalState::new(0, row.get(1)?)
            };
            let node: String = row.get(0)?;
            let row = Self {
                state,
                pending: number(6)?,
                frozen: number(7)?,
                quarantined: number(8)?,
                digest: number(9)?,
            };
            Ok((node, row))
        });
        let (node, mut row) = row?;
        row.state.node =
            u64::from_str_radix(&node, 16).map_err(|_| ReadError::damaged("its node is not one"))?;
        Ok(row)
    }
}
