//! TLS to the servers: which servers are trusted, and our own certificate. Must not contain a protocol or a URL.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio_rustls::TlsConnector;

/// The protocol that PostgreSQL's clients name in a handshake (ALPN).
const POSTGRESQL: &[u8] = b"postgresql";

/// Where the certificates of trusted authorities are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// In the system's store.
    System,
    /// In a file, and nowhere else.
    File(PathBuf),
}

/// The checks of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the connection is encrypted, but the server is not verified.
    Nothing,
    /// A trusted authority must have signed it.
    Authority,
    /// A trusted authority must have signed it, for the name of the host.
    AuthorityAndName,
}

/// Which servers are trusted, and how we identify ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The checks of the server's certificate.
    pub check: Check,
    /// The trusted authorities.
    pub roots: Roots,
    /// The file of our certificate and its chain, and the file of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A file that can't be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what} in {}: {why}", .file.display())]
pub struct TlsError {
    what: &'static str,
    file: PathBuf,
    why: String,
}

impl TlsError {
    fn new(what: &'static str, file: &Path, why: String) -> Self {
        Self { what, file: file.to_owned(), why }
    }
}

impl Tls {
    /// Reads the files. Each new connection reads them again, so certificates can be replaced without a restart.
    ///
    /// # Errors
    /// A file can't be read, or has no certificate or key that can be used.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier { check: self.check, roots: self.roots()?, algorithms };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3");
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificate, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate)
            .map_err(|why| TlsError::new("the client certificate", certificate, why))?;
        let wrong_key = |why: String| TlsError::new("the key of the client certificate", key, why);
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong_key(error.to_string()))?;
        builder.with_client_auth_cert(chain, secret).map_err(|error| wrong_key(error.to_string()))
    }

    /// As [`Tls::config`], for connections to PostgreSQL.
    ///
    /// # Errors
    /// As [`Tls::config`].
    pub fn config_for_postgresql(&self) -> Result<ClientConfig, TlsError> {
        let mut config = self.config()?;
        config.alpn_protocols = vec![POSTGRESQL.to_vec()];
        Ok(config)
    }

    /// As [`Tls::config`], ready to connect.
    ///
    /// # Errors
    /// As [`Tls::config`].
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        Ok(TlsConnector::from(Arc::new(self.config()?)))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Roots::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Roots::File(file) => {
                let wrong = |why| TlsError::new("the trusted certificates", file, why);
                for certificate in certificates(file).map_err(wrong)? {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
            }
        }
        Ok(roots)
    }
}

/// Returns whether `text` is a name, or an IP address, that a server's certificate may be for.
#[must_use]
pub fn is_server_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error: rustls::pki_types::pem::Error| error.to_string())?;
    if certificates.is_empty() {
        return Err("has no certificate in PEM format".to_owned());
    }
    Ok(certificates)
}

/// Verifies a server's certificate as far as [`Check`] says. The handshake itself is always verified.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check != Check::Nothing {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
            if self.check == Check::AuthorityAndName {
                verify_server_name(&certificate, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
