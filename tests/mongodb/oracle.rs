//! Reads by period and by label, against oracles in Python.
//!
//! Shows G20.

use countem::Collector;
use countem_testkit::{Server, in_own_database, require_server};

use crate::guarantees::oracle::{check_labels, check_years};

#[tokio::test(flavor = "multi_thread")]
async fn years_equal_those_of_zoneinfo() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    check_years(400, async |_| Collector::builder().store(in_own_database(&server.uri()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_by_label_equal_those_of_python() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    check_labels(2_000, Collector::builder().store(in_own_database(&server.uri()))).await;
}
