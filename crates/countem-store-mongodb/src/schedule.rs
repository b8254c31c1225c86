//! The recorded schedules: one document, changed by compare-and-set.
//!
//! `_countem_schedules`: `{_id: "schedules", revision, eras: ["beginning UTC day", …]}`

use countem_core::{Schedules, jiff::Timestamp};
use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{
    RawArrayBuf, RawDocument,
    raw::{CStr, cstr},
    rawdoc,
};

use crate::{
    command::{self, Level},
    connection::Connection,
};

/// MongoDB collection of the one document. No collection has a name that begins like this.
const SCHEDULES: &str = "_countem_schedules";
const ID: &str = "schedules";
const REVISION: &CStr = cstr!("revision");
const ERAS: &CStr = cstr!("eras");

/// Returns the recorded schedules, `None` when none were ever recorded.
pub(crate) async fn read(connection: &Connection) -> Result<Option<Schedules>, StoreError> {
    Ok(read_with_time(connection).await?.map(|(schedules, _)| schedules))
}

/// Does what [`read`] does, and tells the time of the server.
pub(crate) async fn read_with_time(
    connection: &Connection,
) -> Result<Option<(Schedules, Timestamp)>, StoreError> {
    let projection = rawdoc! { ERAS: 1, "now": "$$NOW" };
    let find = command::find(connection, SCHEDULES, Level::Majority, rawdoc! { "_id": ID }, projection);
    let mut recorded = None;
    command::read(connection, SCHEDULES, find, |document| {
        let now = document.get_datetime("now").map_err(|error| refused(error.to_string()))?;
        let now = Timestamp::from_millisecond(now.timestamp_millis());
        let now = now.map_err(|error| refused(error.to_string()))?;
        recorded = parse(document)?.map(|schedules| (schedules, now));
        Ok(())
    })
    .await?;
    Ok(recorded)
}

/// Records `schedules` if the revision before is recorded, and returns what is recorded then, by the majority.
pub(crate) async fn record(connection: &Connection, schedules: &Schedules) -> Result<Schedules, StoreError> {
    let revision = i64::try_from(schedules.revision()).unwrap_or(i64::MAX);
    if revision == 1 {
        // The filter is equality on `_id` only, as in every upsert.
        let create = rawdoc! {
            "q": { "_id": ID },
            "u": { "$setOnInsert": { REVISION: 0_i64, ERAS: [] } },
            "upsert": true,
        };
        command::write_all(connection, "update", SCHEDULES, [create]).await?;
    }
    let text = schedules.to_string();
    let eras: RawArrayBuf = text.lines().collect();
    let change = rawdoc! {
        "q": { "_id": ID, REVISION: revision - 1 },
        "u": { "$set": { REVISION: revision, ERAS: eras } },
    };
    command::write_all(connection, "update", SCHEDULES, [change]).await?;
    // Not by the number of changed documents: a repeated request, or one with a lost reply, changes none.
    let missing = || StoreError::new(ErrorKind::Refused, "there are no schedules yet that could change");
    read(connection).await?.ok_or_else(missing)
}

fn parse(document: &RawDocument) -> Result<Option<Schedules>, StoreError> {
    let eras = document.get_array(ERAS).map_err(|error| refused(error.to_string()))?;
    let mut lines = Vec::new();
    for era in eras {
        let era = era.map_err(|error| refused(error.to_string()))?;
        lines.push(era.as_str().ok_or_else(|| refused("an era is no text".to_owned()))?);
    }
    if lines.is_empty() {
        return Ok(None);
    }
    lines
        .join("\n")
        .parse()
        .map(Some)
        .map_err(|error: countem_core::ScheduleTextError| refused(error.to_string()))
}

fn refused(why: String) -> StoreError {
    StoreError::new(ErrorKind::Refused, format!("`{SCHEDULES}`: {why}"))
}
