//! The database that a test counts into, past countem: through the driver alone.

use std::{env, time::Duration};

use anyhow::{Context, Result};
use countem::{
    Builder, Collector, Timestamp,
    engine::{Clock, EngineConfig, LaneStats, ManualClock},
    store::Counters,
};
use countem_testkit::{Server, in_own_database};
use mongodb::{
    Client,
    bson::{Document, doc},
    options::ReadConcern,
};
use tokio::time::{Instant, sleep};

/// The day on which these tests count.
pub(super) const DAY: &str = "2026-11-20";
/// The database that a URI without a path means.
const NAME: &str = "countem";

/// A database of one test.
pub(super) struct Database {
    uri: String,
    handle: mongodb::Database,
}

impl Database {
    /// Returns the database of the server at `uri`, which need not be up.
    pub(super) async fn at(uri: impl Into<String>) -> Result<Self> {
        let uri = uri.into();
        let client = Client::with_uri_str(&uri).await?;
        let handle = client.default_database().unwrap_or_else(|| client.database(NAME));
        Ok(Self { uri, handle })
    }

    /// Returns a database of its own on a server that other tests may use, too.
    pub(super) async fn shared() -> Result<(Server, Self)> {
        let server = Server::any().await?;
        let database = Self::at(in_own_database(&server.uri())).await?;
        Ok((server, database))
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Begins a collector that counts on [`DAY`], stores every 50 ms and tries again soon.
    pub(super) fn builder(&self) -> Builder {
        begin(&self.uri)
    }

    /// Returns all documents of a MongoDB collection.
    pub(super) async fn documents(&self, collection: &str) -> Result<Vec<Document>> {
        let collection = self.handle.collection::<Document>(collection);
        let mut cursor =
            collection.find(doc! {}).sort(doc! { "_id": 1 }).read_concern(ReadConcern::majority()).await?;
        let mut documents = Vec::new();
        while cursor.advance().await? {
            documents.push(cursor.deserialize_current()?);
        }
        Ok(documents)
    }

    /// Returns the counters of a collection, which has counted on [`DAY`] alone.
    pub(super) async fn counters(&self, collection: &str) -> Result<Counters> {
        let mut counters = Counters::new();
        for document in self.documents(collection).await? {
            let id = document.get_str("_id")?;
            assert!(id.starts_with(&format!("{DAY}/")), "a document of another day: {id}");
            for (field, value) in document.get_document("c")? {
                let value = value.as_i64().with_context(|| format!("`{field}` is no 64-bit number"))?;
                counters.add(&decoded(field), value);
            }
        }
        Ok(counters)
    }

    /// Returns the writers that the documents of a collection remember.
    pub(super) async fn writers(&self, collection: &str) -> Result<Vec<String>> {
        let documents = self.documents(collection).await?;
        let watermarks = documents.iter().filter_map(|document| document.get_document("w").ok());
        Ok(watermarks.flat_map(|watermarks| watermarks.keys().cloned()).collect())
    }

    /// Returns the names of all MongoDB collections.
    pub(super) async fn collections(&self) -> Result<Vec<String>> {
        let mut names = self.handle.list_collection_names().await?;
        names.sort_unstable();
        Ok(names)
    }
}

/// Begins a collector that counts on [`DAY`], stores every 50 ms and tries again soon.
pub(super) fn begin(uri: &str) -> Builder {
    let noon: Timestamp = format!("{DAY}T12:00:00Z").parse().expect("a constant time is well formed");
    Collector::builder().store(uri).engine_config(eager()).clock(Clock::Manual(ManualClock::new(noon)))
}

/// Returns a configuration under which as much as possible goes on at once.
pub(super) fn eager() -> EngineConfig {
    EngineConfig {
        flush_interval: Duration::from_millis(50),
        retry_first: Duration::from_millis(20),
        retry_longest: Duration::from_millis(300),
        shutdown_deadline: STEP_TIMEOUT,
        ..EngineConfig::default()
    }
}

/// Adds an option to a connection string.
pub(super) fn with_option(uri: &str, option: &str) -> String {
    format!("{uri}{}{option}", if uri.contains('?') { '&' } else { '?' })
}

/// Undoes how metrics are written in documents.
fn decoded(field: &str) -> String {
    field.replace("%2E", ".").replace("%24", "$").replace("%25", "%")
}

/// Maximum time of any step on a busy machine.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for a condition that servers and threads of a collector bring about.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    while !condition().await? {
        assert!(Instant::now() < deadline, "{what} did not happen");
        // Polled: servers and other threads send no signal.
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Returns the statistics of a collector's lanes.
pub(super) fn lanes(collector: &Collector) -> Vec<LaneStats> {
    collector.stats().lanes
}

/// Returns how long a test with a length of its own runs: what `COUNTEM_TEST_SECONDS` says, else `ci` where `CI` is `true`, else
/// `here`.
pub(super) fn duration(ci: u64, here: u64) -> Result<Duration> {
    let is_ci = env::var("CI").as_deref() == Ok("true");
    let seconds = match env::var("COUNTEM_TEST_SECONDS") {
        Ok(given) => given.parse().context("`COUNTEM_TEST_SECONDS` is no number")?,
        Err(_) if is_ci => ci,
        Err(_) => here,
    };
    Ok(Duration::from_secs(seconds))
}
