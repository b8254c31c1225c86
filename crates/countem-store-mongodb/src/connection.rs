//! The client, and how every request to the server is made.

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
    bson::Document,
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
    pub(crate) options: MongoConfig,
    pub(crate) location: Location,
    at: String,
    current: tokio::sync::Mutex<Option<Current>>,
    servers: Arc<Servers>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    /// How many requests of this client brought no answer in time.
    late: Arc<AtomicU32>,
}

impl Connection {
    /// Understands the options; asks no server.
    ///
    /// # Errors
    /// The URI is malformed, or has an option that does not exist.
    pub(crate) fn new(options: MongoConfig) -> Result<Self, StoreError> {
        let location = Location::parse(&options.uri)?;
        let at = location.to_string();
        Ok(Self { options, location, at, current: tokio::sync::Mutex::default(), servers: Arc::default() })
    }

    /// Returns where the database is, without any secret.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// Asks the database. `ask` runs to its end whatever happens here: a driver's future that is dropped half way leaves its
    /// connection in doubt, and it could not be told whether the server has the request.
    pub(crate) async fn request<T, F>(&self, ask: impl FnOnce(Database) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Current { client, late } = self.client().await.map_err(Failure::NoClient)?;
        let running = tokio::spawn(ask(client.database(&self.location.database)));
        match time::timeout(self.options.deadline, running).await {
            Ok(Ok(Ok(answer))) => {
                self.servers.admitted();
                Ok(answer)
            }
            Ok(Ok(Err(error))) => Err(Failure::Driver(error)),
            Ok(Err(ended)) => Err(Failure::Died { panicked: ended.is_panic() }),
            Err(_) => {
                self.leave_stuck_client(&late).await;
                Err(Failure::Late(self.options.deadline))
            }
        }
    }

    /// Says in one line why `what` failed.
    pub(crate) fn explain(&self, what: &str, failure: Failure) -> StoreError {
        let (servers, login) = (self.servers.describe(), self.servers.login.lock().clone());
        let attempt = Attempt { what, at: &self.at, servers: &servers, login: login.as_deref() };
        failure.into_store_error(attempt)
    }

    /// A request without an answer keeps its connection, perhaps for a quarter of an hour. Before they are all taken, a new client
    /// with connections of its own takes over.
    async fn leave_stuck_client(&self, late: &Arc<AtomicU32>) {
        let stuck = late.fetch_add(1, Ordering::Relaxed) + 1;
        if stuck >= self.options.connections.get().div_ceil(2) {
            let mut current = self.current.lock().await;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.late, late)) {
                *current = None;
            }
        }
    }

    async fn client(&self) -> Result<Current, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(current) = &*current {
            return Ok(current.clone());
        }
        let made = Current { client: self.make_client().await?, late: Arc::default() };
        Ok(current.insert(made).clone())
    }

    async fn make_client(&self) -> Result<Client, StoreError> {
        let uri = self.options.uri.clone();
        // Only `mongodb+srv` asks anybody here: the name server.
        let parsing = tokio::spawn(async move { ClientOptions::parse(uri).await });
        let parsed = match time::timeout(self.options.deadline, parsing).await {
            Ok(Ok(parsed)) => parsed.map_err(Failure::Driver),
            Ok(Err(ended)) => Err(Failure::Died { panicked: ended.is_panic() }),
            Err(_) => Err(Failure::Late(self.options.deadline)),
        };
        let mut options = parsed.map_err(|failure| self.not_connected(failure))?;
        complete(&mut options, &self.options);
        let servers = Arc::clone(&self.servers);
        options.sdam_event_handler = Some(EventHandler::callback(move |event| servers.note(&event)));
        Client::with_options(options).map_err(|error| self.not_connected(Failure::Driver(error)))
    }

    /// Nothing was sent, so nothing is in doubt.
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
        f.debug_struct("Connection").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the servers last said, or why they said nothing: what a person needs when none takes a request.
#[derive(Debug, Default)]
struct Servers {
    states: Mutex<BTreeMap<String, String>>,
    /// Why the last login failed. Heartbeats need no login, so that they succeed says nothing about it; a request does.
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

    fn admitted(&self) {
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
    fn a_server_is_described_by_what_it_says() {
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
