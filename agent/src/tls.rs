//! Whom the agent trusts: the system's certificate authorities and those that the user names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Trusted certificate authorities.
#[derive(Clone, Debug)]
pub struct Trust {
    certificates: Vec<CertificateDer<'static>>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that the user named.
    #[error(
        "The certificate file {path} cannot be used: {reason}. Name a PEM file with certificates (extra_ca)."
    )]
    Extra {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Trust {
    /// Reads the system's certificates and the extra ones. A system without any is no error: a relay on this machine needs none.
    ///
    /// # Errors
    /// [`TrustError`] when an extra file is missing or has no certificate.
    pub fn load(extra: &[PathBuf]) -> Result<Self, TrustError> {
        let mut certificates = rustls_native_certs::load_native_certs().certs;
        for path in extra {
            certificates.extend(read_pem(path)?);
        }
        Ok(Self { certificates })
    }

    /// The configuration of a TLS client.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        // Systems ship a few certificates that no parser takes; the others count.
        roots.add_parsable_certificates(self.certificates.iter().cloned());
        Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    /// The same trust for the HTTP client.
    pub fn http_config(&self) -> ureq::tls::TlsConfig {
        let certificates: Vec<_> = self
            .certificates
            .iter()
            .map(|certificate| ureq::tls::Certificate::from_der(certificate.as_ref()).to_owned())
            .collect();
        ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::Rustls)
            .root_certs(ureq::tls::RootCerts::new_with_certs(&certificates))
            .build()
    }
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let failed = |reason: String| TrustError::Extra { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    let mut probe = rustls::RootCertStore::empty();
    match probe.add_parsable_certificates(certificates.iter().cloned()) {
        (0, _) => Err(failed("it holds no certificate".to_owned())),
        (_, 0) => Ok(certificates),
        (_, bad) => Err(failed(format!("{bad} of its certificates cannot be read"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_extra_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ca.pem");
        assert!(Trust::load(std::slice::from_ref(&path)).unwrap_err().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(Trust::load(&[path]).unwrap_err().to_string().contains("no certificate"));
    }
}
