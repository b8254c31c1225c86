//! Batches of other nodes, passed on to the store of this one.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, post, web};
use countem::store::Batch;
use countem_store_remote::wire;

use super::{
    allowed::{Allowed, Write},
    body::{self, Body},
    params::Params,
    store::{check_batch, on_store},
};
use crate::{
    problem::{Code, Problem, ProblemBody},
    state::State,
};

/// Bytes of a batch that is decoded on the thread that reads requests; a larger one would hold up others.
const SMALL: usize = 128 * 1024;

/// Add a batch of another node
///
/// The batch keeps the identity that its sender gave it, and is added exactly once however often and over however many nodes it comes.
/// The answer is that of the store behind this node.
#[utoipa::path(
    tag = "store",
    params(("journaled" = Option<bool>, Query, description = "The sender's journal keeps what the store cannot add")),
    request_body(content = Vec<u8>, content_type = "application/vnd.countem.batch"),
    responses(
        (status = 200, description = "Everything is stored but the quarantined deltas", body = Object),
        (status = "4XX", description = "Nothing is stored", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "See the code", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/batches")]
pub(crate) async fn post_batch(
    allowed: Allowed<Write>,
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let is_journaled = Params::of(&request, &["journaled"])?.switch("journaled")?;
    if body::media_type(&request)? != wire::BATCH_TYPE {
        let wanted = format_args!("a batch has the content type `{}`", wire::BATCH_TYPE);
        return Err(Problem::new(Code::UnsupportedMediaType, wanted));
    }
    let body = body::read_up_to(&state, &request, payload, wire::MAX_BATCH).await?;
    let batch = decode(body).await?;
    check_batch(&allowed, &batch)?;
    let batch = if is_journaled { batch.journaled() } else { batch };
    let applied =
        on_store(&state, move |node| async move { node.store.apply(&Arc::new(batch)).await }).await?;
    Ok(HttpResponse::Ok().json(wire::Applied::from(applied)))
}

async fn decode(body: Body) -> Result<Batch, Problem> {
    let decode = |body: Body| {
        Batch::decode(&body.bytes)
            .map_err(|error| Problem::new(Code::BadBody, format_args!("this is no batch: {error}")))
    };
    if body.bytes.len() <= SMALL {
        return decode(body);
    }
    web::block(move || decode(body)).await.map_err(|_| Problem::new(Code::Busy, "the server stops"))?
}
