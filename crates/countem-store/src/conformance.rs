//! The laws of the [`Store`] contract, each as a test, for every store and decorator.
//!
//! ```no_run
//! # use countem_store::MemoryStore;
//! mod memory_store {
//!     # use countem_store::MemoryStore;
//!     countem_store::conformance!(async |law| law.check(&MemoryStore::new()).await);
//! }
//! ```

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use countem_core::{Batch, BatchId, Bucket, BucketRange, CollectionName, Deltas, Table, Writer, hash::fnv64};

use crate::{Counters, RowQuery, Rows, Select, Store};

mod apply;
mod claims;
mod expiry;
mod marks;
mod names;
mod read;
mod schedules;
mod zeros;

/// Declares the laws once, as [`LAWS`] and as the tests of `conformance!`, so that none can be forgotten.
macro_rules! laws {
    ($dollar:tt $($module:ident::$law:ident,)*) => {
        /// Every law.
        pub const LAWS: &[Law] = &[
            $(Law { name: stringify!($law), check: |store, lane| Box::pin($module::$law(store, lane)) },)*
        ];

        /// Defines one `#[test]` per law of the [`Store`](crate::Store) contract.
        ///
        /// The argument is an async closure that checks one [`Law`](crate::conformance::Law) on a store. It runs on a current-thread
        /// runtime of tokio. Several stores need a module each, because the tests have the names of the laws.
        #[macro_export]
        macro_rules! conformance {
            ($dollar check:expr) => {$(
                #[test]
                fn $law() {
                    $crate::conformance::test(stringify!($law), $dollar check);
                }
            )*};
        }
    };
}

laws! { $
    apply::a_batch_is_added_to_what_is_stored,
    apply::applying_a_batch_twice_equals_applying_it_once,
    apply::a_late_copy_after_a_newer_batch_changes_nothing,
    apply::lanes_and_writers_are_independent,
    apply::concurrent_writers_all_count,
    apply::creating_the_same_counters_at_once_loses_nothing,
    apply::negative_and_zero_amounts_are_stored,
    apply::an_overflowing_counter_is_quarantined_alone,
    apply::a_quarantined_delta_is_reported_again,
    apply::a_held_delta_is_released_once,
    apply::a_journal_holds_what_is_quarantined_of_its_batches,
    apply::forgetting_a_writer_keeps_the_counts,
    apply::a_retired_writer_is_still_recognised,
    claims::a_key_is_won_by_one_entry,
    claims::of_concurrent_claims_one_wins,
    claims::an_expired_key_is_won_again,
    claims::of_concurrent_claims_of_an_expired_key_one_wins,
    claims::a_claim_adds_its_batch_if_it_wins,
    claims::a_claim_reports_what_its_batch_cannot_add,
    expiry::removal_keeps_what_is_kept,
    expiry::removed_buckets_take_no_count_again,
    marks::a_mark_moves_with_its_batch,
    marks::a_mark_elsewhere_stores_nothing,
    marks::of_two_batches_from_one_mark_one_is_stored,
    marks::a_removed_mark_can_be_set_again,
    marks::marks_are_listed_by_prefix,
    marks::a_quarantined_delta_moves_its_mark,
    names::names_are_read_back_identically_and_never_mixed_up,
    names::names_survive_on_existing_counters,
    read::a_read_counts_an_in_flight_batch_exactly_once,
    read::a_range_holds_its_own_buckets_only,
    read::one_metric_can_be_read_alone,
    read::pages_return_every_counter_once_in_order,
    read::pages_of_a_prefix_return_its_counters,
    read::a_page_counts_an_in_flight_batch_exactly_once,
    read::an_extent_ends_at_buckets_with_counters,
    read::collections_are_listed_sorted,
    schedules::recorded_schedules_are_read_back,
    schedules::a_change_of_older_schedules_is_not_recorded,
    schedules::concurrent_changes_of_schedules_agree,
    zeros::only_zeros_are_removed,
    zeros::a_removed_zero_counts_again,
    zeros::removing_zeros_beside_a_writer_loses_nothing,
}

type Check = for<'a> fn(&'a dyn Store, Lane) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One law of the contract.
#[derive(Clone, Copy)]
pub struct Law {
    name: &'static str,
    check: Check,
}

impl Law {
    /// Returns the law as a sentence, with underscores.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Checks the law on `store`, which may hold data of other laws: each uses a collection of its own.
    ///
    /// # Panics
    /// When the store breaks the law.
    pub async fn check(&self, store: &impl Store) {
        (self.check)(store, Lane::new(self.name)).await;
    }
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Runs `check` with the law `name`, for the tests of `conformance!`.
///
/// # Panics
/// When the law is broken.
#[doc(hidden)]
pub fn test(name: &str, check: impl AsyncFnOnce(Law)) {
    let law = LAWS.iter().find(|law| law.name == name).expect("the tests are made from the list of laws");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(check(*law));
}

/// A writer with one lane and a collection of its own.
#[derive(Debug)]
pub(crate) struct Lane {
    collection: CollectionName,
    writer: Writer,
    seq: u64,
}

impl Lane {
    fn new(law: &str) -> Self {
        let name: String = law.replace('_', "-").chars().take(CollectionName::MAX_LEN).collect();
        let collection =
            CollectionName::new(&name).expect("a law's name without underscores is a collection name");
        // Laws may share a store, so each needs a node of its own.
        let node = fnv64(law);
        Self { collection, writer: Writer::new(node, 1), seq: 0 }
    }

    fn other(&self, epoch: u64) -> Self {
        Self { collection: self.collection.clone(), writer: Writer::new(self.writer.node(), epoch), seq: 0 }
    }

    fn deltas(&self, deltas: &[(&str, &str, i64)]) -> Deltas {
        let mut table = Table::new();
        for (bucket, metric, n) in deltas {
            table
                .fold(self.collection.as_str(), metric, self::bucket(bucket), *n)
                .expect("the law counts what may be counted");
        }
        table.drain()
    }

    fn id(&mut self) -> BatchId {
        self.seq += 1;
        BatchId { writer: self.writer.clone(), lane: 0, seq: self.seq }
    }

    fn batch(&mut self, deltas: &[(&str, &str, i64)]) -> Arc<Batch> {
        Arc::new(Batch::new(self.id(), self.deltas(deltas)))
    }

    async fn read(&self, store: &dyn Store, range: BucketRange, in_flight: Option<&Batch>) -> Rows {
        let query = RowQuery { collection: self.collection.clone(), range, select: Select::All };
        store.read(&query, in_flight).await.expect("a read succeeds")
    }

    async fn day(&self, store: &dyn Store) -> Counters {
        self.read(store, BucketRange::one(bucket(DAY)), None).await.remove(&bucket(DAY)).unwrap_or_default()
    }
}

const DAY: &str = "2026-11-20";

fn bucket(id: &str) -> Bucket {
    id.parse().expect("a constant id is well formed")
}

fn counters(of: &[(&str, i64)]) -> Counters {
    of.iter().copied().collect()
}

async fn apply(store: &dyn Store, batch: &Arc<Batch>) {
    let applied = store.apply(batch).await.expect("applying succeeds");
    assert_eq!(applied.quarantined, [], "nothing is quarantined");
}
