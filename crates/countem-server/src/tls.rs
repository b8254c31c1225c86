//! TLS: certificates from files, which can be read again while the server runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use countem_config::ServerConfig;
use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig as Tls,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

/// The certificate of the server, as it was last read.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

impl Certificate {
    /// Reads the files again; the former certificate stays if they are wrong.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub(crate) fn reload(&self) -> io::Result<()> {
        let read = read_key(&self.chain, &self.key)?;
        *self.current.write() = Arc::new(read);
        Ok(())
    }
}

/// Returns the configuration of TLS, and its certificate; `None` where there is none.
///
/// # Errors
/// A file cannot be read, or they do not belong together.
pub(crate) fn of(config: &ServerConfig) -> io::Result<Option<(Tls, Arc<Certificate>)>> {
    let (chain, key) = match (&config.tls_cert, &config.tls_key) {
        (None, None) if config.tls_client_ca.is_none() => return Ok(None),
        (Some(chain), Some(key)) => (chain, key),
        _ => return Err(other("TLS needs both `server.tls_cert` and `server.tls_key`")),
    };
    let current = RwLock::new(Arc::new(read_key(chain, key)?));
    let certificate = Arc::new(Certificate { chain: chain.clone(), key: key.clone(), current });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = Tls::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(other)?;
    let builder = match &config.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read_certificates(path)? {
                roots.add(authority).map_err(|error| in_file(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(other)?)
        }
    };
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&certificate) as _;
    Ok(Some((builder.with_cert_resolver(resolver), certificate)))
}

fn read_key(chain: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, error))?;
    let certificates = read_certificates(chain)?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(certificates, secret, &provider).map_err(|error| in_file(key, error))
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| in_file(path, error))?;
    let certificates: Vec<_> =
        certificates.collect::<Result<_, _>>().map_err(|error| in_file(path, error))?;
    if certificates.is_empty() {
        return Err(in_file(path, "there is no certificate in it"));
    }
    Ok(certificates)
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> io::Error {
    other(format!("{}: {error}", path.display()))
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
