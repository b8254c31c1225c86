//! Examination of the database: can it be reached and used, and if not, what must be repaired?

use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{Bson, Document, doc, rawdoc};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::WRITERS,
    error::without_effect,
};

/// `$bsonSize`, which the guard of an update uses, came with MongoDB 4.4, which speaks this version of the protocol.
const MIN_WIRE_VERSION: i32 = 9;
/// Actions that an account needs on every collection of the database.
const ACTIONS: [&str; 3] = ["find", "insert", "update"];

/// Checks server, privileges, a read and a write.
///
/// # Errors
/// The database cannot be used; the message says how to repair that.
pub(crate) async fn check(connection: &Connection) -> Result<(), StoreError> {
    check_server(connection).await?;
    check_privileges(connection).await?;
    check_read_and_write(connection).await
}

async fn check_server(connection: &Connection) -> Result<(), StoreError> {
    let hello = run(connection, doc! { "hello": 1 }).await?;
    let version = hello.get_i32("maxWireVersion").unwrap_or_default();
    if version < MIN_WIRE_VERSION {
        return Err(unusable(connection, ErrorKind::Refused, "the server is older than MongoDB 4.4"));
    }
    if !hello.get_bool("isWritablePrimary").unwrap_or(true) {
        let why = format!(
            "`{}` is not the primary; name all members and `replicaSet` in the URI, and no `directConnection`",
            hello.get_str("me").unwrap_or("the server")
        );
        return Err(unusable(connection, ErrorKind::NotApplied, &why));
    }
    Ok(())
}

/// Checks the privileges of the account. A server without access control knows no account.
async fn check_privileges(connection: &Connection) -> Result<(), StoreError> {
    let status = run(connection, doc! { "connectionStatus": 1, "showPrivileges": true }).await?;
    let info = status.get_document("authInfo").cloned().unwrap_or_default();
    let is_empty = |field| info.get_array(field).map_or(true, Vec::is_empty);
    if is_empty("authenticatedUsers") {
        return Ok(());
    }
    let database = &connection.location.database;
    let privileges = info.get_array("authenticatedUserPrivileges").map(Vec::as_slice).unwrap_or_default();
    let privileges: Vec<_> = privileges.iter().filter_map(Bson::as_document).collect();
    let is_allowed = |action| privileges.iter().any(|privilege| allows(privilege, database, action));
    let missing = ACTIONS.into_iter().filter(|action| !is_allowed(action));
    let missing: Vec<_> = missing.map(|action| format!("`{action}`")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let user = connection.location.user.as_deref().unwrap_or("the account");
    let why = format!(
        "`{user}` may not {} in the database `{database}`; grant it the role `readWrite` there",
        missing.join(", ")
    );
    Err(unusable(connection, ErrorKind::Refused, &why))
}

/// Reads, and sends an update that meets no document with the write concern of a batch: that takes a majority.
async fn check_read_and_write(connection: &Connection) -> Result<(), StoreError> {
    let nothing = rawdoc! { "_id": "" };
    let find = command::find(connection, WRITERS, Level::Majority, nothing.clone(), rawdoc! { "_id": 1 });
    command::read(connection, WRITERS, find, |_| Ok(())).await?;
    let update = rawdoc! { "q": nothing, "u": { "$set": { "checked": true } } };
    command::write(connection, "update", WRITERS, [update]).await.map_err(without_effect)?;
    Ok(())
}

async fn run(connection: &Connection, command: Document) -> Result<Document, StoreError> {
    let reply = connection.request(|database| async move { database.run_command(command).await });
    reply.await.map_err(|failure| without_effect(connection.explain("connect", failure)))
}

fn unusable(connection: &Connection, kind: ErrorKind, why: &str) -> StoreError {
    StoreError::new(kind, format!("cannot use `{}`: {why}", connection.at()))
}

/// Tells whether a privilege allows `action` on every collection of `database`.
fn allows(privilege: &Document, database: &str, action: &str) -> bool {
    let Ok(resource) = privilege.get_document("resource") else { return false };
    let is_everything = resource.get_bool("anyResource").unwrap_or(false);
    let covers =
        |field, name: &str| resource.get_str(field).is_ok_and(|text| text.is_empty() || text == name);
    let is_database = covers("db", database) && resource.get_str("collection").is_ok_and(str::is_empty);
    let actions = privilege.get_array("actions").map(Vec::as_slice).unwrap_or_default();
    (is_everything || is_database) && actions.iter().any(|known| known.as_str() == Some(action))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privilege_counts_only_for_the_whole_database() {
        let privilege = |resource: Document| doc! { "resource": resource, "actions": ["find", "insert"] };
        for resource in [
            doc! { "db": "countem", "collection": "" },
            doc! { "db": "", "collection": "" },
            doc! { "anyResource": true },
        ] {
            assert!(allows(&privilege(resource.clone()), "countem", "find"), "{resource}");
            assert!(!allows(&privilege(resource), "countem", "update"));
        }
        for resource in
            [doc! { "db": "other", "collection": "" }, doc! { "db": "countem", "collection": "web" }, doc! {}]
        {
            assert!(!allows(&privilege(resource.clone()), "countem", "find"), "{resource}");
        }
    }
}
