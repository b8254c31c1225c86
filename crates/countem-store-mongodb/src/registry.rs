//! One document for each node: notices a copied data directory, and says whose watermarks nobody needs any more.
//!
//! `_countem_writers`: `{_id: "<node>", epoch, instance, retired: {"<epoch>": Date}}`

use std::time::Duration;

use countem_core::Writer;
use countem_store::{ErrorKind, Registration, StoreError};
use mongodb::bson::{DateTime, RawDocument, RawDocumentBuf};

use crate::{
    MongoStore,
    command::{self, Level, Reply, path, what},
    document::{QUARANTINED, WATERMARKS, WRITERS, mongo_collection, value_of},
    encoder::Encoder,
};

const EPOCH: &str = "epoch";
const INSTANCE: &str = "instance";
const RETIRED: &str = "retired";

/// After so many changes of one document under our hands, something else is wrong.
const MOST_ROUNDS: usize = 16;
/// Most writers whose watermarks one command removes.
const MOST_WRITERS: usize = 100;
/// The ids of documents that live so long that watermarks would pile up in them: weeks, months, years and `all`.
const LONG_LIVED: &str = "^([0-9]{4}(-W?[0-9]{2})?|all)/";

impl MongoStore {
    /// See [`Store::register`](countem_store::Store::register).
    ///
    /// A journal gives every start a new epoch, so two processes can only claim the same one when a data directory was copied.
    ///
    /// # Errors
    /// The claim is not known to be stored. Claiming again is harmless.
    pub(crate) async fn claim(&self, writer: &Writer) -> Result<Registration, StoreError> {
        let node = node(writer);
        let epoch = epoch(writer)?;
        for _ in 0..MOST_ROUNDS {
            // Compare and swap: only an older epoch gives way.
            let claimed = self.update_registry(|update| {
                update.document("q", |query| {
                    query.string("_id", &node);
                    query.document(EPOCH, |stored| stored.document("$not", |not| not.int64("$gte", epoch)));
                });
                update.document("u", |change| {
                    change.document("$set", |set| {
                        set.int64(EPOCH, epoch);
                        set.int64(INSTANCE, self.instance);
                    });
                });
            });
            if claimed.await? == 1 {
                return Ok(Registration::Fresh);
            }
            match self.registered(&node).await? {
                Some(found) if found.epoch == Some(epoch) && found.instance == Some(self.instance) => {
                    return Ok(Registration::Fresh);
                }
                Some(found) if found.epoch >= Some(epoch) => return Ok(Registration::Cloned),
                Some(_) => {}
                None => self.create_registration(&node).await?,
            }
        }
        Err(StoreError::new(
            ErrorKind::NotApplied,
            format!("cannot register `{writer}`: others keep registering it"),
        ))
    }

    /// Notes that every batch of `writer` is resolved, and that it will send no other. For a writer that was in doubt at
    /// some time, whose watermarks have to stay until no late copy can exist any more; see [`prune`](Self::prune).
    ///
    /// # Errors
    /// Failing is harmless: the watermarks stay for longer.
    pub(crate) async fn note_end(&self, writer: &Writer) -> Result<(), StoreError> {
        let node = node(writer);
        self.create_registration(&node).await?;
        self.update_registry(|update| {
            update.document("q", |query| query.string("_id", &node));
            update.document("u", |change| {
                change.document("$currentDate", |now| now.boolean(&retired_at(writer), true));
            });
        })
        .await?;
        Ok(())
    }

    /// Removes from long-lived documents (weeks, months, years and `all`) the watermarks of writers that were
    /// [released](countem_store::Store::release) at least `age` ago by the server's clock, and returns how many documents had some. Documents of
    /// days and finer periods keep theirs.
    ///
    /// `age` has to be longer than any request or unresolved batch can live; 48 hours are meant.
    ///
    /// # Errors
    /// Some watermarks may be left. Pruning again goes on.
    pub async fn prune(&self, age: Duration) -> Result<usize, StoreError> {
        let writers = self.released_before(age).await?;
        let mut pruned = 0;
        for writers in writers.chunks(MOST_WRITERS) {
            for collection in countem_store::Store::collections(self).await? {
                let stored_in = mongo_collection(collection.as_str());
                let command = command::update(&stored_in, self.deadline(), 0, [()], |update, ()| {
                    write_pruning(update, writers);
                })?;
                pruned += self.ask(&what("prune", &stored_in), command).await?.matched;
            }
            // Only now: what is still in the registry is pruned again.
            for writer in writers {
                self.update_registry(|update| {
                    update.document("q", |query| query.string("_id", &node(writer)));
                    update.document("u", |change| {
                        change.document("$unset", |unset| unset.boolean(&retired_at(writer), true));
                    });
                })
                .await?;
            }
        }
        Ok(pruned)
    }

    async fn released_before(&self, age: Duration) -> Result<Vec<Writer>, StoreError> {
        let now = self.server_time().await?;
        let find = command::find(WRITERS, Level::Majority, self.deadline(), |_| {}, |p| p.int32(RETIRED, 1))?;
        let mut writers = Vec::new();
        self.fetch(WRITERS, find, |document| {
            writers.extend(released(document, now, age));
            Ok(())
        })
        .await?;
        Ok(writers)
    }

    async fn server_time(&self) -> Result<DateTime, StoreError> {
        let hello = Encoder::encode(0, |command| command.int32("hello", 1))?;
        let reply = command::send(&self.connection, hello).await;
        let reply = reply.map_err(|failure| self.connection.explain("ask for the time", failure))?;
        reply.get_datetime("localTime").copied().map_err(|error| {
            StoreError::new(ErrorKind::NotApplied, "the server does not tell its time").with_source(error)
        })
    }

    /// Equality on `_id` only, as wherever something is created.
    async fn create_registration(&self, node: &str) -> Result<(), StoreError> {
        self.update_registry(|update| {
            update.document("q", |query| query.string("_id", node));
            update.document("u", |change| change.document("$setOnInsert", |set| set.int64(EPOCH, -1)));
            update.boolean("upsert", true);
        })
        .await?;
        Ok(())
    }

    async fn registered(&self, node: &str) -> Result<Option<Registered>, StoreError> {
        let find = command::find(
            WRITERS,
            Level::Majority,
            self.deadline(),
            |filter| filter.string("_id", node),
            |projection| {
                projection.int32(EPOCH, 1);
                projection.int32(INSTANCE, 1);
            },
        )?;
        let mut registered = None;
        let number = |document: &RawDocument, field| document.get(field).ok().flatten().and_then(value_of);
        self.fetch(WRITERS, find, |document| {
            registered =
                Some(Registered { epoch: number(document, EPOCH), instance: number(document, INSTANCE) });
            Ok(())
        })
        .await?;
        Ok(registered)
    }

    /// Sends one update of the registry and returns whether it applied.
    async fn update_registry(&self, fill: impl FnOnce(&mut Encoder)) -> Result<usize, StoreError> {
        let mut fill = Some(fill);
        let command = command::update(WRITERS, self.deadline(), 0, [()], |update, ()| {
            fill.take().expect("there is one update")(update);
        })?;
        Ok(self.ask(&what("update", WRITERS), command).await?.matched)
    }

    /// Sends a command of updates none of which may fail.
    pub(crate) async fn ask(&self, what: &str, command: RawDocumentBuf) -> Result<Reply, StoreError> {
        let reply = command::send(&self.connection, command).await;
        let reply = reply.map_err(|failure| self.connection.explain(what, failure))?;
        let told = |words: &str| {
            StoreError::new(
                ErrorKind::InDoubt,
                format!("cannot {what} at `{}`: {words}", self.connection.at()),
            )
        };
        let reply = Reply::read(&reply).map_err(|unconfirmed| told(&unconfirmed.0))?;
        match reply.errors.first() {
            // Two upserts of one document met; it is there now.
            None | Some((_, crate::error::WriteError::Exists)) => Ok(reply),
            Some((_, error)) => Err(told(&format!("{error:?}"))),
        }
    }
}

#[derive(Debug)]
struct Registered {
    epoch: Option<i64>,
    instance: Option<i64>,
}

fn node(writer: &Writer) -> String {
    format!("{:016x}", writer.node())
}

fn epoch(writer: &Writer) -> Result<i64, StoreError> {
    let refused =
        |_| StoreError::new(ErrorKind::Refused, format!("cannot register `{writer}`: no epoch is that high"));
    i64::try_from(writer.epoch()).map_err(refused)
}

fn retired_at(writer: &Writer) -> String {
    path(RETIRED, &writer.epoch().to_string())
}

fn released(document: &RawDocument, now: DateTime, age: Duration) -> Vec<Writer> {
    let read = || {
        let node = u64::from_str_radix(document.get_str("_id").ok()?, 16).ok()?;
        let epochs = document.get_document(RETIRED).ok()?.into_iter().filter_map(|field| {
            let (epoch, at) = field.ok()?;
            let since = now.timestamp_millis().saturating_sub(at.as_datetime()?.timestamp_millis());
            let is_old = Duration::from_millis(u64::try_from(since).ok()?) >= age;
            let epoch = epoch.as_str().parse().ok().filter(|_| is_old)?;
            Some(Writer::new(node, epoch))
        });
        Some(epochs.collect())
    };
    read().unwrap_or_default()
}

fn write_pruning(update: &mut Encoder, writers: &[Writer]) {
    update.document("q", |query| {
        query.document("_id", |id| id.pattern("$regex", LONG_LIVED));
        query.documents("$or", writers, |has, writer| {
            has.document(&path(WATERMARKS, writer.as_str()), |field| field.boolean("$exists", true));
        });
    });
    update.document("u", |change| write_forgetting(change, writers));
    update.boolean("multi", true);
}

/// Writes a change that removes all traces of `writers` from a document.
pub(crate) fn write_forgetting(change: &mut Encoder, writers: &[Writer]) {
    change.document("$unset", |unset| {
        for writer in writers {
            unset.boolean(&path(WATERMARKS, writer.as_str()), true);
            unset.boolean(&path(QUARANTINED, writer.as_str()), true);
        }
    });
}

#[cfg(test)]
mod tests {
    use mongodb::bson::rawdoc;

    use super::*;

    #[test]
    fn only_writers_that_were_released_long_ago_are_pruned() {
        let at = DateTime::from_millis;
        let document = rawdoc! { "_id": "00000000000000ff", "epoch": 9_i64, "retired": {
            "7": at(1_000), "8": at(5_000), "9": at(99_000), "x": at(0),
        } };
        let released = |age| released(&document, at(10_000), Duration::from_secs(age));
        assert_eq!(released(5), [Writer::new(255, 7), Writer::new(255, 8)]);
        assert_eq!(released(6), [Writer::new(255, 7)]);
        assert_eq!(released(48 * 3600), []);
    }
}
