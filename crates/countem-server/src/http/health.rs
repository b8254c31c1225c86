//! Health, statistics, and the description of the API.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, get, http::StatusCode, post, web};
use countem::journal;
use serde::Serialize;
use utoipa::ToSchema;

use super::allowed::{Admin, Allowed, Read};
use crate::{
    problem::{Problem, ProblemBody},
    state::{Phase, State},
};

/// Answer to a question about health.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or the reason why not.
    status: String,
}

/// Tell whether the process is alive
///
/// Says nothing of the store: its outage is no reason to restart this process.
#[utoipa::path(tag = "operation", security(()), responses((status = 200, description = "Alive", body = Health)))]
#[get("/healthz")]
pub(crate) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok".to_owned() })
}

/// Tell whether this node may get requests
#[utoipa::path(
    tag = "operation",
    security(()),
    responses(
        (status = 200, description = "It may", body = Health),
        (status = 503, description = "It stops, or can accept no increment", body = Health),
    )
)]
#[get("/readyz")]
pub(crate) async fn readyz(state: web::Data<State>) -> HttpResponse {
    match unready(&state) {
        None => HttpResponse::Ok().json(Health { status: "ok".to_owned() }),
        Some(why) => HttpResponse::ServiceUnavailable().json(Health { status: why }),
    }
}

/// Returns the reason why the node should get no requests. A store that is away is none: counts gather until it is back.
fn unready(state: &State) -> Option<String> {
    if state.phase() >= Phase::Draining {
        return Some("stopping".to_owned());
    }
    let stats = state.collector.stats();
    let is_journal_broken =
        stats.journal.as_ref().is_some_and(|status| status.health != journal::Health::Ready);
    if is_journal_broken {
        return Some("the journal cannot be written".to_owned());
    }
    let limit = state.config.to_engine_config().pending_counters;
    (stats.pending_counters >= limit).then(|| format!("{limit} counters are pending, which is the limit"))
}

/// The version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Version of countem.
    version: &'static str,
    /// Version of the rules of time zones; `None` for those of the system without a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    tzdata: Option<String>,
}

/// Tell the version
#[utoipa::path(tag = "operation", security(()), responses((status = 200, description = "The version", body = Version)))]
#[get("/version")]
pub(crate) async fn get_version() -> HttpResponse {
    HttpResponse::Ok().json(Version { version: env!("CARGO_PKG_VERSION"), tzdata: None })
}

/// The description of this API
#[utoipa::path(tag = "operation", security(()), responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
#[get("/openapi.json")]
pub(crate) async fn get_openapi(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let api = super::description(state).to_json();
    let api = api.map_err(|error| Problem::new(crate::problem::Code::Internal, error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(api))
}

/// Statistics of this node: `accepted = applied + pending + quarantined + dropped`, in increments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsBody {
    /// Increments that were counted.
    accepted: u64,
    /// Increments that are in the store.
    applied: u64,
    /// Increments that are counted and not known to be in the store.
    pending: u64,
    /// Those of them that are in the journal.
    journaled: u64,
    /// Increments whose counter the store could not add to.
    quarantined: u64,
    /// Increments given up.
    dropped: u64,
    /// Increments that were not accepted, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Distinct counters pending.
    pending_counters: usize,
    /// Last error of the store, if its last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_error: Option<String>,
    /// The store, without secrets.
    store: String,
    /// Start of this process.
    started: String,
}

/// Read the statistics of this node
#[utoipa::path(
    tag = "operation",
    responses(
        (status = 200, description = "The statistics", body = StatsBody),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/stats")]
pub(crate) async fn get_stats(_: Allowed<Read>, state: web::Data<State>) -> HttpResponse {
    let stats = state.collector.stats();
    let store_error = stats.lanes.iter().find_map(|lane| lane.last_error.clone());
    HttpResponse::Ok().json(StatsBody {
        accepted: stats.accepted,
        applied: stats.applied,
        pending: stats.pending,
        journaled: stats.journaled,
        quarantined: stats.quarantined,
        dropped: stats.dropped,
        refused: stats.refused,
        pending_counters: stats.pending_counters,
        store_error,
        store: state.store.location(),
        started: state.started.to_string(),
    })
}

/// Store everything that is pending
#[utoipa::path(
    tag = "operation",
    responses(
        (status = 204, description = "Everything that was counted before is in the store"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not stored yet", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/flush")]
pub(crate) async fn post_flush(_: Allowed<Admin>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    state.wait(countem_config::Guarantee::Store).await?;
    Ok(HttpResponse::build(StatusCode::NO_CONTENT).finish())
}
