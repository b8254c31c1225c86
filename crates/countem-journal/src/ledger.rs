//! What the journal knows about itself: the row `state`, and sums over the tables.

use std::{collections::BTreeMap, path::Path};

use countem_core::{Deltas, Writer};
use rusqlite::{Connection, params};

use crate::{
    batch::{self, Frozen},
    digest::Digest,
    error::JournalError,
    pending,
    place::Place,
    quarantine::{self, QuarantineEntry},
    schema::at_open,
};

/// The state of a journal as of one transaction. Small, so that a transaction works on a copy.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) node: u64,
    pub(crate) epoch: u64,
    /// The number of lanes with which everything in the journal was recorded.
    pub(crate) lanes: u16,
    pub(crate) place: Place,
    /// Rises by one with every transaction.
    pub(crate) tick: u64,
    /// What is pending, by lane; no entry for a lane where nothing is.
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
    /// Batches, or quarantined deltas. Not known of pending deltas.
    pub(crate) items: u64,
    pub(crate) increments: u64,
}

/// What is kept of resolved batches.
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

/// Everything in a journal, checked against its digests.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) ledger: Ledger,
    pub(crate) pending: Vec<(u16, Deltas)>,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) quarantined: Vec<QuarantineEntry>,
}

const SAVE: &str = "INSERT OR REPLACE INTO state
    (one, node, epoch, lanes, born, host, tick, pending, frozen, quarantined, digest)
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl Ledger {
    /// Begins the ledger of a new journal.
    pub(crate) fn new(node: u64, lanes: u16) -> Self {
        Self {
            node,
            epoch: 0,
            lanes,
            place: Place::default(),
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

    /// Writes the row `state`.
    pub(crate) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached(SAVE)?.execute(params![
            format!("{:016x}", self.node),
            self.epoch.cast_signed(),
            self.lanes,
            self.place.born,
            self.place.host,
            self.tick.cast_signed(),
            self.pending_digest().cast_signed(),
            self.frozen.digest.cast_signed(),
            self.quarantined.digest.cast_signed(),
            self.digest().cast_signed(),
        ])?;
        Ok(())
    }

    fn pending_digest(&self) -> u64 {
        self.pending.values().fold(0, |sum, lane| sum.wrapping_add(lane.digest))
    }

    fn digest(&self) -> u64 {
        let born = self.place.born.map_or_else(String::new, |born| born.to_string());
        Digest::new()
            .number(self.node)
            .number(self.epoch)
            .number(self.lanes.into())
            .text(&born)
            .text(self.place.host.as_deref().unwrap_or_default())
            .number(self.tick)
            .number(self.pending_digest())
            .number(self.frozen.digest)
            .number(self.quarantined.digest)
            .finish()
    }

    /// Tells whether anything is pending or frozen.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.frozen.items == 0
    }

    /// Returns the number of increments that are pending.
    pub(crate) fn pending_increments(&self) -> u64 {
        self.pending.values().fold(0, |sum, lane| sum.wrapping_add(lane.increments))
    }
}

impl Contents {
    /// Reads everything and checks it.
    ///
    /// # Errors
    /// What is there is not, to the bit, what was written.
    pub(crate) fn read(connection: &Connection, path: &Path) -> Result<Self, JournalError> {
        let failed = |error: rusqlite::Error| at_open(path, &error);
        let corrupt = |why: &str| JournalError::corrupt(path, why);
        let row = StateRow::read(connection).map_err(failed)?;
        let node = u64::from_str_radix(&row.node, 16).map_err(|_| corrupt("its node is not one"))?;
        let mut ledger = Ledger::new(node, row.lanes);
        ledger.epoch = row.epoch;
        ledger.place = row.place;
        ledger.tick = row.tick;

        let mut pending = Vec::new();
        for (lane, table, sum) in pending::read(connection, path)? {
            ledger.pending.insert(lane, sum);
            pending.push((lane, table));
        }
        if ledger.pending_digest() != row.pending {
            return Err(corrupt("its pending counts do not add up to what was written"));
        }
        let frozen = batch::read_frozen(connection, path)?;
        frozen.iter().for_each(|frozen| ledger.frozen.add(frozen.sum()));
        if ledger.frozen.digest != row.frozen {
            return Err(corrupt("its frozen batches are not all that were written"));
        }
        let quarantined = quarantine::read(connection, path)?;
        quarantined.iter().for_each(|entry| ledger.quarantined.add(quarantine::sum(entry)));
        if ledger.quarantined.digest != row.quarantined {
            return Err(corrupt("its quarantined counts are not all that were written"));
        }
        if ledger.digest() != row.digest {
            return Err(corrupt("its state is not the one that was written"));
        }
        ledger.resolved = batch::read_resolved_size(connection).map_err(failed)?;
        Ok(Self { ledger, pending, frozen, quarantined })
    }
}

/// The row `state` as it is in the file.
struct StateRow {
    node: String,
    epoch: u64,
    lanes: u16,
    place: Place,
    tick: u64,
    pending: u64,
    frozen: u64,
    quarantined: u64,
    digest: u64,
}

impl StateRow {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let columns = "node, epoch, lanes, born, host, tick, pending, frozen, quarantined, digest";
        connection.query_row(&format!("SELECT {columns} FROM state"), [], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(Self {
                node: row.get(0)?,
                epoch: number(1)?,
                lanes: row.get(2)?,
                place: Place { born: row.get(3)?, host: row.get(4)? },
                tick: number(5)?,
                pending: number(6)?,
                frozen: number(7)?,
                quarantined: number(8)?,
                digest: number(9)?,
            })
        })
    }
}
