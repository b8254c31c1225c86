//! Corrections of stored counts, and their log.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use countem::{
    Bucket, CollectionName, MetricName,
    corrections::{Correction, CorrectionEntry, CorrectionError},
    query::TimeRange,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    allowed::{Admin, Allowed, Read},
    body,
    params::{Params, bad},
};
use crate::{
    problem::{Code, Problem, ProblemBody},
    state::State,
};

/// A correction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorrectionBody {
    /// add, set, rename, merge or delete.
    kind: String,
    /// The collection.
    collection: String,
    /// The metric to add to or set.
    metric: Option<String>,
    /// The bucket to add to or set in.
    bucket: Option<String>,
    /// The amount to add.
    n: Option<i64>,
    /// The value to set.
    value: Option<i64>,
    /// The metrics to rename, merge or delete; without it, delete removes all.
    metrics: Option<Vec<String>>,
    /// The metric to which they are renamed or merged.
    to: Option<String>,
    /// The range of time, all of it by default.
    range: Option<String>,
    /// The reason, for the log.
    reason: String,
    /// The author, for the log; by default the name of the token.
    author: Option<String>,
}

/// The result of a correction, or of its preview.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CorrectedBody {
    /// The entry in the log.
    #[schema(value_type = Object)]
    correction: Value,
    /// True for a preview.
    dry_run: bool,
    /// The first counters that a preview found, each with bucket, metric, before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    rows: Option<Vec<Value>>,
    /// More counters change than are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// The log of corrections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryBody {
    /// The corrections, the oldest first.
    #[schema(value_type = Vec<Object>)]
    corrections: Vec<Value>,
}

/// Correct stored counts
///
/// With `dry_run` nothing is changed, and the answer shows what would be. Otherwise the correction takes effect exactly once, also if
/// this process is killed in between.
#[utoipa::path(
    tag = "corrections",
    params(("dry_run" = Option<bool>, Query, description = "Show what would be changed")),
    request_body = CorrectionBody,
    responses(
        (status = 200, description = "Corrected, or what would be", body = CorrectedBody),
        (status = "4XX", description = "Nothing was changed", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "See the code", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/corrections")]
pub(crate) async fn correct(
    allowed: Allowed<Admin>,
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(&request, &["dry_run"])?;
    let is_dry = params.switch("dry_run")?;
    if body::media_type(&request)? != "application/json" {
        return Err(Problem::new(Code::UnsupportedMediaType, "`Content-Type` is application/json"));
    }
    let body = body::read(&state, &request, payload).await?;
    let body: CorrectionBody = serde_json::from_slice(&body.bytes).map_err(|error| {
        Problem::new(Code::BadBody, format_args!("the body is no correction: {}", reason(&error)))
    })?;
    allowed.check(&body.collection)?;
    let correction = body.correction()?;
    if is_dry {
        let preview = state.collector.preview_correction(correction).await.map_err(problem)?;
        let rows = preview.rows.iter().map(|row| {
            serde_json::json!({
                "bucket": row.bucket.to_string(), "metric": row.metric, "before": row.before, "after": row.after,
            })
        });
        let (rows, more) = (Some(rows.collect()), Some(preview.has_more));
        return Ok(HttpResponse::Ok().json(CorrectedBody {
            correction: shown(&preview.entry),
            dry_run: true,
            rows,
            more,
        }));
    }
    let author = body.author.as_deref().or(allowed.name()).unwrap_or_default();
    if author.trim().is_empty() {
        return Err(Problem::new(Code::BadBody, "`author` is missing: the log of corrections names one"));
    }
    let corrected = state.collector.correct(correction, author, &body.reason).await.map_err(problem)?;
    let correction = shown(&corrected.entry);
    Ok(HttpResponse::Ok().json(CorrectedBody { correction, dry_run: false, rows: None, more: None }))
}

/// Read the log of corrections
#[utoipa::path(
    tag = "corrections",
    params(("collection" = Option<String>, Query, description = "Only those of a collection")),
    responses(
        (status = 200, description = "The log", body = HistoryBody),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No answer now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/corrections")]
pub(crate) async fn history(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(&request, &["collection"])?;
    let collection = params.one("collection")?.map(CollectionName::new).transpose();
    let collection = collection.map_err(|error| Problem::new(Code::BadName, error))?;
    if let Some(collection) = &collection {
        allowed.check(collection.as_str())?;
    }
    let entries = state.collector.corrections(collection).await.map_err(problem)?;
    let entries = entries.iter().filter(|entry| allowed.covers(&entry.collection));
    Ok(HttpResponse::Ok().json(HistoryBody { corrections: entries.map(shown).collect() }))
}

impl CorrectionBody {
    fn correction(&self) -> Result<Correction, Problem> {
        let collection =
            CollectionName::new(&self.collection).map_err(|error| Problem::new(Code::BadName, error))?;
        let needs = |what: &str| bad(format_args!("a correction of kind `{}` needs `{what}`", self.kind));
        let metric = || name(self.metric.as_deref().ok_or_else(|| needs("metric"))?);
        let bucket = || {
            let text = self.bucket.as_deref().ok_or_else(|| needs("bucket"))?;
            text.parse::<Bucket>().map_err(|error| bad(format_args!("`bucket`: {error}")))
        };
        let metrics =
            || self.metrics.iter().flatten().map(|metric| name(metric)).collect::<Result<Vec<_>, _>>();
        let to = || name(self.to.as_deref().ok_or_else(|| needs("to"))?);
        let range = self.range.as_deref().map(str::parse::<TimeRange>).transpose();
        let range = range.map_err(|error| bad(format_args!("`range`: {error}")))?;
        Ok(match self.kind.as_str() {
            "add" => {
                let n = self.n.ok_or_else(|| needs("n"))?;
                Correction::Add { collection, metric: metric()?, bucket: bucket()?, n }
            }
            "set" => {
                let value = self.value.ok_or_else(|| needs("value"))?;
                Correction::Set { collection, metric: metric()?, bucket: bucket()?, value }
            }
            "rename" => match &metrics()?[..] {
                [from] => Correction::Rename { collection, from: from.clone(), to: to()?, range },
                _ => return Err(bad("to rename, `metrics` has one metric")),
            },
            "merge" => Correction::Merge { collection, from: metrics()?, to: to()?, range },
            "delete" => {
                let metrics = if self.metrics.is_some() { Some(metrics()?) } else { None };
                Correction::Delete { collection, metrics, range }
            }
            _ => return Err(bad("`kind` is add, set, rename, merge or delete")),
        })
    }
}

fn name(text: &str) -> Result<MetricName, Problem> {
    MetricName::new(text).map_err(|error| Problem::new(Code::BadName, error))
}

fn shown(entry: &CorrectionEntry) -> Value {
    let mut value = serde_json::to_value(entry).expect("an entry is always JSON");
    value["finished"] = entry.is_finished.into();
    value
}

/// Returns the words of an error without names of Rust types.
fn reason(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            "it has `kind`, `collection`, `reason` and what the kind needs: texts, and whole numbers for `n` and `value`".to_owned()
        }
        _ => format!("it is no JSON, at line {}, column {}", error.line(), error.column()),
    }
}

fn problem(error: CorrectionError) -> Problem {
    let code = match &error {
        CorrectionError::NotFound(_) => Code::NotFound,
        CorrectionError::Refused(_) => Code::CorrectionRefused,
        CorrectionError::Read(_) => Code::NotExact,
        _ => Code::StoreUnavailable,
    };
    Problem::new(code, error)
}
