//! Reading.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, get, web};
use countem::CollectionName;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    allowed::{Allowed, Read},
    answer::{about, add_rest, when},
    params::{Params, collection_in, counter_in},
    query,
    render::{self, Amount, Format, Rows, cells, number},
};
use crate::{
    auth::Permission,
    problem::{Code, Problem, ProblemBody},
    state::State,
};

/// The counters of one collection.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct CountersBody {
    collection: String,
    /// The bucket, or `range` if it is made up of several.
    bucket: Option<String>,
    range: Option<String>,
    /// The range is not over yet.
    partial: Option<bool>,
    /// Values by metric.
    counters: BTreeMap<String, Amount>,
    /// Counters without an exact value, and why.
    errors: Option<BTreeMap<String, String>>,
    /// The parameter `cursor` of the next part.
    next: Option<String>,
}

/// One counter.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct CounterBody {
    collection: String,
    metric: String,
    bucket: Option<String>,
    range: Option<String>,
    partial: Option<bool>,
    value: Amount,
}

/// The counters of all collections.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct AllCountersBody {
    bucket: Option<String>,
    range: Option<String>,
    partial: Option<bool>,
    /// Values by collection and metric.
    collections: BTreeMap<String, BTreeMap<String, Amount>>,
    errors: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

/// The collections.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct CollectionsBody {
    collections: Vec<String>,
}

/// Read the counters of a collection
#[utoipa::path(
    tag = "reading",
    params(
        ("collection" = String, Path, description = "The collection"),
        ("date" = Option<String>, Query, description = "A day: 2026-11-20, today, yesterday or -7d; today by default"),
        ("bucket" = Option<String>, Query, description = "A bucket: 2026-11-20T13, 2026-11, 2026-W47, all"),
        ("range" = Option<String>, Query, description = "A range of time: 30d, last-week, 2026-11-01..2026-11-20"),
        ("metric" = Option<String>, Query, description = "Only these metrics; `*` is any text, `?` any character"),
        ("matching" = Option<String>, Query, description = "Only metrics whose whole name matches a regular expression"),
        ("under" = Option<String>, Query, description = "Only this metric and those below it in the hierarchy"),
        ("separator" = Option<String>, Query, description = "Text between two levels of the hierarchy"),
        ("where" = Option<Vec<String>>, Query, description = "Only metrics with such a label: country=DE, country!=DE, country=~D.*"),
        ("limit" = Option<u32>, Query, description = "At most so many; `next` continues"),
        ("cursor" = Option<String>, Query, description = "Continues an answer"),
        ("strings" = Option<bool>, Query, description = "Values as texts, for readers without 64-bit numbers"),
    ),
    responses(
        (status = 200, description = "The counters", content(
            (CountersBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 304, description = "As it was"),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/counters/{collection}")]
pub(crate) async fn get_counters(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let collection = collection_in(&request, "/counters/")?;
    allowed.check(collection.as_str())?;
    let known = [&query::SELECT[..], &query::RANGE, &["limit", "cursor"]].concat();
    let (params, format) = (Params::of(&request, &known)?, Format::of(&request)?);
    let is_text = params.switch("strings")?;
    let answer = state.collector.query(query::of(&state, &params, vec![collection.clone()])?).await?;
    let json = || {
        let mut map = about(&answer);
        map.insert("collection".to_owned(), collection.as_str().into());
        let counters = answer.readable().map(|(row, value)| (row.name.clone(), number(value, is_text)));
        map.insert("counters".to_owned(), Value::Object(counters.collect()));
        add_rest(&mut map, &answer);
        Value::Object(map)
    };
    let rows = || {
        let mut rows = Rows::new(["collection", "bucket", "metric", "value", "error"]);
        for row in answer.all_rows() {
            let [value, error] = cells(&row.value, is_text);
            rows.rows.push(vec![
                collection.as_str().into(),
                when(&answer).1,
                row.name.as_str().into(),
                value,
                error,
            ]);
        }
        rows
    };
    Ok(render::answer(&request, format, !answer.is_partial, json, rows))
}

/// Read one counter
#[utoipa::path(
    tag = "reading",
    params(
        ("collection" = String, Path, description = "The collection"),
        ("metric" = String, Path, description = "The metric, percent-encoded"),
        ("date" = Option<String>, Query, description = "A day; today by default"),
        ("bucket" = Option<String>, Query, description = "A bucket"),
        ("range" = Option<String>, Query, description = "A range of time"),
        ("strings" = Option<bool>, Query, description = "The value as a text"),
    ),
    responses(
        (status = 200, description = "The counter", content(
            (CounterBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 304, description = "As it was"),
        (status = 404, description = "It was not counted in this range", body = ProblemBody, content_type = "application/problem+json"),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/counters/{collection}/{metric:.*}")]
pub(crate) async fn get_counter(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (collection, metric) = counter_in(&request, "/counters/")?;
    allowed.check(collection.as_str())?;
    let params = Params::of(&request, &[&query::RANGE[..], &["strings"]].concat())?;
    let (format, is_text) = (Format::of(&request)?, params.switch("strings")?);
    let one = query::of(&state, &params, vec![collection.clone()])?;
    let answer = state.collector.query(one.metrics(countem::query::Metrics::named(metric.as_str()))).await?;
    let (_, bucket) = when(&answer);
    let Some(row) = answer.all_rows().next() else {
        let bucket = bucket.as_str().unwrap_or_default();
        return Err(Problem::new(
            Code::NotFound,
            format_args!("`{metric}` was not counted in `{collection}` on {bucket}"),
        ));
    };
    let value = row.value.as_ref().map_err(|why| {
        Problem::new(Code::Unreadable, format_args!("`{metric}` of `{collection}` has no exact value: {why}"))
    })?;
    let json = || {
        let mut map = about(&answer);
        map.insert("collection".to_owned(), collection.as_str().into());
        map.insert("metric".to_owned(), metric.as_str().into());
        map.insert("value".to_owned(), number(*value, is_text));
        Value::Object(map)
    };
    let rows = || {
        let mut rows = Rows::new(["collection", "bucket", "metric", "value"]);
        let value = number(*value, is_text);
        rows.rows.push(vec![collection.as_str().into(), bucket.clone(), metric.as_str().into(), value]);
        rows
    };
    Ok(render::answer(&request, format, !answer.is_partial, json, rows))
}

/// Read the counters of all collections
#[utoipa::path(
    tag = "reading",
    params(
        ("date" = Option<String>, Query, description = "A day; today by default"),
        ("bucket" = Option<String>, Query, description = "A bucket"),
        ("range" = Option<String>, Query, description = "A range of time"),
        ("strings" = Option<bool>, Query, description = "Values as texts"),
    ),
    responses(
        (status = 200, description = "The counters", content(
            (AllCountersBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 304, description = "As it was"),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/counters")]
pub(crate) async fn get_all_counters(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(&request, &[&query::RANGE[..], &["strings"]].concat())?;
    let (format, is_text) = (Format::of(&request)?, params.switch("strings")?);
    let collections = visible(&state, &allowed).await?;
    let answer = state.collector.query(query::of(&state, &params, collections)?).await?;
    let json = || {
        let mut map = about(&answer);
        let (mut values, mut errors) = (Map::new(), Map::new());
        for row in answer.all_rows() {
            let (of, value) = match &row.value {
                Ok(value) => (&mut values, number(*value, is_text)),
                Err(why) => (&mut errors, why.to_string().into()),
            };
            let of = of.entry(row.collection.as_str()).or_insert_with(|| json!({}));
            of.as_object_mut().expect("it was made here").insert(row.name.clone(), value);
        }
        map.insert("collections".to_owned(), values.into());
        if !errors.is_empty() {
            map.insert("errors".to_owned(), errors.into());
        }
        Value::Object(map)
    };
    let rows = || {
        let mut rows = Rows::new(["bucket", "collection", "metric", "value", "error"]);
        for row in answer.all_rows() {
            let [value, error] = cells(&row.value, is_text);
            rows.rows.push(vec![
                when(&answer).1,
                row.collection.as_str().into(),
                row.name.as_str().into(),
                value,
                error,
            ]);
        }
        rows
    };
    Ok(render::answer(&request, format, !answer.is_partial, json, rows))
}

/// List the collections
#[utoipa::path(
    tag = "reading",
    responses(
        (status = 200, description = "The collections that hold a counter", content(
            (CollectionsBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/collections")]
pub(crate) async fn get_collections(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Params::of(&request, &[])?;
    let format = Format::of(&request)?;
    let collections = visible(&state, &allowed).await?;
    let names = || collections.iter().map(|name| Value::from(name.as_str()));
    let rows = || {
        let mut rows = Rows::new(["collection"]);
        rows.rows.extend(names().map(|name| vec![name]));
        rows
    };
    Ok(render::answer(
        &request,
        format,
        false,
        || json!({ "collections": names().collect::<Vec<_>>() }),
        rows,
    ))
}

/// Lists the collections that the sender may read.
async fn visible(state: &State, permission: &Permission) -> Result<Vec<CollectionName>, Problem> {
    let mut collections = state.collector.collections().await?;
    collections.retain(|name| permission.covers(name.as_str()));
    Ok(collections)
}
