//! The calls of a store, for other nodes and the command line.
//!
//! Each runs on the runtime of the engine, and to its end also when its sender has gone: that is the contract of a store.

use std::{convert::Infallible, future::Future, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, post, web};
use countem::{
    corrections::Corrections,
    engine::{ReadError, Source},
    store::{Batch, ErrorKind, Registration, Release, Released, RowQuery, Select, Store, StoreError},
};
use countem_core::BucketRange;
use countem_store_remote::wire::{self, Call, Text};
use futures_util::stream;
use tokio::sync::Semaphore;

use super::{body, params::bad};
use crate::{
    auth::{Permission, tokens::Role},
    problem::{Code, Problem, ProblemBody},
    state::State,
};

/// The store of this node, and what it has pending besides.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) store: Arc<dyn Store>,
    source: Arc<dyn Source>,
}

/// Number of answers with whole collections that are made at the same time: they are held in memory until they are sent.
const MAX_WHOLE: usize = 4;

static WHOLE: Semaphore = Semaphore::const_new(MAX_WHOLE);

/// Call a method of the store
///
/// For other nodes and the command line; programs find the same in the other paths of this API. The body and the answer depend on the call.
#[utoipa::path(
    tag = "store",
    params(("call" = String, Path, description = "Name of the call, such as `collections`")),
    request_body(content = Object),
    responses(
        (status = 200, description = "The answer of the store", body = Object),
        (status = "4XX", description = "Nothing was done", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "See the code", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/store/{call}")]
pub(crate) async fn call_store(
    permission: Permission,
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    macro_rules! one_of {
        ($($call:ty),* $(,)?) => {
            match name.as_str() {
                wire::Read::NAME => read(&permission, &state, &request, payload).await,
                $(<$call>::NAME => answer::<$call>(&permission, &state, &request, payload).await,)*
                _ => Err(Problem::new(Code::NotFound, "a store has no such call")),
            }
        };
    }
    one_of!(
        wire::Forget,
        wire::Register,
        wire::Remembers,
        wire::Retire,
        wire::RetirePredecessors,
        wire::Collections,
        wire::Extent,
        wire::ListQuarantined,
        wire::Release,
        wire::Marks,
        wire::Claim,
        wire::ReadSchedules,
        wire::RecordSchedules,
        wire::RemoveZeros,
        wire::Check,
        wire::Verify,
    )
}

/// A call that is answered here.
trait Serve: Call {
    /// Role that the token needs; any that counts or reads for `None`.
    const ROLE: Option<Role>;

    /// # Errors
    /// The call is about a collection that the token is not for, or about all.
    fn check(&self, permission: &Permission) -> Result<(), Problem> {
        let _ = permission;
        Ok(())
    }

    fn serve(self, node: Node) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;

    /// Leaves what concerns the collections of the token.
    fn restrict(answer: &mut Self::Answer, permission: &Permission) {
        let _ = (answer, permission);
    }
}

async fn answer<C: Serve>(
    permission: &Permission,
    state: &web::Data<State>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let call: C = parse(permission, C::ROLE, state, request, payload).await?;
    call.check(permission)?;
    let mut answer = on_store(state, |node| call.serve(node)).await?;
    C::restrict(&mut answer, permission);
    Ok(HttpResponse::Ok().json(answer))
}

/// Checks the role, and only then reads the body.
async fn parse<C: Call>(
    permission: &Permission,
    role: Option<Role>,
    state: &web::Data<State>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<C, Problem> {
    if let Some(role) = role {
        permission.check_role(role)?;
    }
    let body = body::read_up_to(state, request, payload, wire::MAX_CALL).await?;
    serde_json::from_slice(&body.bytes)
        .map_err(|error| Problem::new(Code::BadBody, format_args!("the call: {error}")))
}

/// Answers with counters, line by line.
async fn read(
    permission: &Permission,
    state: &web::Data<State>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let call: wire::Read = parse(permission, Some(Role::Read), state, request, payload).await?;
    let query = RowQuery::try_from(call.query).map_err(|error| Problem::new(Code::BadBody, error))?;
    permission.check(query.collection.as_str())?;
    let in_flight = call.in_flight.as_deref().map(in_flight).transpose()?;
    let permit = match query.select {
        Select::All => Some(WHOLE.acquire().await.expect("the semaphore is never closed")),
        _ => None,
    };
    let is_pending = call.with_pending && in_flight.is_none();
    let rows = on_store(state, move |node| async move {
        match is_pending {
            true => node.source.rows(&query).await.map_err(of_read),
            false => node.store.read(&query, in_flight.as_ref()).await,
        }
    })
    .await?;
    let count: usize = rows.values().map(|counters| counters.len()).sum();
    if count > wire::MAX_COUNTERS {
        let most = wire::MAX_COUNTERS;
        let why = format!(
            "the answer has {count} counters, more than {most}: ask for a shorter range, or for pages"
        );
        return Err(Problem::new(Code::AnswerTooLarge, why));
    }
    let lines = wire::RowLines::new(rows).map(move |chunk| {
        // Held until the last line is written.
        let _ = &permit;
        Ok::<_, Infallible>(web::Bytes::from(chunk))
    });
    Ok(HttpResponse::Ok().content_type(wire::ROWS_TYPE).streaming(stream::iter(lines)))
}

fn in_flight(digits: &str) -> Result<Batch, Problem> {
    let batch = wire::from_hex(digits).and_then(|bytes| Batch::decode(&bytes).ok());
    batch.ok_or_else(|| bad("`in_flight` is no batch in hexadecimal digits"))
}

/// # Errors
/// The batch adds to a collection that the token is not for, or moves a mark that it may not move.
pub(crate) fn check_batch(permission: &Permission, batch: &Batch) -> Result<(), Problem> {
    let mut checked = "";
    for group in batch.groups().filter(|_| !permission.covers_all()) {
        if group.collection() != checked {
            checked = group.collection();
            permission.check(checked)?;
        }
    }
    match batch.mark() {
        None => Ok(()),
        Some(mark) if Corrections::owns_mark(&mark.key) => permission.check_role(Role::Admin),
        Some(_) => permission.check_all(),
    }
}

/// Calls the store on the runtime of the engine.
///
/// # Errors
/// What the store says. The call goes on when the future is dropped.
pub(crate) async fn on_store<T: Send + 'static, F>(
    state: &State,
    call: impl FnOnce(Node) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let engine = state.collector.engine();
    let node = Node { store: Arc::clone(&state.store), source: Arc::clone(engine.reader().source()) };
    let called = engine.runtime().spawn(call(node)).await;
    let called = called.unwrap_or_else(|error| {
        Err(StoreError::new(ErrorKind::InDoubt, "the call ended without an answer").with_source(error))
    });
    called.map_err(|error| of_store(&error))
}

/// Returns the problem of an error of a store: its code tells another node what is known.
fn of_store(error: &StoreError) -> Problem {
    let code = match error.kind() {
        ErrorKind::NotApplied => Code::StoreUnavailable,
        ErrorKind::InDoubt => Code::InDoubt,
        ErrorKind::Unsupported => Code::Unsupported,
        ErrorKind::Conflict => Code::MarkMoved,
        _ => Code::StoreRefused,
    };
    Problem::new(code, error)
}

fn of_read(error: ReadError) -> StoreError {
    match error {
        ReadError::Store(error) => error,
        ReadError::Closed => StoreError::new(ErrorKind::NotApplied, "the server stops"),
        error => StoreError::new(ErrorKind::Refused, error.to_string()),
    }
}

macro_rules! serve {
    ($call:ident, $role:expr, $(check |$self:ident, $permission:ident| $check:expr,)? $(restrict |$answer:ident, $by:ident| $restrict:expr,)?
     |$own:ident, $node:ident| $serve:expr) => {
        impl Serve for wire::$call {
            const ROLE: Option<Role> = $role;
            $(fn check(&self, $permission: &Permission) -> Result<(), Problem> {
                let $self = self;
                $check
            })?
            async fn serve(self, $node: Node) -> Result<Self::Answer, StoreError> {
                let $own = self;
                $serve
            }
            $(fn restrict($answer: &mut Self::Answer, $by: &Permission) {
                $restrict
            })?
        }
    };
}

serve!(Forget, Some(Role::Write), |call, node| {
    node.store.forget(&call.writer.0).await.map(|()| wire::Done {})
});
serve!(Register, Some(Role::Write), |call, node| {
    Ok(match node.store.register(&call.writer.0).await? {
        Registration::Fresh => wire::Registered::Fresh,
        Registration::Cloned => wire::Registered::Cloned,
    })
});
serve!(Remembers, None, |call, node| node.store.remembers(&call.writer.0).await);
serve!(Retire, Some(Role::Write), |call, node| {
    node.store.retire(&call.writer.0).await.map(|()| wire::Done {})
});
serve!(RetirePredecessors, Some(Role::Write), |call, node| {
    node.store.retire_predecessors(&call.writer.0).await.map(|()| wire::Done {})
});
serve!(
    Collections,
    Some(Role::Read),
    restrict | names,
    permission | names.retain(|name| permission.covers(name.0.as_str())),
    |call, node| {
        let names = match call.with_pending {
            true => node.source.collections().await.map_err(of_read)?,
            false => node.store.collections().await?,
        };
        Ok(names.into_iter().map(Text).collect())
    }
);
serve!(
    Extent,
    Some(Role::Read),
    check | call,
    permission | {
        let is_range = BucketRange::new(call.first.0, call.last.0).is_some();
        let permitted = permission.check(call.collection.0.as_str());
        permitted.and_then(|()| {
            is_range.then_some(()).ok_or_else(|| Problem::new(Code::BadBody, wire::RangeError))
        })
    },
    |call, node| {
        let Some(range) = BucketRange::new(call.first.0, call.last.0) else { return Ok(None) };
        let found = match call.with_pending {
            true => node.source.extent(&call.collection.0, range).await.map_err(of_read)?,
            false => node.store.extent(&call.collection.0, range).await?,
        };
        Ok(found.map(|range| (Text(range.first()), Text(range.last()))))
    }
);
serve!(
    ListQuarantined,
    Some(Role::Read),
    restrict | held,
    permission | held.retain(|held| permission.covers(&held.delta.collection)),
    |_call, node| Ok(node.store.quarantined().await?.into_iter().map(wire::Held::from).collect())
);
serve!(
    Release,
    Some(Role::Admin),
    check | call,
    permission | permission.check(&call.held.delta.collection),
    |call, node| {
        let release = if call.retry { Release::Retry } else { Release::Drop };
        Ok(match node.store.release(&call.held.into(), release).await? {
            Released::Done => wire::Released::Done,
            Released::Kept(why) => wire::Released::Kept(why),
            Released::Gone => wire::Released::Gone,
        })
    }
);
serve!(Marks, None, check | _call, permission | permission.check_all(), |call, node| node
    .store
    .marks(&call.prefix)
    .await);
serve!(
    Claim,
    Some(Role::Write),
    check | call,
    permission | {
        for claim in &call.claims {
            let claim = claim
                .decode()
                .ok_or_else(|| Problem::new(Code::BadBody, "the call: a claim is malformed"))?;
            claim.batch.iter().try_for_each(|batch| check_batch(permission, batch))?;
        }
        Ok(())
    },
    |call, node| {
        let claims: Vec<_> = call.claims.iter().filter_map(wire::KeyClaim::decode).collect();
        let claimed = node.store.claim(&claims, call.now.0).await?;
        Ok(claimed.into_iter().map(wire::Claimed::from).collect())
    }
);
serve!(ReadSchedules, None, |_call, node| Ok(node.store.schedules().await?.map(Text)));
serve!(
    RecordSchedules,
    Some(Role::Admin),
    check | _call,
    permission | permission.check_all(),
    |call, node| Ok(Text(node.store.record_schedules(&call.schedules.0).await?))
);
serve!(
    RemoveZeros,
    Some(Role::Admin),
    check | call,
    permission | permission.check(call.collection.0.as_str()),
    |call, node| {
        let counters: Vec<_> =
            call.counters.into_iter().map(|(bucket, metric)| (bucket.0, metric.0)).collect();
        node.store.remove_zeros(&call.collection.0, &counters).await
    }
);
serve!(Check, None, |_call, node| node.store.check().await.map(|()| wire::Done {}));
serve!(Verify, Some(Role::Read), check | _call, permission | permission.check_all(), |_call, node| node
    .store
    .verify()
    .await);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_codes_of_the_wire() {
        for kind in [
            ErrorKind::NotApplied,
            ErrorKind::InDoubt,
            ErrorKind::Refused,
            ErrorKind::Unsupported,
            ErrorKind::Conflict,
        ] {
            let problem = of_store(&StoreError::new(kind, "a reason"));
            assert_eq!(problem.code().name(), wire::code_of(kind));
        }
        // What a client that knows no more than the wire makes of every other code.
        for code in Code::ALL {
            let is_before = !matches!(code, Code::InDoubt | Code::Internal);
            assert_eq!(wire::kind_of(code.name()) != ErrorKind::InDoubt, is_before, "{code:?}");
        }
    }
}
