//! The cutting proxy does to requests and replies what it says, on a real server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use countem_testkit::{Message, Mode, Proxy, Server, in_own_database, require_server};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};
use tokio::time::timeout;

/// A server, the proxy before it, a client through the proxy and one around it.
struct Bench {
    proxy: Proxy,
    through: Collection<Document>,
    around: Collection<Document>,
    _server: Server,
}

impl Bench {
    async fn start() -> Result<Self> {
        let (server, proxy) = Server::behind_proxy().await?;
        let through = in_own_database(&proxy.uri());
        let through = Client::with_uri_str(through).await?.default_database().context("it has a database")?;
        let around = Client::with_uri_str(server.uri()).await?.database(through.name());
        let (through, around) = (through.collection("things"), around.collection("things"));
        Ok(Self { proxy, through, around, _server: server })
    }

    /// Starts to insert a document through the proxy, on a task of its own as the driver wants it.
    fn insert(&self, id: &str) -> tokio::task::JoinHandle<mongodb::error::Result<()>> {
        let things = self.through.clone();
        let id = id.to_owned();
        tokio::spawn(async move { things.insert_one(doc! { "_id": id }).await.map(|_| ()) })
    }

    async fn is_stored(&self, id: &str) -> Result<bool> {
        Ok(self.around.find_one(doc! { "_id": id }).await?.is_some())
    }
}

fn inserts(id: &'static str) -> impl Fn(&Message) -> bool + Send + Sync + 'static {
    move |message| message.is("insert") && message.contains(id)
}

#[tokio::test]
async fn dropped_reply_hides_a_write_that_happened() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    bench.insert("untouched").await??;
    let fault = bench.proxy.drop_reply(2, inserts("lost"));
    bench.insert("lost").await?.expect_err("the reply was dropped");
    fault.happened(1).await?;
    assert!(bench.is_stored("lost").await?);
    let error = bench.insert("lost").await?.expect_err("the reply was dropped again");
    fault.happened(2).await?;
    assert!(matches!(*error.kind, mongodb::error::ErrorKind::Io(_)), "{error}");
    // The fault is used up: now the server's own answer comes through.
    let error = bench.insert("lost").await?.expect_err("it is stored already");
    assert!(error.to_string().contains("E11000"), "{error}");
    Ok(())
}

#[tokio::test]
async fn dropped_request_never_reaches_the_server() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let fault = bench.proxy.drop_request(1, inserts("lost"));
    bench.insert("lost").await?.expect_err("the request was dropped");
    fault.happened(1).await?;
    assert!(!bench.is_stored("lost").await?);
    bench.insert("lost").await??;
    assert_eq!(fault.count(), 1);
    Ok(())
}

#[tokio::test]
async fn held_request_takes_effect_after_its_client_left() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let held = bench.proxy.hold(inserts("late"));
    let asked = bench.insert("late");
    held.arrived().await?;
    held.cut_client().await?;
    asked.await?.expect_err("the connection was cut");
    // Others overtake it meanwhile.
    bench.insert("newer").await??;
    assert!(!bench.is_stored("late").await?);
    let reply = held.deliver().await?;
    assert!(reply.contains("ok"));
    assert!(bench.is_stored("late").await?);
    Ok(())
}

#[tokio::test]
async fn held_request_answers_a_client_that_has_waited() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let held = bench.proxy.hold(inserts("late"));
    let asked = bench.insert("late");
    held.arrived().await?;
    held.deliver().await?;
    asked.await??;
    Ok(())
}

#[tokio::test]
async fn released_request_never_reaches_the_server() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let held = bench.proxy.hold(inserts("never"));
    let asked = bench.insert("never");
    held.arrived().await?;
    drop(held);
    asked.await?.expect_err("the connection was cut");
    assert!(!bench.is_stored("never").await?);
    Ok(())
}

#[tokio::test]
async fn request_in_a_black_hole_arrives_later() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    bench.insert("before").await??;
    bench.proxy.set_mode(Mode::BlackHole);
    let mut asked = bench.insert("swallowed");
    timeout(Duration::from_millis(300), &mut asked).await.expect_err("nothing comes back");
    assert!(!bench.is_stored("swallowed").await?);
    bench.proxy.set_mode(Mode::Forward);
    asked.await??;
    assert!(bench.is_stored("swallowed").await?);
    Ok(())
}

#[tokio::test]
async fn delay_is_added_to_a_request() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    bench.insert("before").await??;
    bench.proxy.set_mode(Mode::Delay(Duration::from_millis(300)));
    let started = Instant::now();
    bench.insert("slow").await??;
    assert!(started.elapsed() >= Duration::from_millis(300));
    Ok(())
}

#[tokio::test]
async fn refused_and_cut_connections_come_back_when_forwarding() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let held = bench.proxy.hold(inserts("cut"));
    let asked = bench.insert("cut");
    held.arrived().await?;
    bench.proxy.cut_all();
    asked.await?.expect_err("all connections were cut");
    held.deliver().await.expect_err("its connection is gone");

    bench.proxy.set_mode(Mode::Refuse);
    let asked = bench.insert("patient");
    assert!(!bench.is_stored("patient").await?);
    bench.proxy.set_mode(Mode::Forward);
    // Depending on when it was sent, the driver either waited for the server or gave up on the connection.
    if asked.await?.is_err() {
        bench.insert("patient").await??;
    }
    assert!(bench.is_stored("patient").await?);
    Ok(())
}
