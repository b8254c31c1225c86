//! Progress through the closed buckets of all collections, once a day, shared by all processes.
//!
//! `_countem_compaction`: `{_id: "pass", step, begun: Date, collection: "web", after: "2026-11-200"}`
//!
//! `collection` and `after` are missing when the pass is over. Each step is taken by compare-and-set of its number.
//!
//! A bucket that needs a compaction has a child, whose id tells so: the search reads ids in the index, and no documents.

use countem_core::{
    Bucket, CollectionName,
    jiff::{SignedDuration, Timestamp},
};
use countem_store::StoreError;
use mongodb::bson::{
    DateTime, RawDocumentBuf,
    raw::{CStr, cstr},
    rawdoc,
};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::{COMPACTION, DocumentId, id_bounds, number_in, pattern},
    names::mongo_collection,
};

const ID: &str = "pass";
const STEP: &CStr = cstr!("step");
const BEGUN: &CStr = cstr!("begun");
const COLLECTION: &CStr = cstr!("collection");
const AFTER: &CStr = cstr!("after");

/// Time between the beginnings of two passes.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// Pattern of the ids of children.
const CHILDREN: &str = "/(1\\.|1[0-9]|[2-9])";
/// Number of ids that one search reads.
const MAX_IDS: usize = 10_000;

#[derive(Debug)]
pub(super) struct Pass {
    /// Number of steps that were taken, in all passes.
    step: i64,
    begun: DateTime,
    /// Beginning of the next step: a collection, and an id in it.
    from: (String, String),
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) collection: String,
    pub(super) bucket: Bucket,
}

impl Pass {
    /// Returns the pass that is under way, or a new one if the last is over for long enough.
    pub(super) async fn due(connection: &Connection, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let now = DateTime::from_millis(now.as_millisecond());
        let find = command::find(
            connection,
            COMPACTION,
            Level::Majority,
            rawdoc! { "_id": ID },
            RawDocumentBuf::new(),
        );
        let mut found = None;
        command::read(connection, COMPACTION, find, |document| {
            let text = |field| document.get_str(field).map(str::to_owned);
            let begun = document.get_datetime(BEGUN).unwrap_or(DateTime::MIN);
            let from = text(COLLECTION).ok().zip(text(AFTER).ok());
            found = Some((number_in(document, STEP).unwrap_or_default(), begun, from));
            Ok(())
        })
        .await?;
        let Some((step, begun, from)) = found else {
            // The filter is equality on `_id` only, as in every upsert.
            let create = rawdoc! {
                "q": { "_id": ID },
                "u": { "$setOnInsert": { STEP: 0_i64 } },
                "upsert": true,
            };
            command::write_all(connection, "update", COMPACTION, [create]).await?;
            return Ok(Some(Self { step: 0, begun: now, from: Default::default() }));
        };
        let is_over = now.timestamp_millis().saturating_sub(begun.timestamp_millis());
        Ok(match from {
            Some(from) => Some(Self { step, begun, from }),
            None if i128::from(is_over) >= INTERVAL.as_millis() => {
                Some(Self { step, begun: now, from: Default::default() })
            }
            None => None,
        })
    }

    pub(super) fn is_beginning(&self) -> bool {
        self.from.0.is_empty()
    }

    /// Finds the next buckets that have a child and are closed, at most `limit`, and the beginning of the step after them; `None`
    /// at the end.
    pub(super) async fn find(
        &self,
        connection: &Connection,
        collections: &[CollectionName],
        limit: usize,
        is_closed: impl Fn(Bucket) -> bool,
    ) -> Result<(Vec<Position>, Option<(String, String)>), StoreError> {
        let mut found = Vec::new();
        for name in collections.iter().map(CollectionName::as_str) {
            if name < self.from.0.as_str() {
                continue;
            }
            let mut after = if name == self.from.0 { self.from.1.clone() } else { String::new() };
            loop {
                let (buckets, is_last) = buckets_after(connection, name, &after).await?;
                for bucket in buckets {
                    if found.len() == limit {
                        return Ok((found, Some((name.to_owned(), after))));
                    }
                    after = id_bounds(bucket, bucket).1;
                    if is_closed(bucket) {
                        found.push(Position { collection: name.to_owned(), bucket });
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok((found, None))
    }

    /// Takes this step: returns false if another process did.
    pub(super) async fn advance(
        &mut self,
        connection: &Connection,
        next: Option<(String, String)>,
    ) -> Result<bool, StoreError> {
        let mut set = rawdoc! { STEP: self.step + 1, BEGUN: self.begun };
        let mut change = RawDocumentBuf::new();
        match next {
            Some((collection, after)) => {
                set.append(COLLECTION, collection);
                set.append(AFTER, after);
            }
            None => change.append(cstr!("$unset"), rawdoc! { COLLECTION: true, AFTER: true }),
        }
        change.append(cstr!("$set"), set);
        let update = rawdoc! { "q": { "_id": ID, STEP: self.step }, "u": change };
        Ok(command::write_all(connection, "update", COMPACTION, [update]).await? == 1)
    }
}

/// Lists the buckets of a collection that have a child, from the id `after`; not all of them unless the second value is true.
async fn buckets_after(
    connection: &Connection,
    collection: &str,
    after: &str,
) -> Result<(Vec<Bucket>, bool), StoreError> {
    let stored_in = mongo_collection(collection);
    let filter = rawdoc! { "_id": { "$gte": after, "$regex": pattern(CHILDREN) } };
    let mut find = command::find(connection, &stored_in, Level::Local, filter, rawdoc! { "_id": 1 });
    find.append(cstr!("sort"), rawdoc! { "_id": 1 });
    find.append(cstr!("limit"), i32::try_from(MAX_IDS).expect("it is small"));
    let (mut buckets, mut ids) = (Vec::new(), 0);
    command::read(connection, &stored_in, find, |document| {
        ids += 1;
        if let Some(id) = DocumentId::of(document)
            && buckets.last() != Some(&id.bucket)
        {
            buckets.push(id.bucket);
        }
        Ok(())
    })
    .await?;
    // Ids that are none of countem's must not hold up the search.
    Ok((buckets.clone(), ids < MAX_IDS || buckets.is_empty()))
}
