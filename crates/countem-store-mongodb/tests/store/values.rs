//! Values in a document that are no counter are named, and spoil no others.

use anyhow::Result;
use countem_core::{BucketRange, Period};
use countem_store::{Counters, ErrorKind, RowQuery, Select, Store};
use countem_testkit::{Server, in_own_database, require_server};
use mongodb::bson::{Bson, Decimal128, Document, doc};

use crate::support::{DAY, Lane, bucket, collection, database, day, deliver, open};

/// Damaged values and the words that name them.
fn damaged() -> Result<[(&'static str, Bson, &'static str); 8]> {
    Ok([
        ("fraction", 12.5.into(), "12.5"),
        ("large", 9_007_199_254_740_993.0.into(), "the float 9.007199254740992e15"),
        ("decimal", "7".parse::<Decimal128>()?.into(), "the decimal 7"),
        ("text", "5".into(), "a string"),
        ("null", Bson::Null, "null"),
        ("object", doc! { "x": 1 }.into(), "an object"),
        ("array", vec![1].into(), "an array"),
        ("nan", f64::NAN.into(), "NaN"),
    ])
}

async fn one(store: &impl Store, metric: &str) -> Result<Counters> {
    let select = Select::One(metric.parse()?);
    let query = RowQuery { collection: collection("web"), range: BucketRange::one(bucket(DAY)), select };
    Ok(store.read(&query, None).await?.remove(&bucket(DAY)).unwrap_or_default())
}

async fn set(uri: &str, change: Document) -> Result<()> {
    let web = database(uri).await?.collection::<Document>("web");
    web.update_one(doc! { "_id": format!("{DAY}/1") }, change).await?;
    Ok(())
}

#[tokio::test]
async fn damaged_values_are_named_and_spoil_no_other() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open(&uri);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "good", 3), ("web", DAY, "float", 4)])).await;
    let mut values = doc! { "c.float": 4.0 };
    for (metric, value, _) in damaged()? {
        values.insert(format!("c.{metric}"), value);
    }
    set(&uri, doc! { "$set": values }).await?;
    let read = day(&store, "web").await;
    assert_eq!(read.readable().collect::<Vec<_>>(), [("float", 4), ("good", 3)]);
    assert_eq!(read.unreadable().count(), 8);
    let batch = lane.batch([("web", DAY, "good", 1), ("web", DAY, "fraction", 1)]);
    let query = RowQuery::bucket(collection("web"), bucket(DAY));
    let with = store.read(&query, Some(&batch)).await?.remove(&bucket(DAY)).unwrap();
    assert_eq!(with["good"], 4);
    for (metric, _, found) in damaged()? {
        for read in [&read, &with, &one(&store, metric).await?] {
            let why = read.get(metric).unwrap_err().to_string();
            assert_eq!(why, format!("the stored value is {found}, not a whole number of 64 bits"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn sum_over_documents_is_never_clamped() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open(&uri);
    deliver(&store, &Lane::new(1).batch([("web", DAY, "m", i64::MAX), ("web", DAY, "ok", 2)])).await;
    let web = database(&uri).await?.collection::<Document>("web");
    web.insert_one(doc! { "_id": format!("{DAY}/2"), "c": { "m": 1_i64, "ok": 3_i64 }, "w": {} }).await?;
    let read = day(&store, "web").await;
    let why = read.get("m").unwrap_err().to_string();
    assert_eq!(why, "the sum 9223372036854775808 exceeds the range of a 64-bit integer");
    assert_eq!(read["ok"], 5);
    web.insert_one(doc! { "_id": format!("{DAY}/3"), "c": { "m": -1_i64 }, "w": {} }).await?;
    assert_eq!(day(&store, "web").await["m"], i64::MAX, "only the whole sum has to fit");
    Ok(())
}

#[tokio::test]
async fn counters_that_are_no_object_refuse_the_read() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open(&uri);
    deliver(&store, &Lane::new(1).batch([("web", DAY, "m", 1)])).await;
    for gone in [Bson::from("gone"), vec![doc! { "m": 1 }].into(), Bson::Null] {
        set(&uri, doc! { "$set": { "c": gone } }).await?;
        let select = Select::One("m".parse()?);
        for (range, select) in [
            (BucketRange::one(bucket(DAY)), Select::All),
            (BucketRange::every(Period::Day), Select::All),
            (BucketRange::one(bucket(DAY)), select),
        ] {
            let query = RowQuery { collection: collection("web"), range, select };
            let error = store.read(&query, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(&format!("`{DAY}/1` of `web`")), "{error}");
        }
    }
    set(&uri, doc! { "$unset": { "c": true } }).await?;
    assert_eq!(one(&store, "m").await?, Counters::new());
    Ok(())
}

#[tokio::test]
async fn document_full_of_watermarks_is_split() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open(&uri);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    // Killed incarnations, each of which left its watermark.
    let watermarks = (0..40_000_u64).map(|node| (format!("w.{node:016x}-1"), Bson::from(1_i64)));
    set(&uri, doc! { "$set": watermarks.collect::<Document>() }).await?;
    let last = lane.batch([("web", DAY, "m", 1)]);
    deliver(&store, &last).await;
    deliver(&open(&uri), &last).await;
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    assert_eq!(day(&store, "web").await["m"], 3);
    let web = database(&uri).await?.collection::<Document>("web");
    assert_eq!(web.count_documents(doc! {}).await?, 2, "the root and the child that counts now");
    Ok(())
}
