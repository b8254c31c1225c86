//! One transaction: reads documents, and changes them by what was read.

use std::time::Duration;

use mongodb::{
    ClientSession, Database,
    bson::{Document, RawArrayBuf, RawDocumentBuf, rawdoc},
    error::{Error, TRANSIENT_TRANSACTION_ERROR},
    options::{Acknowledgment, ReadConcern, WriteConcern},
};

pub(super) struct Request {
    /// Reads the documents.
    pub(super) find: RawDocumentBuf,
    pub(super) collection: String,
    pub(super) deadline: Duration,
}

/// Changes documents by what `plan` makes of them, all or none. Does nothing, and returns `None`, if another process changes one of
/// them meanwhile.
///
/// # Errors
/// The documents may be changed or not.
pub(super) async fn run<T: Send>(
    database: Database,
    request: Request,
    plan: impl FnOnce(&[RawDocumentBuf]) -> (Vec<RawDocumentBuf>, T) + Send,
) -> Result<Option<T>, Error> {
    let mut session = database.client().start_session().await?;
    let majority =
        WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(request.deadline).build();
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(majority)
        .max_commit_time(request.deadline)
        .await?;
    let committed = match change(&database, &mut session, request, plan).await {
        Ok((true, planned)) => session.commit_transaction().await.map(|()| Some(planned)),
        unchanged => {
            // The server ends it by itself if this does not reach it.
            session.abort_transaction().await.ok();
            unchanged.map(|(_, planned)| Some(planned))
        }
    };
    match committed {
        Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
            tracing::debug!(%error, "the documents of a bucket changed meanwhile");
            Ok(None)
        }
        committed => committed,
    }
}

/// Returns true if all changes were made, and what was planned besides.
async fn change<T: Send>(
    database: &Database,
    session: &mut ClientSession,
    request: Request,
    plan: impl FnOnce(&[RawDocumentBuf]) -> (Vec<RawDocumentBuf>, T) + Send,
) -> Result<(bool, T), Error> {
    let mut cursor = database.run_raw_cursor_command(request.find).session(&mut *session).await?;
    let mut documents = Vec::new();
    while cursor.advance(&mut *session).await? {
        documents.push(cursor.current().to_owned());
    }
    let (updates, planned) = plan(&documents);
    if updates.is_empty() {
        return Ok((false, planned));
    }
    let count = updates.len();
    let update =
        rawdoc! { "update": request.collection, "updates": updates.into_iter().collect::<RawArrayBuf>() };
    let reply = database.run_raw_command(update).session(session).await?;
    Ok((matched(&reply) == Some(count) && !reply.contains_key("writeErrors"), planned))
}

fn matched(reply: &Document) -> Option<usize> {
    let n = reply.get_i64("n").or_else(|_| reply.get_i32("n").map(i64::from)).ok()?;
    usize::try_from(n).ok()
}
