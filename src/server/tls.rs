//! TLS on the public listener.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;

use super::StartError;

/// Reads the certificate and its key.
///
/// # Errors
/// [`StartError::Tls`], naming the file.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, StartError> {
    let wrong_certificate = |reason: String| failure("server.tls.certificate", &config.certificate, reason);
    let wrong_key = |reason: String| failure("server.tls.private_key", &config.private_key, reason);
    let chain = CertificateDer::pem_file_iter(&config.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong_certificate("holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&config.private_key).map_err(|error| wrong_key(error.to_string()))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong_key(format!("does not fit the certificate: {error}")))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn failure(setting: &'static str, path: &Path, reason: String) -> StartError {
    StartError::Tls { setting, path: path.to_owned(), reason }
}
