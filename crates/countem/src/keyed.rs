//! Requests with an idempotency key; see [`Collector::increment_keyed`](crate::Collector::increment_keyed).

use crate::Collector;

pub use countem_core::{IdempotencyKey, KeyError};
pub use countem_engine::{Guarantee, Keyed, KeyedError, KeyedIncrement};

impl Collector {
    /// Counts a request of several increments once, however often it is sent, and to which collector on the same store: at least for 24
    /// hours its key stands for it, also after the process was killed.
    ///
    /// `body` is a hash of the whole request, by which another request under the same key is noticed. Either all of `increments` are
    /// counted, in the buckets of the first arrival, or none.
    ///
    /// With a journal, the request is in it when this returns, or in the store if `guarantee` says so. Without one, it is in the store. A repeat
    /// is as durable as the collector that counted the request has acknowledged it. Requests that wait at the same time
    /// share a write of the journal and one of the store; one whose key is in progress waits for the request before.
    ///
    /// The clocks of all collectors on a store have to agree within an hour.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Runtime::new()?;
    /// # runtime.block_on(async {
    /// use countem::{Collector, keyed::{Guarantee, IdempotencyKey, Keyed, KeyedIncrement}};
    ///
    /// let collector = Collector::builder().store("memory://").start().await?;
    /// let (key, hash) = (IdempotencyKey::new("order-4711")?, [7; 32]);
    /// let orders = [KeyedIncrement { collection: "shop", metric: "orders", n: 1, at: None }];
    /// for expected in [Keyed::Counted, Keyed::Repeat] {
    ///     assert_eq!(collector.increment_keyed(&key, hash, &orders, Guarantee::Store).await?, expected);
    /// }
    /// assert_eq!(collector.get("shop", "orders", None).await?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyedError`]: says whether the key is free or in progress. A request that is refused is not remembered.
    ///
    /// # Cancel safety
    /// Dropping the future decides nothing: an accepted request goes on in the background.
    pub async fn increment_keyed(
        &self,
        key: &IdempotencyKey,
        body: [u8; 32],
        increments: &[KeyedIncrement<'_>],
        guarantee: Guarantee,
    ) -> Result<Keyed, KeyedError> {
        self.engine.increment_keyed(key, body, increments, guarantee).await
    }
}
