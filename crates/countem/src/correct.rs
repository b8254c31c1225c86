//! Corrections of stored counts.

use countem_core::CollectionName;
use countem_engine::{Corrected, Correction, CorrectionEntry, CorrectionError, CorrectionPreview};

use crate::Collector;

impl Collector {
    /// Corrects stored counts, exactly once, and keeps author and reason in the store's log of corrections. What this node has pending
    /// is stored before; counts that are added meanwhile come on top, or, in a large rename, merge or delete, go with the others.
    ///
    /// ```
    /// # let (collector, _clock) = countem::Collector::for_test();
    /// use countem::corrections::Correction;
    ///
    /// collector.increment("shop", "orders", 12);
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// let (collection, metric) = ("shop".parse()?, "orders".parse()?);
    /// let bucket = collector.current(countem::Period::Day)?;
    /// let set = Correction::Set { collection, metric, bucket, value: 10 };
    /// collector.correct(set, "anna", "two test orders").await?;
    /// assert_eq!(collector.get("shop", "orders", None).await?, Some(10));
    /// assert_eq!(collector.corrections(None).await?[0].reason, "two test orders");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`CorrectionError`]: nothing was changed, or for [`Unfinished`](CorrectionError::Unfinished) a part, which any process finishes
    /// that uses the store.
    ///
    /// # Cancel safety
    /// The correction goes on when the future is dropped.
    pub async fn correct(
        &self,
        correction: Correction,
        author: &str,
        reason: &str,
    ) -> Result<Corrected, CorrectionError> {
        let (engine, author, reason) = (self.engine.clone(), author.to_owned(), reason.to_owned());
        let now = engine.now();
        self.engine
            .run(async move {
                engine.flush().await;
                engine.corrections()?.correct(&correction, &author, &reason, now).await
            })
            .await
    }

    /// Returns what a correction would change, and changes nothing but that what this node has pending is stored before.
    ///
    /// # Errors
    /// As [`correct`](Self::correct).
    pub async fn preview_correction(
        &self,
        correction: Correction,
    ) -> Result<CorrectionPreview, CorrectionError> {
        let engine = self.engine.clone();
        let now = engine.now();
        self.engine
            .run(async move {
                engine.flush().await;
                engine.corrections()?.preview(&correction, now).await
            })
            .await
    }

    /// Returns the corrections of a collection, or of all, the oldest first.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn corrections(
        &self,
        collection: Option<CollectionName>,
    ) -> Result<Vec<CorrectionEntry>, CorrectionError> {
        let engine = self.engine.clone();
        self.engine.run(async move { engine.corrections()?.history(collection.as_ref()).await }).await
    }
}
