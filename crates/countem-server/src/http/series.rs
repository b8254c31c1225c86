//! Reading over time, and the largest counters.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, get, web};
use countem::query::TimeRange;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    allowed::{Allowed, Read},
    answer::{about, add_rest, change, name_cells, name_columns, name_of, when},
    params::{Params, bad, collection_in},
    query,
    render::{self, Amount, Format, Rows, cells, number},
};
use crate::{
    problem::{Problem, ProblemBody},
    state::State,
};

/// Counters over time.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct SeriesBody {
    collection: String,
    step: String,
    range: Option<String>,
    bucket: Option<String>,
    partial: Option<bool>,
    /// Each with `metric` or `labels`, and `points`: pairs of bucket and value.
    series: Vec<BTreeMap<String, serde_json::Value>>,
    errors: Option<BTreeMap<String, String>>,
    next: Option<String>,
}

/// The largest counters.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is answered")]
pub(crate) struct TopBody {
    collection: String,
    range: Option<String>,
    bucket: Option<String>,
    partial: Option<bool>,
    /// The range of the comparison.
    earlier: Option<String>,
    /// The sum of all selected counters, also those that are not in `top`.
    total: Option<Amount>,
    /// Each with `metric` or `labels`, `value` and perhaps `earlier` and `change`.
    top: Vec<BTreeMap<String, serde_json::Value>>,
    errors: Option<BTreeMap<String, String>>,
}

/// Read counters over time
#[utoipa::path(
    tag = "reading",
    params(
        ("collection" = String, Path, description = "The collection"),
        ("range" = Option<String>, Query, description = "A range of time; 30d by default"),
        ("from" = Option<String>, Query, description = "The beginning of the range, with `to`"),
        ("to" = Option<String>, Query, description = "The end of the range, which is in it; now by default"),
        ("step" = Option<String>, Query, description = "Period of the points: day, or the finer one that the range speaks of"),
        ("fill" = Option<String>, Query, description = "Points without a count: zero, none or gap"),
        ("metric" = Option<String>, Query, description = "Only these metrics; `*` is any text"),
        ("matching" = Option<String>, Query, description = "Only metrics that match a regular expression"),
        ("under" = Option<String>, Query, description = "Only this metric and those below it"),
        ("where" = Option<Vec<String>>, Query, description = "Only metrics with such a label"),
        ("by" = Option<Vec<String>>, Query, description = "Add up metrics with the same value of a label"),
        ("level" = Option<u32>, Query, description = "Add up metrics with the same first levels"),
        ("separator" = Option<String>, Query, description = "Text between two levels"),
        ("sum" = Option<bool>, Query, description = "Add up all"),
        ("order" = Option<String>, Query, description = "name or value"),
        ("limit" = Option<u32>, Query, description = "At most so many metrics"),
        ("cursor" = Option<String>, Query, description = "Continues an answer"),
        ("strings" = Option<bool>, Query, description = "Values as texts"),
    ),
    responses(
        (status = 200, description = "The series", content(
            (SeriesBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 304, description = "As it was"),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/series/{collection}")]
pub(crate) async fn get_series(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let collection = collection_in(&request, "/series/")?;
    allowed.check(collection.as_str())?;
    let own = ["from", "to", "order", "reverse", "limit", "cursor"];
    let known = [&query::SELECT[..], &query::RANGE, &query::GROUP, &query::POINTS, &own].concat();
    let (params, format) = (Params::of(&request, &known)?, Format::of(&request)?);
    let is_text = params.switch("strings")?;
    let asked = query::of(&state, &params, vec![collection.clone()])?;
    let asked = query::with_points(&params, asked, range_of_series(&state, &params)?)?;
    let answer = state.collector.query(asked).await?;
    let json = || {
        let mut map = about(&answer);
        map.insert("collection".to_owned(), collection.as_str().into());
        map.insert("step".to_owned(), answer.step.map_or(Value::Null, |step| step.name().into()));
        let point = |value: &Option<countem::store::Value>| match value {
            Some(Ok(value)) => number(*value, is_text),
            _ => Value::Null,
        };
        let series = answer.rows.iter().map(|row| {
            let mut map = name_of(row);
            let points = row.points.iter().map(|(bucket, value)| json!([bucket.to_string(), point(value)]));
            map.insert("points".to_owned(), points.collect());
            Value::Object(map)
        });
        map.insert("series".to_owned(), series.collect());
        add_rest(&mut map, &answer);
        Value::Object(map)
    };
    let rows = || {
        let names = name_columns(&answer);
        let columns = std::iter::once("collection".to_owned()).chain(names.clone());
        let mut rows = Rows::new(columns.chain(["bucket", "value", "error"].map(str::to_owned)));
        for row in &answer.rows {
            for (bucket, value) in &row.points {
                let mut cell = vec![collection.as_str().into()];
                cell.extend(name_cells(row, &names));
                cell.push(bucket.to_string().into());
                cell.extend(value.as_ref().map_or([Value::Null, Value::Null], |value| cells(value, is_text)));
                rows.rows.push(cell);
            }
        }
        rows
    };
    Ok(render::answer(&request, format, !answer.is_partial, json, rows))
}

/// Returns the range of `range`, or of `from` and `to`.
fn range_of_series(state: &State, params: &Params) -> Result<TimeRange, Problem> {
    let (from, to) = (params.one("from")?, params.one("to")?);
    let given = query::range(state, params)?;
    let text = match (given, from, to) {
        (Some(range), None, None) => return Ok(range),
        (None, None, None) => "30d".to_owned(),
        (None, Some(from), to) => format!("{from}..{}", to.unwrap_or_default()),
        (None, None, Some(_)) => return Err(bad("`to` needs `from`")),
        (Some(_), ..) => return Err(bad("`from` and `to` take the place of `range`")),
    };
    text.parse().map_err(|error| bad(format_args!("`from` and `to`: {error}")))
}

/// Read the largest counters
#[utoipa::path(
    tag = "reading",
    params(
        ("collection" = String, Path, description = "The collection"),
        ("date" = Option<String>, Query, description = "A day; today by default"),
        ("bucket" = Option<String>, Query, description = "A bucket"),
        ("range" = Option<String>, Query, description = "A range of time"),
        ("limit" = Option<u32>, Query, description = "At most so many; 10 by default"),
        ("order" = Option<String>, Query, description = "value, name or change"),
        ("reverse" = Option<bool>, Query, description = "The other way round"),
        ("compare" = Option<String>, Query, description = "With an earlier range: previous or weekdays"),
        ("metric" = Option<String>, Query, description = "Only these metrics; `*` is any text"),
        ("matching" = Option<String>, Query, description = "Only metrics that match a regular expression"),
        ("under" = Option<String>, Query, description = "Only this metric and those below it"),
        ("where" = Option<Vec<String>>, Query, description = "Only metrics with such a label"),
        ("by" = Option<Vec<String>>, Query, description = "Add up metrics with the same value of a label"),
        ("level" = Option<u32>, Query, description = "Add up metrics with the same first levels"),
        ("separator" = Option<String>, Query, description = "Text between two levels"),
        ("sum" = Option<bool>, Query, description = "Add up all"),
        ("strings" = Option<bool>, Query, description = "Values as texts"),
    ),
    responses(
        (status = 200, description = "The ranking", content(
            (TopBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 304, description = "As it was"),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/top/{collection}")]
pub(crate) async fn get_top(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let collection = collection_in(&request, "/top/")?;
    allowed.check(collection.as_str())?;
    let known = [&query::SELECT[..], &query::RANGE, &query::GROUP, &query::ROWS].concat();
    let (params, format) = (Params::of(&request, &known)?, Format::of(&request)?);
    let is_text = params.switch("strings")?;
    let mut asked = query::of(&state, &params, vec![collection.clone()])?;
    if params.one("order")?.is_none() {
        asked = asked.order(countem::query::Order::Value);
    }
    if params.one("limit")?.is_none() {
        asked = asked.limit(10);
    }
    let answer = state.collector.query(asked).await?;
    let json = || {
        let mut map = about(&answer);
        map.insert("collection".to_owned(), collection.as_str().into());
        if let Some(earlier) = answer.earlier {
            map.insert("earlier".to_owned(), earlier.to_string().into());
        }
        if let Some(Ok(total)) = answer.total {
            map.insert("total".to_owned(), number(total, is_text));
        }
        let top = answer.readable().map(|(row, value)| {
            let mut map = name_of(row);
            map.insert("value".to_owned(), number(value, is_text));
            if let Some(Ok(earlier)) = row.earlier {
                map.insert("earlier".to_owned(), number(earlier, is_text));
            }
            if let Some(change) = change(row, is_text) {
                map.insert("change".to_owned(), change);
            }
            Value::Object(map)
        });
        map.insert("top".to_owned(), top.collect());
        add_rest(&mut map, &answer);
        Value::Object(map)
    };
    let rows = || {
        let names = name_columns(&answer);
        let columns = ["collection", "bucket"].map(str::to_owned).into_iter().chain(names.clone());
        let mut rows = Rows::new(columns.chain(["value", "earlier", "change", "error"].map(str::to_owned)));
        for row in answer.all_rows() {
            let mut cell = vec![collection.as_str().into(), when(&answer).1];
            cell.extend(name_cells(row, &names));
            let [value, error] = cells(&row.value, is_text);
            let earlier = row.earlier.as_ref().and_then(|earlier| earlier.as_ref().ok());
            cell.extend([value, earlier.map_or(Value::Null, |earlier| number(*earlier, is_text))]);
            cell.extend([change(row, is_text).unwrap_or(Value::Null), error]);
            rows.rows.push(cell);
        }
        rows
    };
    Ok(render::answer(&request, format, !answer.is_partial, json, rows))
}
