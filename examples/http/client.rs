//! Counts over HTTP from Rust, with a blocking client. The server is the first argument, `http://localhost:7070` by default.
//!
//! A program that counts more than a few thousand events per second embeds the library instead; see `embedded.rs`.

use std::{env, error::Error, time::Duration};

use serde_json::{Value, json};
use ureq::Agent;

fn main() -> Result<(), Box<dyn Error>> {
    let server = env::args().nth(1).unwrap_or_else(|| "http://localhost:7070".to_owned());
    let api = format!("{server}/api/v1");
    // An answer with an error has a body that names it, so it is read before it becomes one.
    let config = Agent::config_builder().http_status_as_error(false);
    let agent: Agent = config.timeout_global(Some(Duration::from_secs(40))).build().into();

    // One event, now.
    read(agent.post(format!("{api}/counters/shop/order")).send_empty()?)?;

    // Many in one request.
    let many: Vec<_> = (1..=100)
        .map(|n| json!({ "collection": "shop", "metric": "revenue.cents", "n": n, "labels": { "country": "DE" } }))
        .collect();
    let answer = agent.post(format!("{api}/increments")).content_type("application/json");
    let counted = read(answer.send(Value::from(many).to_string())?)?;
    let guarantee = counted["guarantee"].as_str().unwrap_or_default();
    println!("{} accepted, safe in the {guarantee}", counted["accepted"]);

    let today = read(agent.get(format!("{api}/counters/shop")).call()?)?;
    for (metric, value) in today["counters"].as_object().into_iter().flatten() {
        println!("{metric} {value}");
    }
    Ok(())
}

/// Returns the body of an answer, or the problem in it.
fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Value, Box<dyn Error>> {
    let body: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
    match answer.status().is_success() {
        true => Ok(body),
        false => Err(format!("{}: {}", body["code"], body["detail"]).into()),
    }
}
