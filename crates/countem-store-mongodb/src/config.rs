//! Configuration of a store.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    time::Duration,
};

use countem_store::{ErrorKind, StoreError};
use mongodb::options::{ClientOptions, ConnectionString, HostInfo};

/// Configures the connection to a database and its use.
///
/// ```
/// use std::time::Duration;
/// use countem_store_mongodb::MongoConfig;
///
/// let config = MongoConfig {
///     deadline: Duration::from_secs(3),
///     ..MongoConfig::new("mongodb://counter:secret@db.example/countem")
/// };
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
///
/// The write concern cannot be configured: every write waits for a majority of the voting members and for their
/// journals (a standalone: for its journal), because less can lose an acknowledged write. For that reason the options `w`,
/// `journal`, `retryWrites` and `readPreference` of the URI have no effect.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoConfig {
    /// A connection string, `mongodb://…`; with the feature `srv` also `mongodb+srv://…`. Its path names the database,
    /// `countem` where there is none.
    pub uri: String,
    /// Approximate number of metrics in one document. More make a document slower to update, fewer make more documents.
    /// Default: 256.
    pub metrics_per_document: NonZeroUsize,
    /// Number of documents over which the writers of one metric are spread, rounded up to a power of two: for counters
    /// flushed by so many nodes at once that one document becomes the bottleneck. Default: 1.
    ///
    /// May differ between nodes and change at any time. A document that is already spread over more stays so.
    pub writer_shards: NonZeroU16,
    /// Maximum duration of one request, its wait for the majority included. Default: 10 seconds.
    pub deadline: Duration,
    /// Maximum time to find a server that can take a request, within its deadline. The URI has precedence. Default: 4 seconds.
    pub server_selection: Duration,
    /// Maximum number of connections to each server. The URI has precedence. Default: 16.
    pub connections: NonZeroU32,
}

impl MongoConfig {
    /// Returns the default configuration for the database at `uri`.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            metrics_per_document: const { NonZeroUsize::new(256).expect("256 is not zero") },
            writer_shards: NonZeroU16::MIN,
            deadline: Duration::from_secs(10),
            server_selection: Duration::from_secs(4),
            connections: const { NonZeroU32::new(16).expect("16 is not zero") },
        }
    }
}

impl fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, metrics_per_document, writer_shards, deadline, server_selection, connections } = self;
        // A URI that is not understood may have its password anywhere.
        let location =
            Location::parse(uri).map_or_else(|_| "(not understood)".to_owned(), |at| at.to_string());
        f.debug_struct("MongoConfig")
            .field("uri", &location)
            .field("metrics_per_document", metrics_per_document)
            .field("writer_shards", writer_shards)
            .field("deadline", deadline)
            .field("server_selection", server_selection)
            .field("connections", connections)
            .finish()
    }
}

/// Location of the database, without any secret.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    scheme: &'static str,
    hosts: Vec<String>,
    pub(crate) database: String,
    pub(crate) user: Option<String>,
    /// The server of the URI is used whatever its role is.
    pub(crate) is_direct: bool,
}

/// Database of a URI that names none.
const DEFAULT_DATABASE: &str = "countem";

impl Location {
    /// Parses `uri` without contacting a server.
    pub(crate) fn parse(uri: &str) -> Result<Self, StoreError> {
        // Only another address helps.
        let refused =
            |why: &str| StoreError::new(ErrorKind::Unsupported, format!("cannot use the MongoDB URI: {why}"));
        if uri.starts_with("mongodb+srv:") && cfg!(not(feature = "srv")) {
            return Err(refused(
                "`mongodb+srv` is not built in; build with the feature `srv`, or name the hosts",
            ));
        }
        let parsed = ConnectionString::parse(uri).map_err(|error| match *error.kind {
            mongodb::error::ErrorKind::InvalidArgument { ref message, .. } if is_harmless(uri, message) => {
                refused(message)
            }
            _ => refused(
                "it is malformed; expected `mongodb://user:password@host:port/database?option=value`, with `%XX` for \
                 special characters in user and password",
            ),
        })?;
        let (scheme, hosts) = match &parsed.host_info {
            HostInfo::HostIdentifiers(hosts) => ("mongodb", hosts.iter().map(ToString::to_string).collect()),
            #[cfg(feature = "srv")]
            HostInfo::DnsRecord(host) => ("mongodb+srv", vec![host.clone()]),
            _ => return Err(refused("its hosts are not understood")),
        };
        let database = parsed.default_database.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        if ["admin", "config", "local"].contains(&database.as_str()) {
            return Err(refused(&format!("the database `{database}` belongs to MongoDB itself")));
        }
        let user = parsed.credential.and_then(|credential| credential.username);
        let is_direct = parsed.direct_connection == Some(true);
        Ok(Self { scheme, hosts, database, user, is_direct })
    }
}

/// Tells whether the driver's message can be repeated. It names a part of the URI, and a password that is not encoded may have
/// been taken for any part.
fn is_harmless(uri: &str, message: &str) -> bool {
    let options = uri.split_once('?').map_or("", |(_, options)| options);
    message.contains("scheme") || message.contains("is an invalid option") && !options.contains('@')
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme, self.hosts.join(","), self.database)
    }
}

/// Maximum time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two requests for the state of an idle server.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Maximum time for which an idle connection is kept. A firewall may drop it silently, and the next request would be in doubt.
const MAX_IDLE_TIME: Duration = Duration::from_secs(300);

/// Sets the options that the URI leaves open.
///
/// The driver must not send a write a second time on its own: a request that may be late has to be reported as in doubt.
pub(crate) fn complete(client: &mut ClientOptions, config: &MongoConfig) {
    client.retry_writes = Some(false);
    client.app_name.get_or_insert_with(|| "countem".to_owned());
    client.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    client.heartbeat_freq.get_or_insert(HEARTBEAT_INTERVAL);
    let server_selection = client.server_selection_timeout.unwrap_or(config.server_selection);
    client.server_selection_timeout = Some(server_selection.min(config.deadline));
    client.max_pool_size.get_or_insert(config.connections.get());
    client.max_idle_time.get_or_insert(MAX_IDLE_TIME);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str) -> String {
        let error = Location::parse(uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.to_string()
    }

    #[test]
    fn location_names_hosts_and_database_but_no_secret() {
        let at = |uri| Location::parse(uri).unwrap().to_string();
        assert_eq!(at("mongodb://localhost"), "mongodb://localhost:27017/countem");
        assert_eq!(
            at("mongodb://u:hunter2@a:1,b:2/web?replicaSet=rs0&authSource=admin"),
            "mongodb://a:1,b:2/web"
        );
    }

    #[test]
    fn wrong_uri_is_explained_without_its_secret() {
        assert_eq!(
            refusal("mongodb://u:hunter2@localhost/?replicaSte=rs0"),
            "cannot use the MongoDB URI: replicaste is an invalid option. An option with a similar name exists: replicaset"
        );
        assert!(refusal("localhost:27017").contains("scheme"));
        assert!(refusal("mongodb://localhost/admin").contains("`admin` belongs to MongoDB itself"));
        for uri in [
            "mongodb://u:hunter2/x@localhost",
            "mongodb:/u:hunter2@localhost",
            "mongodb://u:hunter2@",
            "mongodb://u:hunter2",
            "mongodb://u:hunter2/x",
            "mongodb://u:?hunter2=x@localhost",
        ] {
            assert!(!refusal(uri).contains("hunter2"), "{}", refusal(uri));
        }
    }

    #[cfg(not(feature = "srv"))]
    #[test]
    fn srv_uri_names_the_feature_it_needs() {
        assert!(refusal("mongodb+srv://u:p@cluster.example").contains("feature `srv`"));
    }

    #[test]
    fn server_selection_ends_within_the_deadline() {
        let selection = |uri: &str, deadline| {
            let parsed = ConnectionString::parse(uri).unwrap();
            let mut options = ClientOptions::builder().build();
            options.server_selection_timeout = parsed.server_selection_timeout;
            let config = MongoConfig { deadline: Duration::from_secs(deadline), ..MongoConfig::new(uri) };
            complete(&mut options, &config);
            options.server_selection_timeout
        };
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(selection("mongodb://a", 10), secs(4));
        assert_eq!(selection("mongodb://a", 2), secs(2));
        assert_eq!(selection("mongodb://a/?serverSelectionTimeoutMS=7000", 10), secs(7));
        assert_eq!(selection("mongodb://a/?serverSelectionTimeoutMS=30000", 10), secs(10));
    }

    #[test]
    fn debug_output_has_no_secret() {
        for uri in ["mongodb://u:hunter2@localhost", "hunter2"] {
            assert!(!format!("{:?}", MongoConfig::new(uri)).contains("hunter2"));
        }
    }
}
