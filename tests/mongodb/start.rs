//! A store that cannot be used: the service starts and counts, says what is wrong, and delivers after the repair.

use std::time::Duration;

use anyhow::Result;
use countem::{Collector, Refusal, StartError, engine::EngineConfig, store::Counters};
use countem_testkit::{Mongod, Options, Port, require_mongod};
use mongodb::bson::{Document, doc};

use super::database::{Database, STEP_TIMEOUT, begin, eager, eventually, lanes, with_option};

const PASSWORD: &str = "hunter2";
/// Maximum number of pending counters of a service.
const MAX_PENDING: usize = 500;

/// Checks that an error is one readable line without the password.
fn assert_line(line: &str, said: &str) {
    assert!(line.contains(said), "{said:?} is not in {line:?}");
    assert!(!line.contains('\n') && line.len() < 600, "{line:?}");
    assert!(line.starts_with("cannot ") && !line.ends_with('.'), "{line:?}");
    assert_hidden(line);
}

fn assert_hidden(text: &str) {
    assert!(!text.contains(PASSWORD), "{text}");
}

/// A service whose store cannot be used, and what it was told to be accepted.
struct Service {
    collector: Collector,
    accepted: Counters,
    increments: u64,
}

impl Service {
    /// Starts a service that will be repaired.
    async fn start(uri: &str, said: &str) -> Result<Self> {
        Self::start_until(uri, said, STEP_TIMEOUT).await
    }

    /// Starts a service, after a start that insists on the store was refused. Both say `said`. Its shutdown gives up after
    /// `deadline`.
    async fn start_until(uri: &str, said: &str, deadline: Duration) -> Result<Self> {
        let uri = with_option(uri, "serverSelectionTimeoutMS=500");
        let config = EngineConfig { pending_counters: MAX_PENDING, shutdown_deadline: deadline, ..eager() };
        let builder = begin(&uri).engine_config(config);
        assert_hidden(&format!("{builder:?}"));
        let refused = builder.clone().require_store().start().await;
        let error = refused.expect_err("the store cannot be used");
        assert!(matches!(error, StartError::Store(_)), "{error:?}");
        println!("refused: {error}");
        assert_line(&error.to_string(), said);
        assert_hidden(&format!("{error:?}"));

        let collector = builder.start().await?;
        let mut service = Self { collector, accepted: Counters::new(), increments: 0 };
        service.count_beyond_the_bound();
        eventually("a failed attempt of each lane", async || {
            Ok(lanes(&service.collector).iter().all(|lane| lane.failures > 0))
        })
        .await?;
        let stats = service.collector.stats();
        for lane in &stats.lanes {
            let line = lane.last_error.as_deref().expect("the last attempt has failed");
            println!("told: {line}");
            assert_line(line, said);
        }
        assert_hidden(&format!("{stats:?} {:?}", service.collector));
        assert!(stats.is_balanced(), "{stats:?}");
        assert_eq!((stats.accepted, stats.applied), (service.increments, 0));
        // What is known is still counted, if need be a second time beside the batch that cannot be sent.
        service.count_known();
        let stats = service.collector.stats();
        assert!(stats.is_balanced() && stats.pending_counters <= 2 * MAX_PENDING, "{stats:?}");
        assert_eq!(stats.accepted, service.increments);
        Ok(service)
    }

    /// Counts twice as many counters as there is room for, in collections of both lanes.
    fn count_beyond_the_bound(&mut self) {
        let mut refused = 0;
        for metric in (0..MAX_PENDING).map(|n| format!("metric.{n}")) {
            for collection in ["c0", "c1"] {
                match self.collector.try_increment(collection, &metric, 1) {
                    Ok(()) => self.accept(collection, &metric, 1),
                    Err(Refusal::Full) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        let stats = self.collector.stats();
        assert_eq!(stats.refused["full"], refused);
        assert!(stats.pending_counters <= MAX_PENDING && self.accepted.len() <= MAX_PENDING, "{stats:?}");
        assert!(self.accepted.len() >= MAX_PENDING / 2, "{} counters were accepted", self.accepted.len());
    }

    /// Counts every known counter once more.
    fn count_known(&mut self) {
        for (known, _) in self.accepted.clone() {
            let (collection, metric) = known.split_once('/').expect("that is how `accept` writes it");
            self.collector.try_increment(collection, metric, 10).expect("it is known, so it needs no room");
            self.accept(collection, metric, 10);
        }
    }

    fn accept(&mut self, collection: &str, metric: &str, n: i64) {
        self.increments += 1;
        self.accepted.add(&format!("{collection}/{metric}"), n);
    }

    /// Checks that everything accepted is delivered once, now that the store has been repaired.
    async fn delivers(mut self, database: &Database) -> Result<()> {
        tokio::time::timeout(STEP_TIMEOUT, self.collector.flush()).await??;
        let stats = self.collector.stats();
        assert!(stats.lanes.iter().all(|lane| lane.last_error.is_none()), "{stats:?}");
        assert_eq!((stats.applied, stats.pending), (self.increments, 0));
        self.count_known();
        let report = self.collector.shutdown().await;
        assert!(report.is_complete() && report.is_balanced(), "{report:?}");
        assert_eq!((report.accepted, &report.errors), (self.increments, &Vec::new()));
        assert_hidden(&format!("{report:?} {report}"));
        let mut stored = Counters::new();
        for collection in ["c0", "c1"] {
            let counters = database.counters(collection).await?.into_iter();
            stored.extend(counters.map(|(metric, n)| (format!("{collection}/{metric}"), n)));
        }
        assert_eq!(stored, self.accepted);
        Ok(())
    }

    /// Checks that a shutdown which cannot store anything says so, and why.
    async fn gives_up(self, said: &str) {
        let report = self.collector.shutdown().await;
        assert!(report.is_balanced() && !report.is_complete(), "{report:?}");
        assert_eq!(
            (report.accepted, report.applied, report.quarantined),
            (self.increments, 0, 0),
            "{report:?}"
        );
        assert_eq!(report.errors.len(), 2, "one of each lane: {report:?}");
        report.errors.iter().for_each(|line| assert_line(line, said));
        assert_hidden(&format!("{report:?} {report}"));
    }
}

#[tokio::test]
async fn server_down_at_start_gets_everything_later() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    let database = Database::at(mongod.uri()).await?;
    mongod.kill()?;
    let service = Service::start(database.uri(), "does not answer (Connection refused").await?;
    mongod.restart().await?;
    service.delivers(&database).await
}

/// Neither host can be repaired by this test, so the service ends without its store.
#[tokio::test]
async fn unreachable_hosts_are_named_and_shutdown_accounts() -> Result<()> {
    let port = Port::reserve()?;
    for (host, said) in [
        ("no-such-host.invalid".to_owned(), "`no-such-host.invalid:27017` does not answer (failed to lookup"),
        (format!("127.0.0.1:{}", port.number()), "does not answer (Connection refused"),
    ] {
        let uri = format!("mongodb://anna:{PASSWORD}@{host}");
        Service::start_until(&uri, said, Duration::from_millis(200)).await?.gives_up(said).await;
    }
    Ok(())
}

/// A server with access control, its database, and the address as `anna` with [`PASSWORD`].
struct Guarded {
    mongod: Mongod,
    database: Database,
    annas: String,
}

impl Guarded {
    async fn start() -> Result<Self> {
        let mongod = Mongod::start(Options::default().auth("root", "secret")).await?;
        let database = Database::at(mongod.uri()).await?;
        let annas = format!("mongodb://anna:{PASSWORD}@127.0.0.1:{}/?authSource=admin", mongod.port());
        Ok(Self { mongod, database, annas })
    }

    async fn create_anna(&self, password: &str, role: &str) -> Result<()> {
        let roles = [doc! { "role": role, "db": "countem" }];
        self.run(doc! { "createUser": "anna", "pwd": password, "roles": roles }).await
    }

    async fn run(&self, command: Document) -> Result<()> {
        self.mongod.admin_command(command).await.map(|_| ())
    }
}

#[tokio::test]
async fn wrong_password_is_reported_and_repair_delivers_everything() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let server = Guarded::start().await?;
    server.create_anna("another", "readWrite").await?;
    let service =
        Service::start(&server.annas, "login failed; check user, password and `authSource`").await?;
    server.run(doc! { "updateUser": "anna", "pwd": PASSWORD }).await?;
    service.delivers(&server.database).await
}

#[tokio::test]
async fn missing_user_is_reported_and_repair_delivers_everything() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let server = Guarded::start().await?;
    let service =
        Service::start(&server.annas, "login failed; check user, password and `authSource`").await?;
    server.create_anna(PASSWORD, "readWrite").await?;
    service.delivers(&server.database).await
}

#[tokio::test]
async fn missing_permission_is_reported_and_repair_delivers_everything() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let server = Guarded::start().await?;
    server.create_anna(PASSWORD, "read").await?;
    let service = Service::start(&server.annas, "`readWrite`").await?;
    server
        .run(doc! { "grantRolesToUser": "anna", "roles": [{ "role": "readWrite", "db": "countem" }] })
        .await?;
    service.delivers(&server.database).await
}
