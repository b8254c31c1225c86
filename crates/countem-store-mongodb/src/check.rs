//! Whether the database can be reached and used, and what a person has to repair if not.

use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{Bson, Document, doc};

use crate::{
    MongoStore,
    command::{self, Level, Reply, what},
    document::WRITERS,
    error::without_effect,
};

/// `$bsonSize`, which the guard of an update uses, came with MongoDB 4.4, which speaks this version of the protocol.
const OLDEST_WIRE_VERSION: i32 = 9;
/// What an account has to be allowed to do in the database, for every collection.
const ACTIONS: [&str; 3] = ["find", "insert", "update"];

impl MongoStore {
    pub(crate) async fn examine(&self) -> Result<(), StoreError> {
        self.check_server().await?;
        self.check_privileges().await?;
        self.check_read_and_write().await
    }

    async fn check_server(&self) -> Result<(), StoreError> {
        let hello = self.run("connect", doc! { "hello": 1 }).await?;
        let version = hello.get_i32("maxWireVersion").unwrap_or_default();
        if version < OLDEST_WIRE_VERSION {
            return Err(self.refused("the server is older than MongoDB 4.4"));
        }
        if !hello.get_bool("isWritablePrimary").unwrap_or(true) {
            let why = format!(
                "`{}` is not the primary; name all members and `replicaSet` in the URI, and no \
                `directConnection`",
                hello.get_str("me").unwrap_or("the server")
            );
            return Err(StoreError::new(ErrorKind::NotApplied, self.cannot_use(&why)));
        }
        Ok(())
    }

    /// Asks what the account may do. A server without access control knows no account.
    async fn check_privileges(&self) -> Result<(), StoreError> {
        let status = self.run("connect", doc! { "connectionStatus": 1, "showPrivileges": true }).await?;
        let info = status.get_document("authInfo").cloned().unwrap_or_default();
        let is_empty = |field| info.get_array(field).map_or(true, Vec::is_empty);
        if is_empty("authenticatedUsers") {
            return Ok(());
        }
        let database = &self.connection.location.database;
        let privileges = info.get_array("authenticatedUserPrivileges").map(Vec::as_slice).unwrap_or_default();
        let privileges: Vec<_> = privileges.iter().filter_map(Bson::as_document).collect();
        let is_allowed = |action| privileges.iter().any(|privilege| allows(privilege, database, action));
        let missing = ACTIONS.into_iter().filter(|action| !is_allowed(action));
        let missing: Vec<_> = missing.map(|action| format!("`{action}`")).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let user = self.connection.location.user.as_deref().unwrap_or("the account");
        Err(self.refused(&format!(
            "`{user}` may not {} in the database `{database}`; grant it the role `readWrite` there",
            missing.join(", ")
        )))
    }

    /// Reads, and writes nothing with the write concern of a batch: that takes a majority which answers.
    async fn check_read_and_write(&self) -> Result<(), StoreError> {
        let find = command::find(
            WRITERS,
            Level::Majority,
            self.deadline(),
            |filter| filter.string("_id", ""),
            |projection| projection.int32("_id", 1),
        )?;
        self.fetch(WRITERS, find, |_| Ok(())).await?;
        let update = command::update(WRITERS, self.deadline(), 0, [()], |update, ()| {
            update.document("q", |query| query.string("_id", ""));
            update.document("u", |change| change.document("$set", |set| set.boolean("checked", true)));
        })?;
        let reply = command::send(&self.connection, update).await;
        let failed = |failure| without_effect(self.connection.explain(&what("update", WRITERS), failure));
        let reply = reply.map_err(failed)?;
        match Reply::read(&reply) {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::new(
                ErrorKind::NotApplied,
                self.cannot_use("a majority of the replica set does not confirm writes"),
            )),
        }
    }

    async fn run(&self, what: &str, command: Document) -> Result<Document, StoreError> {
        let reply = self.connection.request(|database| async move { database.run_command(command).await });
        reply.await.map_err(|failure| without_effect(self.connection.explain(what, failure)))
    }

    fn refused(&self, why: &str) -> StoreError {
        StoreError::new(ErrorKind::Refused, self.cannot_use(why))
    }

    fn cannot_use(&self, why: &str) -> String {
        format!("cannot use `{}`: {why}", self.connection.at())
    }
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
    fn a_privilege_counts_only_for_the_whole_database() {
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
