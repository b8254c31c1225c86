//! The kit's standalone server does what tests rely on.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;
use countem_testkit::{Mongod, Options, require_mongod};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::time::timeout;

/// Long for an answer of a server on this machine.
const SHORT: Duration = Duration::from_millis(300);

async fn insert(client: &Client, id: &str) -> Result<()> {
    client.database("kit").collection::<Document>("things").insert_one(doc! { "_id": id }).await?;
    Ok(())
}

async fn count(client: &Client) -> Result<u64> {
    Ok(client.database("kit").collection::<Document>("things").count_documents(doc! {}).await?)
}

#[tokio::test]
async fn restarted_server_keeps_its_documents_and_port() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    let (uri, port) = (mongod.uri(), mongod.port());
    let client = Client::with_uri_str(&uri).await?;
    let things = client.database("kit").collection::<Document>("things");
    let journaled = mongodb::options::WriteConcern::builder().journal(true).build();
    things.insert_one(doc! { "_id": "kept" }).write_concern(journaled).await?;

    mongod.kill()?;
    assert!(!mongod.is_running()?);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a killed server listens");
    mongod.restart().await?;

    assert_eq!((mongod.uri(), mongod.port()), (uri.clone(), port));
    assert_eq!(count(&Client::with_uri_str(&uri).await?).await?, 1);
    Ok(())
}

#[tokio::test]
async fn dropped_server_leaves_neither_process_nor_files() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let status = mongod.admin_command(doc! { "getCmdLineOpts": 1 }).await?;
    let folder = status.get_document("parsed")?.get_document("storage")?.get_str("dbPath")?.to_owned();
    let port = mongod.port();
    drop(mongod);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!std::path::Path::new(&folder).exists());
    Ok(())
}

#[tokio::test]
async fn frozen_server_answers_only_after_the_thaw() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    insert(&client, "before").await?;
    mongod.freeze()?;
    let mut asked = tokio::spawn(async move { insert(&client, "frozen").await });
    assert!(TcpStream::connect(("127.0.0.1", mongod.port())).is_ok(), "the system still accepts for it");
    timeout(SHORT, &mut asked).await.expect_err("a frozen server answers nothing");
    mongod.thaw()?;
    asked.await??;
    Ok(())
}

#[tokio::test]
async fn fail_command_fails_as_often_as_told() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    insert(&client, "before").await?;
    let data = doc! { "failCommands": ["insert"], "errorCode": 11_601 };
    mongod.fail_command(doc! { "mode": { "times": 1 }, "data": data.clone() }).await?;
    let error = insert(&client, "first").await.expect_err("the fail point is set");
    assert!(format!("{error:#}").contains("failCommand"), "{error:#}");
    insert(&client, "second").await?;

    mongod.fail_command(doc! { "mode": "alwaysOn", "data": data }).await?;
    insert(&client, "third").await.expect_err("the fail point is set");
    mongod.fail_command_off().await?;
    insert(&client, "third").await?;
    assert_eq!(count(&client).await?, 3);
    Ok(())
}

#[tokio::test]
async fn server_with_authentication_lets_in_only_its_user() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default().auth("root", "secret")).await?;
    insert(&Client::with_uri_str(mongod.uri()).await?, "known").await?;
    let stranger = format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port());
    insert(&Client::with_uri_str(stranger).await?, "unknown").await.expect_err("no password was given");
    mongod.restart().await?;
    insert(&Client::with_uri_str(mongod.uri()).await?, "known again").await?;
    Ok(())
}

#[tokio::test]
async fn servers_started_together_have_different_ports() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (one, two, three) = tokio::join!(
        Mongod::start(Options::default()),
        Mongod::start(Options::default()),
        Mongod::start(Options::default())
    );
    let (one, two, three) = (one?, two?, three?);
    assert!(one.port() != two.port() && two.port() != three.port() && one.port() != three.port());
    Ok(())
}
