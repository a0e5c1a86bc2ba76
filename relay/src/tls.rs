//! TLS by certificate files, which are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at. Renewals come days before the old certificate ends.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why there is no TLS. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or has no such thing in it.
    #[error("{path} cannot be used as {what}: {source}.")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{path} contains no certificate; it begins with -----BEGIN CERTIFICATE-----.")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("The certificate {cert} and the key {key} do not work together: {source}.")]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The two files, and what they were when last read.
#[derive(Debug)]
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    seen: [Option<SystemTime>; 2],
}

impl Files {
    /// Names the files.
    pub fn new(cert: &Path, key: &Path) -> Self {
        Self { cert: cert.to_owned(), key: key.to_owned(), seen: [None, None] }
    }

    /// Reads both files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn read(&mut self) -> Result<Arc<ServerConfig>, TlsError> {
        self.seen = self.times();
        let pem = |what, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Pem { what, path, source }
        };
        let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.cert)
            .map_err(pem("a certificate", &self.cert))?
            .collect::<Result<_, _>>()
            .map_err(pem("a certificate", &self.cert))?;
        if certs.is_empty() {
            return Err(TlsError::Empty { path: self.cert.clone() });
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(pem("a private key", &self.key))?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .map_err(|source| TlsError::Pair { cert: self.cert.clone(), key: self.key.clone(), source })?;
        // WebSockets need HTTP/1.1; pages are few files, so a second protocol gains little.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again if one has changed, or if `is_forced`, and takes them into use if they fit together.
    pub fn refresh(&mut self, tls: &RustlsConfig, is_forced: bool) {
        if !is_forced && self.times() == self.seen {
            return;
        }
        match self.read() {
            Ok(config) => {
                tls.reload_from_config(config);
                tracing::info!("the TLS certificate was read again");
            }
            Err(error) => {
                tracing::error!(error = %error, "the new TLS certificate is not usable; the old one stays")
            }
        }
    }

    fn times(&self) -> [Option<SystemTime>; 2] {
        [&self.cert, &self.key].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
    }
}
