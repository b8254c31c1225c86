//! How a store reaches and uses its database.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    time::Duration,
};

use countem_store::{ErrorKind, StoreError};
use mongodb::options::{ClientOptions, ConnectionString, HostInfo};

/// Says where the database is and how it is used.
///
/// ```
/// use std::time::Duration;
/// use countem_store_mongodb::MongoConfig;
///
/// let options = MongoConfig {
///     retention: Some(Duration::from_secs(400 * 24 * 3600)),
///     ..MongoConfig::new("mongodb://counter:secret@db.example/countem")
/// };
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
///
/// The write concern is not among the options: every write waits for a majority of the voting members and for their
/// journals (a standalone: for its journal), because less can lose what was acknowledged. The options `w`, `journal`, `retryWrites`
/// and `readPreference` of the URI have no effect for that reason.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoConfig {
    /// A connection string, `mongodb://…`; with the feature `srv` also `mongodb+srv://…`. Its path names the database,
    /// `countem` where there is none.
    pub uri: String,
    /// About how many metrics one document holds. More make a document slower to update, fewer make more documents.
    /// Default: 256.
    pub metrics_per_document: NonZeroUsize,
    /// Over how many documents the writers of one metric are spread, rounded up to a power of two: for counters that so
    /// many nodes flush at once that one document becomes the bottleneck. Default: 1.
    ///
    /// May differ between nodes and change at any time. A document that is already spread over more stays so.
    pub writer_shards: NonZeroU16,
    /// How long after its end a bucket is kept, at least; `None` keeps it for ever. Default: `None`.
    ///
    /// Applies to documents that are created from now on. The bucket `all` has no end and is always kept.
    pub retention: Option<Duration>,
    /// How long one request may take, its wait for the majority included. Default: 10 seconds.
    pub deadline: Duration,
    /// How long to look for a server that can take a request. An option of the URI goes before. Default: 4 seconds.
    pub server_selection: Duration,
    /// Most connections to each server. An option of the URI goes before. Default: 16.
    pub connections: NonZeroU32,
}

impl MongoConfig {
    /// Returns the defaults for the database at `uri`.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            metrics_per_document: const { NonZeroUsize::new(256).expect("256 is not zero") },
            writer_shards: NonZeroU16::MIN,
            retention: None,
            deadline: Duration::from_secs(10),
            server_selection: Duration::from_secs(4),
            connections: const { NonZeroU32::new(16).expect("16 is not zero") },
        }
    }
}

impl fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uri,
            metrics_per_document,
            writer_shards,
            retention,
            deadline,
            server_selection,
            connections,
        } = self;
        // A URI that is not understood may have its password anywhere.
        let location =
            Location::parse(uri).map_or_else(|_| "(not understood)".to_owned(), |at| at.to_string());
        f.debug_struct("MongoConfig")
            .field("uri", &location)
            .field("metrics_per_document", metrics_per_document)
            .field("writer_shards", writer_shards)
            .field("retention", retention)
            .field("deadline", deadline)
            .field("server_selection", server_selection)
            .field("connections", connections)
            .finish()
    }
}

/// Where the database is, without any secret.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    scheme: &'static str,
    hosts: Vec<String>,
    pub(crate) database: String,
    pub(crate) user: Option<String>,
}

/// The database where the URI names none.
const DATABASE: &str = "countem";

impl Location {
    /// Reads what can be read of `uri` without asking any server.
    pub(crate) fn parse(uri: &str) -> Result<Self, StoreError> {
        let refused =
            |why: &str| StoreError::new(ErrorKind::Refused, format!("cannot use the MongoDB URI: {why}"));
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
        let database = parsed.default_database.unwrap_or_else(|| DATABASE.to_owned());
        if ["admin", "config", "local"].contains(&database.as_str()) {
            return Err(refused(&format!("the database `{database}` belongs to MongoDB itself")));
        }
        let user = parsed.credential.and_then(|credential| credential.username);
        Ok(Self { scheme, hosts, database, user })
    }
}

/// Tells whether the driver's words can be repeated. A password that is not encoded may have been taken for any part of the
/// URI, and its words name the part.
fn is_harmless(uri: &str, message: &str) -> bool {
    let options = uri.split_once('?').map_or("", |(_, options)| options);
    message.contains("scheme") || message.contains("is an invalid option") && !options.contains('@')
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme, self.hosts.join(","), self.database)
    }
}

/// How long a connection may take to be established, and how often an idle server is asked for its state.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection may rest before it is given up. What lies between may forget it without a word, and a request that is
/// sent into the void is in doubt.
const IDLE: Duration = Duration::from_secs(300);

/// Sets what the URI leaves open.
///
/// The driver must not send a write a second time on its own: a request that may be late has to be known as such here.
pub(crate) fn complete(client: &mut ClientOptions, options: &MongoConfig) {
    client.retry_writes = Some(false);
    client.app_name.get_or_insert_with(|| "countem".to_owned());
    client.connect_timeout.get_or_insert(CONNECT);
    client.heartbeat_freq.get_or_insert(CONNECT);
    client.server_selection_timeout.get_or_insert(options.server_selection);
    client.max_pool_size.get_or_insert(options.connections.get());
    client.max_idle_time.get_or_insert(IDLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str) -> String {
        let error = Location::parse(uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        error.to_string()
    }

    #[test]
    fn a_location_names_hosts_and_database_and_no_secret() {
        let at = |uri| Location::parse(uri).unwrap().to_string();
        assert_eq!(at("mongodb://localhost"), "mongodb://localhost:27017/countem");
        assert_eq!(
            at("mongodb://u:hunter2@a:1,b:2/web?replicaSet=rs0&authSource=admin"),
            "mongodb://a:1,b:2/web"
        );
    }

    #[test]
    fn a_wrong_uri_says_what_is_wrong_and_no_secret() {
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
    fn an_srv_uri_names_the_feature_it_needs() {
        assert!(refusal("mongodb+srv://u:p@cluster.example").contains("feature `srv`"));
    }

    #[test]
    fn debug_output_has_no_secret() {
        for uri in ["mongodb://u:hunter2@localhost", "hunter2"] {
            assert!(!format!("{:?}", MongoConfig::new(uri)).contains("hunter2"));
        }
    }
}
