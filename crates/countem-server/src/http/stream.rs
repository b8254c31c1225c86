//! Server-sent events of counters that change.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::header::{self, ContentEncoding, HeaderName},
    web::{self, Bytes},
};
use countem::{CollectionName, query::Metrics};
use futures_util::stream;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use super::{
    allowed::{Allowed, Read},
    body::single,
    params::{Params, bad},
    render::number,
};
use crate::{
    auth::Permission,
    problem::{Code, Problem, ProblemBody},
    state::{Phase, State},
    stream::{Change, Position, Wanted},
};

/// Time after which a comment is sent, because proxies cut connections that say nothing.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Milliseconds after which a client connects again.
const RETRY: u32 = 2000;

/// Follow counters of today as they change
///
/// An event has the new values of the counters that changed, at most once a second; the first one has all of them. A client that
/// sends the id of its last event gets what changed since.
#[utoipa::path(
    tag = "reading",
    params(
        ("collection" = Option<Vec<String>>, Query, description = "Only these collections"),
        ("metric" = Option<String>, Query, description = "Only these metrics; `*` is any text, `?` any character"),
        ("strings" = Option<bool>, Query, description = "Values as texts"),
        ("last-event-id" = Option<String>, Header, description = "Continues a stream"),
    ),
    responses(
        (status = 200, description = "Events `counters`", body = String, content_type = "text/event-stream"),
        (status = "4XX", description = "No stream", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "No stream now", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/stream")]
pub(crate) async fn get_stream(
    allowed: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(&request, &["collection", "metric", "strings"])?;
    let mut names = BTreeSet::new();
    for name in params.all("collection") {
        let name = CollectionName::new(name).map_err(|error| Problem::new(Code::BadName, error))?;
        allowed.check(name.as_str())?;
        names.insert(name);
    }
    if names.len() > 100 {
        return Err(bad("a stream has at most 100 collections; leave them out for all"));
    }
    let room = state.streams.clone().try_acquire_owned().map_err(|_| {
        let max = state.server().max_streams;
        Problem::new(Code::Busy, format_args!("{max} streams are open, which is the limit"))
    })?;
    let last = single(&request, &HeaderName::from_static("last-event-id"))?;
    let position = state.changed.position(last.and_then(|last| last.parse().ok()));
    let wanted = if names.is_empty() { Wanted::All } else { Wanted::These(names) };
    let (wanted, looks) = state.changed.open(wanted);
    let events = Events {
        state: state.clone(),
        permission: (*allowed).clone(),
        metrics: params.one("metric")?.map(Metrics::glob),
        is_text: params.switch("strings")?,
        wanted,
        looks,
        position,
        is_new: true,
        _room: room,
    };
    let body = stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Proxies must not hold events back, nor must the compression.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .insert_header(ContentEncoding::Identity)
        .streaming(body))
}

/// An open stream.
struct Events {
    state: web::Data<State>,
    permission: Permission,
    metrics: Option<Metrics>,
    is_text: bool,
    wanted: Arc<Wanted>,
    looks: watch::Receiver<u64>,
    position: Position,
    is_new: bool,
    _room: OwnedSemaphorePermit,
}

impl Events {
    /// Returns the next bytes, `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            // The head of the answer leaves with the first bytes.
            return Some(Bytes::from(format!("retry: {RETRY}\n\n")));
        }
        loop {
            if self.state.phase() >= Phase::Closing {
                return None;
            }
            let (changes, position) = self.state.changed.after(self.position, &self.wanted);
            self.position = position;
            let text: String = changes.iter().filter_map(|change| self.event(change)).collect();
            if !text.is_empty() {
                return Some(text.into());
            }
            match timeout(HEARTBEAT, self.looks.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }

    fn event(&self, change: &Change) -> Option<String> {
        if !self.permission.covers(change.collection.as_str()) {
            return None;
        }
        let is_selected = |metric: &str| self.metrics.as_ref().is_none_or(|metrics| metrics.contains(metric));
        let values = change.values.iter().filter(|(metric, _)| is_selected(metric));
        let values: Map<_, _> =
            values.map(|(metric, n)| (metric.clone(), number(*n, self.is_text))).collect();
        if values.is_empty() {
            return None;
        }
        let collection = change.collection.as_str();
        let data = json!({ "collection": collection, "bucket": change.bucket.to_string(), "counters": Value::Object(values) });
        Some(format!("event: counters\nid: {}\ndata: {data}\n\n", self.position))
    }
}
