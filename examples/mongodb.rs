//! Counting into MongoDB: two nodes of a service that share their counters.
//!
//! ```sh
//! docker compose up --wait
//! cargo run -p countem-examples --example mongodb -- mongodb://localhost:27017
//! ```
//!
//! Run it several times and the numbers add up. `mongosh countem --eval 'db.orders.find()'` shows where they are.

use std::{env, error::Error, process::ExitCode, time::Duration};

use countem::{Collector, Period, StartError};

const NODES: usize = 2;
const ORDERS: u32 = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    // A replica set is addressed by all its members, `mongodb://a,b,c/?replicaSet=rs0`: counting goes on when its primary changes.
    let uri = env::args().nth(1).unwrap_or_else(|| "mongodb://localhost:27017".to_owned());

    // Usually these are processes on machines of their own. They do not know each other.
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        match start(&uri).await {
            Ok(node) => nodes.push(node),
            Err(error) => {
                eprintln!("{error}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let serving: Vec<_> = nodes.iter().cloned().map(serve).map(tokio::spawn).collect();
    for node in serving {
        node.await?;
    }

    // A node reads the database and its own pending increments. Those that other nodes have not flushed yet are unknown to
    // it, hence the flushes.
    for node in &nodes {
        node.flush().await?;
    }
    println!("today:");
    for (collection, counters) in nodes[0].get_all_counters(None).await? {
        for (metric, value) in counters {
            println!("  {collection:<10} {metric:<20} {:>8}", value?);
        }
    }

    // The last step of a node. It also removes its watermark from the documents: only its counts stay.
    let mut code = ExitCode::SUCCESS;
    for (number, node) in nodes.iter().enumerate() {
        let report = node.shutdown().await;
        println!("node {number}: {report}");
        if !report.is_complete() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Starts a node.
async fn start(uri: &str) -> Result<Collector, StartError> {
    // All of this can be in `countem.toml`, too. The default keeps days for ever.
    Collector::builder()
        .store(uri)
        .retention(Period::Day, Duration::from_secs(400 * 24 * 3600))
        .flush_interval(Duration::from_secs(1))
        // Reports a wrong address at once. A service does better without this line: it starts while the database is away,
        // counts in memory, and delivers once it is back.
        .require_store()
        .start()
        .await
}

/// Takes orders, and counts them.
async fn serve(node: Collector) {
    for _ in 0..ORDERS {
        node.increment("orders", "placed", 1);
        // A dot in a name is nothing special: this is no part of a counter `value`.
        node.increment("orders", "value.cents", 1999);
        tokio::task::yield_now().await;
    }
}
