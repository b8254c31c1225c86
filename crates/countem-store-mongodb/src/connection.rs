//! The client, and the deadline of every request to the server.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use countem_store::{ErrorKind, StoreError};
use mongodb::{
    Client, Database,
    bson::{Document, doc, oid::ObjectId},
    error::Error,
    event::{EventHandler, sdam::SdamEvent},
    options::{ClientOptions, ServerAddress},
};
use parking_lot::Mutex;
use tokio::time;

use crate::{
    MongoConfig,
    config::{Location, complete},
    error::{Attempt, Failure},
};

/// Makes requests to one database, each with a deadline.
///
/// A client of the driver belongs to the runtime on which it was made, so there is none before the first request.
pub(crate) struct Connection {
    pub(crate) config: MongoConfig,
    pub(crate) location: Location,
    at: String,
    current: tokio::sync::Mutex<Option<Current>>,
    servers: Arc<Servers>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    /// Number of requests of this client that brought no answer within the deadline.
    unanswered: Arc<AtomicU32>,
}

impl Connection {
    /// Parses the configuration; contacts no server.
    ///
    /// # Errors
    /// The URI is malformed, or has an option that does not exist.
    pub(crate) fn new(config: MongoConfig) -> Result<Self, StoreError> {
        let location = Location::parse(&config.uri)?;
        let at = location.to_string();
        Ok(Self { config, location, at, current: tokio::sync::Mutex::default(), servers: Arc::default() })
    }

    /// Returns the location of the database, without any secret.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// Makes a request, bounded by the deadline.
    ///
    /// # Cancel safety
    /// `send` runs to its end in a task of its own, even after the deadline or a cancellation: a driver's future that is dropped
    /// half way leaves its connection in an unknown state.
    pub(crate) async fn request<T, F>(&self, send: impl FnOnce(Database) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Current { client, unanswered } = self.client().await.map_err(Failure::NoClient)?;
        let running = tokio::spawn(send(client.database(&self.location.database)));
        match time::timeout(self.config.deadline, running).await {
            Ok(Ok(Ok(answer))) => {
                self.servers.login_succeeded();
                Ok(answer)
            }
            Ok(Ok(Err(error))) => Err(Failure::Driver(error)),
            Ok(Err(ended)) => Err(Failure::TaskEnded { panicked: ended.is_panic() }),
            Err(_) => {
                self.count_unanswered(&unanswered).await;
                Err(Failure::TimedOut(self.config.deadline))
            }
        }
    }

    /// Returns the term of the primary to which the connection is bound, `None` for a connection that finds the primary itself.
    /// A direct connection lets a secondary answer reads, with numbers of the past: its term is compared before and after.
    ///
    /// # Errors
    /// The server is not the primary.
    pub(crate) async fn direct_term(&self) -> Result<Option<ObjectId>, Failure> {
        if !self.location.is_direct {
            return Ok(None);
        }
        let hello =
            self.request(|database| async move { database.run_command(doc! { "hello": 1 }).await }).await?;
        if hello.get_bool("isWritablePrimary").unwrap_or(true) {
            Ok(hello.get_object_id("electionId").ok())
        } else {
            Err(Failure::NotPrimary)
        }
    }

    /// Describes in one line why `action` failed.
    pub(crate) fn explain(&self, action: &str, failure: Failure) -> StoreError {
        let (servers, login) = (self.servers.describe(), self.servers.login.lock().clone());
        let attempt = Attempt { action, at: &self.at, servers: &servers, login: login.as_deref() };
        failure.into_store_error(attempt)
    }

    /// Returns an error of `action` for a reason that the server gave in a reply.
    pub(crate) fn failed(&self, kind: ErrorKind, action: &str, why: &str) -> StoreError {
        StoreError::new(kind, format!("cannot {action} at `{}`: {why}", self.at))
    }

    /// Replaces the client before unanswered requests hold all its connections, each perhaps for a quarter of an hour.
    async fn count_unanswered(&self, unanswered: &Arc<AtomicU32>) {
        let count = unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        if count >= self.config.connections.get().div_ceil(2) {
            let mut current = self.current.lock().await;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.unanswered, unanswered)) {
                *current = None;
            }
        }
    }

    async fn client(&self) -> Result<Current, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(current) = &*current {
            return Ok(current.clone());
        }
        let made = Current { client: self.make_client().await?, unanswered: Arc::default() };
        Ok(current.insert(made).clone())
    }

    async fn make_client(&self) -> Result<Client, StoreError> {
        let uri = self.config.uri.clone();
        // Contacts only the name server, and only for `mongodb+srv`.
        let parsing = tokio::spawn(async move { ClientOptions::parse(uri).await });
        let parsed = match time::timeout(self.config.deadline, parsing).await {
            Ok(Ok(parsed)) => parsed.map_err(Failure::Driver),
            Ok(Err(ended)) => Err(Failure::TaskEnded { panicked: ended.is_panic() }),
            Err(_) => Err(Failure::TimedOut(self.config.deadline)),
        };
        let mut options = parsed.map_err(|failure| self.not_connected(failure))?;
        complete(&mut options, &self.config);
        let servers = Arc::clone(&self.servers);
        options.sdam_event_handler = Some(EventHandler::callback(move |event| servers.note(&event)));
        Client::with_options(options).map_err(|error| self.not_connected(Failure::Driver(error)))
    }

    /// Describes a failure to make a client: nothing was sent, so nothing is in doubt.
    fn not_connected(&self, failure: Failure) -> StoreError {
        let error = self.explain("connect", failure);
        match error.kind() {
            ErrorKind::Refused => error,
            _ => StoreError::new(ErrorKind::NotApplied, error.to_string()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's own output has the password.
        f.debug_struct("Connection").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Last known state of each server, for the error of a request that no server takes.
#[derive(Debug, Default)]
struct Servers {
    states: Mutex<BTreeMap<String, String>>,
    /// Reason of the last failed login, until a request succeeds. Heartbeats need no login and say nothing about it.
    login: Mutex<Option<String>>,
}

impl Servers {
    fn note(&self, event: &SdamEvent) {
        match event {
            SdamEvent::ServerHeartbeatSucceeded(answered) => {
                self.states.lock().insert(answered.server_address.to_string(), role(&answered.reply));
            }
            SdamEvent::ServerHeartbeatFailed(failed) => self.failed(&failed.server_address, &failed.failure),
            SdamEvent::ServerDescriptionChanged(changed) => {
                if let Some(error) = changed.new_description.error() {
                    self.failed(&changed.address, error);
                }
            }
            _ => {}
        }
    }

    fn failed(&self, address: &ServerAddress, error: &Error) {
        match &*error.kind {
            mongodb::error::ErrorKind::Authentication { message, .. } => {
                *self.login.lock() = Some(message.clone());
            }
            mongodb::error::ErrorKind::Io(cause) => {
                self.states.lock().insert(address.to_string(), format!("does not answer ({cause})"));
            }
            // The server answered, if only to say that it is going away; the next heartbeat tells its role.
            _ => {}
        }
    }

    fn login_succeeded(&self) {
        *self.login.lock() = None;
    }

    /// Describes all servers in one line.
    fn describe(&self) -> String {
        let states = self.states.lock();
        let each: Vec<_> = states.iter().map(|(address, state)| format!("`{address}` {state}")).collect();
        each.join("; ")
    }
}

fn role(hello: &Document) -> String {
    let is = |field| hello.get_bool(field).unwrap_or(false);
    let primary = is("isWritablePrimary") || is("ismaster");
    match hello.get_str("setName") {
        Ok(set) if primary => format!("is the primary of replica set `{set}`"),
        Ok(set) if is("secondary") => format!("is a secondary of replica set `{set}`"),
        Ok(set) => format!("is not ready in replica set `{set}`"),
        Err(_) if is("isreplicaset") => "waits for its replica set to be initiated".to_owned(),
        Err(_) if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") => "is a router".to_owned(),
        Err(_) => "is a standalone, no member of a replica set".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn server_is_described_by_its_reply() {
        assert_eq!(role(&doc! { "isWritablePrimary": true }), "is a standalone, no member of a replica set");
        assert_eq!(
            role(&doc! { "isWritablePrimary": true, "setName": "rs0" }),
            "is the primary of replica set `rs0`"
        );
        assert_eq!(
            role(&doc! { "secondary": true, "setName": "rs0" }),
            "is a secondary of replica set `rs0`"
        );
        assert_eq!(role(&doc! { "isreplicaset": true }), "waits for its replica set to be initiated");
    }
}
