//! A connection to one member reads only while that member is the primary.

use anyhow::Result;
use countem_store::{ErrorKind, RowQuery, Store};
use countem_testkit::{ReplicaSet, require_mongod};

use crate::support::{DAY, Lane, bucket, collection, day, deliver, open};

#[tokio::test]
async fn direct_read_of_former_primary_is_refused() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let primary = set.wait_for_primary().await?;
    let port = set.member(primary).port();
    let direct = open(&format!("mongodb://127.0.0.1:{port}/countem?directConnection=true"));
    let mut lane = Lane::new(1);
    deliver(&direct, &lane.batch([("web", DAY, "m", 1)])).await;
    assert_eq!(day(&direct, "web").await["m"], 1);
    set.step_down(60).await?;
    set.wait_for_primary().await?;
    let error = direct
        .read(&RowQuery::bucket(collection("web"), bucket(DAY)), None)
        .await
        .expect_err("it stepped down");
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().contains("is not the primary"), "{error}");
    direct.collections().await.expect_err("so are the names of collections");
    Ok(())
}
