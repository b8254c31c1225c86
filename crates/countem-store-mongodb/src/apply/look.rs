//! What documents show about a batch.

use std::collections::HashMap;

use countem_core::{BatchId, Bucket};
use countem_store::{ErrorKind, StoreError};
use mongodb::bson::RawDocument;

use super::Run;
use crate::{
    command::{self, Level, path},
    document::{COUNTERS, QUARANTINED, SPLIT, WATERMARKS, parse_id, split_of, value_of, watermark_of},
    encoder::Encoder,
    error::without_effect,
    partition::{Partition, Split},
    quarantine::{Omitted, offenders, read_stamp},
    target::{Step, counter_path},
};

/// Which document it is.
pub(super) type Place = (Bucket, Partition);

/// What a document shows about a batch.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) watermark: Option<i64>,
    pub(super) split: Option<Split>,
    pub(super) size: usize,
    pub(super) omitted: Omitted,
}

impl Seen {
    fn read(
        document: &RawDocument,
        id: &BatchId,
        collection: &str,
    ) -> Result<Option<(Place, Self)>, StoreError> {
        let Ok(name) = document.get_str("_id") else { return Ok(None) };
        let Some((bucket, partition)) = parse_id(name) else { return Ok(None) };
        let split = split_of(document, partition).map_err(|_| {
            let why = format!("the field `{SPLIT}` of the document `{name}` of `{collection}` is damaged");
            StoreError::new(ErrorKind::Refused, why)
        })?;
        let size = document.get("size").ok().flatten().and_then(value_of);
        let seen = Self {
            watermark: watermark_of(document, id.writer.as_str()),
            split,
            size: size.and_then(|size| usize::try_from(size).ok()).unwrap_or_default(),
            omitted: read_stamp(document, id),
        };
        Ok(Some(((bucket, partition), seen)))
    }
}

/// So often the server may refuse an update for its data without any reason to be found in the document.
const MOST_FUTILE: u8 = 3;

impl Run<'_> {
    /// Reads documents, as far as a majority has them.
    pub(super) async fn look(&self, ids: &[String]) -> Result<HashMap<Place, Seen>, StoreError> {
        let writer = self.id.writer.as_str();
        let find = command::find(
            &self.stored_in,
            Level::Majority,
            self.deadline(),
            |filter| filter.document("_id", |among| among.strings("$in", ids)),
            |projection| {
                projection.int32(&path(WATERMARKS, writer), 1);
                projection.int32(&path(QUARANTINED, writer), 1);
                projection.int32(SPLIT, 1);
                projection.document("size", size_of_counters);
            },
        )?;
        let mut seen = HashMap::new();
        let each = |document: &RawDocument| {
            if let Some((place, found)) = Seen::read(document, self.id, &self.stored_in)? {
                seen.insert(place, found);
            }
            Ok(())
        };
        let fetched = command::fetch(self.context.connection, find, each).await;
        fetched.map_err(|failure| self.failed("read", failure))??;
        Ok(seen)
    }

    /// Finds out which counters stand in the way of their update.
    pub(super) async fn examine(&mut self) -> Result<(), StoreError> {
        for at in 0..self.targets.len() {
            let Step::Examine(why) = &self.targets[at].step else { continue };
            let why = why.clone();
            let target = &self.targets[at];
            let metrics = || target.deltas.iter().map(|counted| counted.delta.metric);
            let id = target.id();
            let find = command::find(
                &self.stored_in,
                Level::Local,
                self.deadline(),
                |filter| filter.string("_id", &id),
                |projection| {
                    metrics().for_each(|metric| projection.included_at(|key| counter_path(metric, key)))
                },
            )?;
            let mut found = Omitted::new();
            // A projection of fields of `c` shows nothing of a `c` that is no object: the server's own words say that.
            let each = |document: &RawDocument| {
                let left = target.deltas.iter().map(|counted| (counted.delta.metric, counted.delta.n));
                found = offenders(document, left);
                if found.is_empty() && document.get(COUNTERS).ok().flatten().is_none() {
                    found = metrics().map(|metric| (metric.to_owned(), why.clone())).collect();
                }
                Ok(())
            };
            let fetched = command::fetch(self.context.connection, find, each).await;
            fetched.map_err(|failure| without_effect(self.failed("read", failure)))??;
            let target = &mut self.targets[at];
            let before = target.omitted.len();
            target.omitted.extend(found);
            target.futile = if target.omitted.len() > before { 0 } else { target.futile + 1 };
            if target.futile >= MOST_FUTILE {
                return Err(StoreError::new(
                    ErrorKind::Refused,
                    format!("cannot update the document `{id}` of `{}`: {why}", self.stored_in),
                ));
            }
            target.step = Step::Send;
        }
        Ok(())
    }
}

/// Computes the bytes of the counters; zero where they are no object, which the update will say more about.
fn size_of_counters(size: &mut Encoder) {
    let counters = format!("${COUNTERS}");
    size.array("$cond", |branches| {
        branches.document("0", |condition| {
            condition.array("$eq", |operands| {
                operands.document("0", |of| of.string("$type", &counters));
                operands.string("1", "object");
            });
        });
        branches.document("1", |size| size.string("$bsonSize", &counters));
        branches.int32("2", 0);
    });
}
