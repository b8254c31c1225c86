//! Errors of a server that cannot be used, and counting once it can.

use std::time::Duration;

use anyhow::Result;
use countem_store::{ErrorKind, Store, StoreError};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{
    Mongod, Options, Port, ReplicaSet, Server, in_own_database, require_mongod, require_server,
};
use mongodb::bson::{Document, doc};

use crate::support::{DAY, Lane, database, day, deliver, documents, open, open_with};

fn with_short_selection(uri: &str) -> MongoStore {
    let mut config = MongoConfig::new(uri);
    config.server_selection = Duration::from_millis(700);
    open_with(config)
}

/// Returns the errors of a check and of a batch.
async fn errors_of(store: &MongoStore) -> [StoreError; 2] {
    let checked = store.check().await.expect_err("it cannot be used");
    let applied = store.apply(&Lane::new(1).batch([("web", DAY, "m", 1)])).await;
    [checked, applied.expect_err("it cannot be used")]
}

fn all_contain(errors: &[StoreError], kind: ErrorKind, words: &str) {
    for error in errors {
        let line = error.to_string();
        assert!(error.kind() == kind && line.contains(words), "{:?}: {line}", error.kind());
        assert!(!line.contains('\n') && !line.contains("hunter2") && line.len() < 600, "{line}");
    }
}

/// Schedules by which days are kept for a century.
const A_CENTURY: &str = "beginning UTC day:3153600000s,all";

#[tokio::test]
async fn server_away_at_start_counts_when_back() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    mongod.kill()?;
    let uri = in_own_database(&mongod.uri());
    let store = with_short_selection(&uri);
    all_contain(&errors_of(&store).await, ErrorKind::NotApplied, "does not answer (Connection refused");
    mongod.restart().await?;
    store.check().await?;
    deliver(&store, &Lane::new(1).batch([("web", DAY, "m", 1)])).await;
    assert_eq!(day(&store, "web").await["m"], 1);
    Ok(())
}

#[tokio::test]
async fn unknown_host_is_reported() {
    let store = with_short_selection("mongodb://no-such-host.invalid/countem");
    all_contain(
        &errors_of(&store).await,
        ErrorKind::NotApplied,
        "`no-such-host.invalid:27017` does not answer (failed to lookup",
    );
}

#[tokio::test]
async fn unused_port_is_reported() -> Result<()> {
    let port = Port::reserve()?;
    let store = with_short_selection(&format!("mongodb://127.0.0.1:{}", port.number()));
    all_contain(&errors_of(&store).await, ErrorKind::NotApplied, "Connection refused");
    Ok(())
}

#[tokio::test]
async fn standalone_instead_of_replica_set_is_reported() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let store = with_short_selection(&format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", mongod.port()));
    all_contain(&errors_of(&store).await, ErrorKind::NotApplied, "is a standalone");
    Ok(())
}

#[tokio::test]
async fn set_without_a_primary_counts_after_an_election() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let uri = in_own_database(&set.uri());
    let store = with_short_selection(&uri);
    let secondaries: Vec<_> = {
        let primary = set.wait_for_primary().await?;
        set.members().filter(|member| *member != primary).collect()
    };
    let direct = with_short_selection(&set.member(secondaries[0]).uri());
    all_contain(
        &[direct.check().await.expect_err("it is a secondary")],
        ErrorKind::NotApplied,
        "is not the primary",
    );
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    for secondary in &secondaries {
        set.kill(*secondary)?;
    }
    let batch = lane.batch([("web", DAY, "m", 1)]);
    let error = loop {
        // First the majority is missing, then the primary notices and steps down.
        let error = store.apply(&batch).await.expect_err("there is no majority");
        if error.kind() == ErrorKind::NotApplied {
            break error;
        }
    };
    all_contain(&[error], ErrorKind::NotApplied, "is a secondary of replica set `rs0`");
    for secondary in secondaries {
        set.restart(secondary).await?;
    }
    deliver(&store, &batch).await;
    assert_eq!(day(&store, "web").await["m"], 2);
    Ok(())
}

async fn create_user(mongod: &Mongod, user: &str, roles: Document) -> Result<()> {
    mongod.admin_command(doc! { "createUser": user, "pwd": "hunter2", "roles": [roles] }).await?;
    Ok(())
}

#[tokio::test]
async fn missing_login_and_rights_are_reported() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default().auth("root", "secret")).await?;
    let at = format!("127.0.0.1:{}/countem", mongod.port());
    all_contain(
        &errors_of(&with_short_selection(&format!("mongodb://{at}"))).await,
        ErrorKind::Refused,
        "login",
    );
    let wrong = format!("mongodb://root:hunter2@{at}?authSource=admin");
    all_contain(&errors_of(&with_short_selection(&wrong)).await, ErrorKind::Refused, "login failed");

    create_user(&mongod, "reader", doc! { "role": "read", "db": "countem" }).await?;
    let reader = with_short_selection(&format!("mongodb://reader:hunter2@{at}?authSource=admin"));
    let [checked, applied] = errors_of(&reader).await;
    assert_eq!(
        checked.to_string(),
        format!(
            "cannot use `mongodb://{at}`: `reader` may not `insert`, `update` in the database `countem`; \
             grant it the role `readWrite` there"
        )
    );
    all_contain(&[checked, applied], ErrorKind::Refused, "readWrite");

    // The documented role is enough for every method.
    create_user(&mongod, "writer", doc! { "role": "readWrite", "db": "countem" }).await?;
    let store = open(&format!("mongodb://writer:hunter2@{at}?authSource=admin"));
    store.check().await?;
    store.record_schedules(&A_CENTURY.parse()?).await?;
    let mut lane = Lane::new(1);
    store.register(&lane.writer).await?;
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    assert_eq!(store.collections().await?.len(), 1);
    store.retire(&lane.writer).await?;
    store.prune(Duration::ZERO).await?;
    store.forget(&lane.writer).await?;
    assert_eq!(day(&store, "web").await["m"], 1);
    // After a late grant the same batch is applied.
    let batch = lane.batch([("web", DAY, "m", 1)]);
    reader.apply(&batch).await.expect_err("it may still only read");
    let grant = doc! { "grantRolesToUser": "reader", "roles": [{ "role": "readWrite", "db": "countem" }] };
    mongod.admin_command(grant).await?;
    deliver(&reader, &batch).await;
    assert_eq!(day(&store, "web").await["m"], 2);
    Ok(())
}

#[tokio::test]
async fn frozen_server_does_not_exhaust_the_connections() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    let mut config = MongoConfig::new(in_own_database(&mongod.uri()));
    config.deadline = Duration::from_millis(300);
    config.connections = 2.try_into()?;
    let store = open_with(config);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    mongod.freeze()?;
    let batch = lane.batch([("web", DAY, "m", 1)]);
    for _ in 0..6 {
        store.apply(&batch).await.expect_err("the server is frozen");
    }
    mongod.thaw()?;
    deliver(&store, &batch).await;
    assert_eq!(day(&store, "web").await["m"], 2);
    Ok(())
}

#[tokio::test]
async fn retention_creates_ttl_index_and_expiry() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let database = database(&uri).await?;
    let mut lane = Lane::new(1);
    deliver(&open(&uri), &lane.batch([("web", DAY, "m", 1)])).await;
    let store = open(&uri);
    store.record_schedules(&A_CENTURY.parse()?).await?;
    deliver(&store, &lane.batch(["2026-11-20", "2026-11-21", "all"].map(|day| ("web", day, "m", 1)))).await;
    let has = |document: &Document| document.get_datetime("expires_at").is_ok();
    let expiring: Vec<_> = documents(&database, "web").await?.iter().map(has).collect();
    assert_eq!(expiring, [false, true, false], "the first was created without, and `all` has no end");
    let indexes = database.collection::<Document>("web").list_index_names().await?;
    assert!(indexes.contains(&"countem_expires_at".to_owned()), "{indexes:?}");
    Ok(())
}

#[tokio::test]
async fn foreign_and_empty_collections_are_not_listed() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open(&uri);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1), ("system.users", DAY, "m", 1)])).await;
    store.register(&lane.writer).await?;
    let database = database(&uri).await?;
    database.create_collection("empty").await?;
    database.collection("foreign").insert_one(doc! { "name": "a guest" }).await?;
    let names: Vec<_> = store.collections().await?.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["system.users", "web"]);
    assert_eq!(day(&store, "system.users").await["m"], 1);
    Ok(())
}
