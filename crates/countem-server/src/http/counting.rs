//! Counting.

use std::fmt;

use actix_web::{HttpRequest, HttpResponse, post, web};
use countem::{Collector, Refusal};
use countem_config::Guarantee;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    allowed::{Allowed, Write},
    body,
    items::{self, Item, parse_moment},
    keys,
    params::{Params, bad, counter_in},
};
use crate::{
    auth::Permission,
    problem::{Code, Problem, ProblemBody, Rejected, code_of},
    state::State,
};

/// Rejected increments that an answer lists.
const MAX_LISTED: usize = 100;
/// Maximum number of increments under an idempotency key, which are read on the thread that reads requests.
const MAX_KEYED: usize = 10_000;
/// Bytes of a body that are counted on the thread that reads requests; larger ones would hold up others.
const SMALL: usize = 128 * 1024;

/// The answer to a write.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Counted {
    /// Increments that were counted.
    accepted: usize,
    /// Their guarantee: memory, journal or store.
    #[schema(value_type = String, example = "journal")]
    guarantee: &'static str,
    /// The first hundred increments that were not counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
    /// Number of increments that were not counted.
    #[serde(skip_serializing_if = "is_zero")]
    rejected_count: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Result of counting the increments of a request.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    rejected: Vec<Rejected>,
    rejected_count: usize,
}

impl Tally {
    fn reject(&mut self, state: &State, index: usize, code: Code, detail: impl fmt::Display) {
        state.metrics.rejected(code);
        self.rejected_count += 1;
        if self.rejected.len() < MAX_LISTED {
            self.rejected.push(Rejected { index, code, detail: detail.to_string() });
        }
    }

    /// Returns the error of a request of which nothing was accepted.
    fn check(&self) -> Result<(), Problem> {
        let Some(first) = self.rejected.first().filter(|_| self.accepted == 0) else { return Ok(()) };
        let is_one = self.rejected.iter().all(|rejected| rejected.code == first.code);
        let is_passing = matches!(first.code, Code::Full | Code::Stopping | Code::Forbidden);
        let code = if is_one && is_passing { first.code } else { Code::NothingAccepted };
        let count = self.rejected_count;
        Err(Problem::new(
            code,
            format_args!("none of {count} increments was accepted; the first: {}", first.detail),
        )
        .rejected(&self.rejected))
    }
}

/// Count one event, or `n`
///
/// The metric is the rest of the path; labels are part of it, as in `signups{country="DE"}`, or parameters `label=country=DE`.
#[utoipa::path(
    tag = "counting",
    params(
        ("collection" = String, Path, description = "The collection"),
        ("metric" = String, Path, description = "The metric, percent-encoded"),
        ("n" = Option<i64>, Query, description = "The amount, 1 by default; a negative one is taken away"),
        ("at" = Option<String>, Query, description = "The time of the event: RFC 3339, or seconds since 1970"),
        ("label" = Option<Vec<String>>, Query, description = "A label, `key=value`"),
        ("guarantee" = Option<String>, Query, description = "memory, journal or store"),
        ("idempotency-key" = Option<String>, Header, description = "The same request under the same key counts once, for a day at least, whichever node gets it"),
    ),
    responses(
        (status = 200, description = "Counted", body = Counted),
        (status = "4XX", description = "Not counted", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "See the code", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/counters/{collection}/{metric:.*}")]
pub(crate) async fn increment(
    allowed: Allowed<Write>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (collection, metric) = counter_in(&request, "/counters/")?;
    allowed.check(collection.as_str())?;
    let params = Params::of(&request, &["n", "at", "label", "guarantee"])?;
    let n = params.parsed("n", |text| {
        text.parse::<i64>().map_err(|_| format!("expected a whole number from {} to {}", i64::MIN, i64::MAX))
    })?;
    let at = params.parsed("at", parse_moment)?;
    let guarantee = state.guarantee(params.one("guarantee")?)?;
    let labels: Result<Vec<_>, _> = params
        .all("label")
        .map(|label| label.split_once('=').ok_or_else(|| bad("a label is `label=key=value`")))
        .collect();
    let item = Item {
        collection: collection.as_str().into(),
        metric: metric.as_str().into(),
        n: n.unwrap_or(1),
        at,
        labels: items::Labels(labels?.into_iter().map(|(key, value)| (key.into(), value.into())).collect()),
    };
    let key = keys::key_of(&request, &allowed)?;
    if let Some(key) = key {
        let guarantee = state.guarantee_of_keyed(guarantee)?;
        keys::count(&state, &key, keys::hash_of(&request, &[]), &[item], guarantee).await?;
        state.metrics.accepted(1);
        return Ok(answer(Tally { accepted: 1, ..Tally::default() }, guarantee));
    }
    count(&state.collector, &item).inspect_err(|refusal| state.metrics.rejected(code_of(refusal)))?;
    state.metrics.accepted(1);
    state.wait(guarantee).await?;
    Ok(answer(Tally { accepted: 1, ..Tally::default() }, guarantee))
}

/// Count many events
///
/// The body is a JSON array, or NDJSON: a JSON object on each line, with `collection`, `metric` and, if need be, `n`, `at` and
/// `labels`. Each is accepted or rejected by itself, but under an idempotency key all or none. A body that is cut, or is no JSON as a whole, counts
/// nothing.
#[utoipa::path(
    tag = "counting",
    params(
        ("guarantee" = Option<String>, Query, description = "memory, journal or store"),
        ("idempotency-key" = Option<String>, Header, description = "The same request under the same key counts once, for a day at least, whichever node gets it"),
    ),
    request_body(content(
        (Vec<IncrementBody> = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 200, description = "Counted, but for those in `rejected`", body = Counted),
        (status = "4XX", description = "Nothing was counted", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "See the code", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/increments")]
pub(crate) async fn increments(
    allowed: Allowed<Write>,
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(&request, &["guarantee"])?;
    let guarantee = state.guarantee(params.one("guarantee")?)?;
    let form = Form::of(&body::media_type(&request)?)?;
    let key = keys::key_of(&request, &allowed)?;
    let body = body::read(&state, &request, payload).await?;
    if let Some(key) = key {
        let guarantee = state.guarantee_of_keyed(guarantee)?;
        let items = all_items(&state, &allowed, &body.bytes, form)?;
        keys::count(&state, &key, keys::hash_of(&request, &body.bytes), &items, guarantee).await?;
        state.metrics.accepted(items.len());
        return Ok(answer(Tally { accepted: items.len(), ..Tally::default() }, guarantee));
    }
    let tally = if body.bytes.len() <= SMALL {
        count_all(&state, &allowed, &body.bytes, form)?
    } else {
        let (state, permission) = (state.clone(), (*allowed).clone());
        let counting = web::block(move || count_all(&state, &permission, &body.bytes, form));
        counting.await.map_err(|_| Problem::new(Code::Stopping, "the server stops"))??
    };
    state.metrics.accepted(tally.accepted);
    tally.check()?;
    state.wait(guarantee).await?;
    Ok(answer(tally, guarantee))
}

/// An increment in a body.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the bodies that `Item` reads")]
pub(crate) struct IncrementBody {
    /// The collection.
    #[schema(example = "web")]
    collection: String,
    /// The metric.
    #[schema(example = "signup")]
    metric: String,
    /// The amount, 1 by default.
    n: Option<i64>,
    /// The time of the event: RFC 3339, or seconds since 1970; now by default.
    #[schema(example = "2026-11-20T12:00:00Z")]
    at: Option<String>,
    /// Labels.
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Form of a body with increments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Array,
    Lines,
}

impl Form {
    fn of(media: &str) -> Result<Self, Problem> {
        match media {
            "application/json" => Ok(Self::Array),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/json-lines" => Ok(Self::Lines),
            _ => Err(Problem::new(
                Code::UnsupportedMediaType,
                "`Content-Type` is application/json for an array, or application/x-ndjson for an object on each line",
            )),
        }
    }
}

fn count_all(state: &State, permission: &Permission, body: &[u8], form: Form) -> Result<Tally, Problem> {
    let mut tally = Tally::default();
    for_each(body, form, state.server().max_items, |index, text| {
        let counted = read_item(permission, text).and_then(|item| {
            count(&state.collector, &item).map_err(|refusal| (code_of(&refusal), refusal.to_string()))
        });
        match counted {
            Ok(()) => tally.accepted += 1,
            Err((code, why)) => tally.reject(state, index, code, why),
        }
    })?;
    Ok(tally)
}

/// Reads all increments of a request that is counted as a whole.
fn all_items<'a>(
    state: &State,
    permission: &Permission,
    body: &'a [u8],
    form: Form,
) -> Result<Vec<Item<'a>>, Problem> {
    let (mut tally, mut items) = (Tally::default(), Vec::new());
    let max = state.server().max_items.min(MAX_KEYED);
    for_each(body, form, max, |index, text| match read_item(permission, text) {
        Ok(item) => items.push(item),
        Err((code, why)) => tally.reject(state, index, code, why),
    })?;
    tally.check()?;
    Ok(items)
}

/// Passes each increment of a body on, with its index.
fn for_each<'a>(
    body: &'a [u8],
    form: Form,
    max: usize,
    mut pass: impl FnMut(usize, &'a [u8]),
) -> Result<(), Problem> {
    let too_many =
        || Problem::new(Code::TooManyItems, format_args!("such a request has at most {max} increments"));
    match form {
        Form::Array => {
            let elements = items::elements(body)?;
            if elements.len() > max {
                return Err(too_many());
            }
            elements.iter().enumerate().for_each(|(index, element)| pass(index, element.get().as_bytes()));
        }
        Form::Lines => {
            if items::lines(body).nth(max).is_some() {
                return Err(too_many());
            }
            items::lines(body).for_each(|(index, line)| pass(index, line));
        }
    }
    Ok(())
}

fn read_item<'a>(permission: &Permission, text: &'a [u8]) -> Result<Item<'a>, (Code, String)> {
    let item = items::parse(text).map_err(|why| (Code::BadBody, why))?;
    if permission.covers(&item.collection) {
        return Ok(item);
    }
    let collection = super::params::shown(&item.collection);
    Err((Code::Forbidden, format!("the token is not for the collection `{collection}`")))
}

fn count(collector: &Collector, item: &Item<'_>) -> Result<(), Refusal> {
    let Item { collection, metric, n, at, labels } = item;
    let labels: Vec<_> = labels.0.iter().map(|(key, value)| (&**key, &**value)).collect();
    match at {
        Some(at) => collector.increment_at_with(collection, metric, &labels, *n, *at),
        None if labels.is_empty() => collector.try_increment(collection, metric, *n),
        None => collector.try_increment_with(collection, metric, &labels, *n),
    }
}

fn answer(tally: Tally, guarantee: Guarantee) -> HttpResponse {
    let Tally { accepted, rejected, rejected_count } = tally;
    HttpResponse::Ok().json(Counted { accepted, guarantee: guarantee.name(), rejected, rejected_count })
}
