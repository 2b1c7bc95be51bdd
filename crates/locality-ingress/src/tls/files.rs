//! Certificate, key and client authorities from files, which may change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How often the files are read. Certificates are renewed long before they expire.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Paths of the PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of the gateways' client certificates. Without them any client is served.
    pub client_authorities: Option<PathBuf>,
}

/// Why gateways cannot be served over TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only some of the files are given.
    #[error("failed to set up TLS: a file is given for {given}, but none for {missing}")]
    HalfConfigured {
        /// The given file.
        given: &'static str,
        /// The missing file.
        missing: &'static str,
    },
    /// Both files and plain text are asked for.
    #[error("failed to set up TLS: certificate files and plain text exclude each other")]
    Contradiction,
    /// A file that cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without the expected PEM block.
    #[error("failed to find {what} in {}", path.display())]
    Pem {
        /// The expected block.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// Certificate and key do not match, or cannot be used.
    #[error("failed to use {} with its key", path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("failed to use the authorities in {}", path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// The cause.
        source: VerifierBuilderError,
    },
}

impl TlsFiles {
    /// The files given by the operator; `None` if none is given.
    ///
    /// # Errors
    /// [`TlsError::HalfConfigured`]: TLS must not be off because one file is missing.
    pub fn given(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_authorities: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        const CERTIFICATE: &str = "the certificate";
        const KEY: &str = "its key";
        const AUTHORITIES: &str = "the gateways' authorities";
        let half = |given, missing| Err(TlsError::HalfConfigured { given, missing });
        match (certificate, key, client_authorities) {
            (Some(certificate), Some(key), client_authorities) => Ok(Some(Self { certificate, key, client_authorities })),
            (Some(_), None, _) => half(CERTIFICATE, KEY),
            (None, Some(_), _) => half(KEY, CERTIFICATE),
            (None, None, Some(_)) => half(AUTHORITIES, CERTIFICATE),
            (None, None, None) => Ok(None),
        }
    }
}

/// A configuration with certificates that are not in files. `what` names them in errors.
///
/// # Errors
/// [`TlsError`] if they cannot be used.
pub(crate) fn config_of(what: &str, certificate: &str, key: &str, client_authorities: &str) -> Result<ServerConfig, TlsError> {
    let name = || PathBuf::from(what);
    let files = TlsFiles { certificate: name(), key: name(), client_authorities: Some(name()) };
    let contents =
        Contents { certificate: certificate.into(), key: key.into(), client_authorities: Some(client_authorities.into()) };
    server_config(&files, &contents)
}

/// The TLS configuration from files.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    contents: Contents,
    current: watch::Sender<Arc<ServerConfig>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] where they cannot be read or used.
    pub async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = read(&files).await?;
        let current = watch::Sender::new(Arc::new(server_config(&files, &contents)?));
        Ok(Self { files, contents, current })
    }

    /// The configuration for new connections.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Reloads changed files until the stop. If they cannot be used, the previous configuration
    /// stays and the failure is logged.
    pub async fn follow(mut self, metrics: Metrics, stop: CancellationToken) {
        let mut complained = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            match self.look().await {
                Ok(changed) => {
                    if changed {
                        tracing::info!(certificate = %self.files.certificate.display(), "loaded a new server certificate");
                    }
                    complained = None;
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    metrics.tls_failures.inc();
                    // The same error is logged once.
                    if complained.as_ref() != Some(&error) {
                        tracing::error!(error, "failed to load a new server certificate, keeping the previous one");
                        complained = Some(error);
                    }
                }
            }
        }
    }

    /// Reads the files. Returns whether they changed.
    async fn look(&mut self) -> Result<bool, TlsError> {
        let contents = read(&self.files).await?;
        if contents == self.contents {
            return Ok(false);
        }
        self.current.send_replace(Arc::new(server_config(&self.files, &contents)?));
        self.contents = contents;
        Ok(true)
    }
}

async fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
    Ok(Contents {
        certificate: read_one(&files.certificate).await?,
        key: read_one(&files.key).await?,
        client_authorities: match &files.client_authorities {
            Some(path) => Some(read_one(path).await?),
            None => None,
        },
    })
}

async fn read_one(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn server_config(files: &TlsFiles, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let unusable = |source| TlsError::Certificate { path: files.certificate.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(unusable)?;
    let builder = match (&files.client_authorities, &contents.client_authorities) {
        (Some(path), Some(text)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, text)? {
                let unusable = |source| TlsError::Certificate { path: path.clone(), source };
                roots.add(authority).map_err(unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|source| TlsError::Authorities { path: path.clone(), source })?)
        }
        _ => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(&contents.key);
    let key = key.map_err(|source| TlsError::Pem { what: "a key", path: files.key.clone(), source })?;
    let chain = certificates(&files.certificate, &contents.certificate)?;
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { what: "a certificate", path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(wrong)?;
    if all.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn half_of_it_is_an_error_and_nothing_is_none() {
        let file = || Some(PathBuf::from("x"));
        assert_eq!(TlsFiles::given(None, None, None).unwrap(), None);
        assert!(TlsFiles::given(file(), file(), None).unwrap().is_some());
        for (certificate, key, authorities) in
            [(file(), None, None), (None, file(), None), (None, None, file()), (None, file(), file()), (file(), None, file())]
        {
            let error = TlsFiles::given(certificate, key, authorities).unwrap_err();
            assert!(error.to_string().starts_with("failed to set up TLS: a file is given for"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_changes_nothing_and_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let make = || rcgen::generate_simple_self_signed(["x.example".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let certificate = write(folder.path(), "tls.crt", &one.cert.pem());
        let key = write(folder.path(), "tls.key", &one.signing_key.serialize_pem());
        let files =
            TlsFiles { certificate: certificate.clone(), key: key.clone(), client_authorities: Some(certificate.clone()) };
        let mut tls = ServerTls::load(files.clone()).await.unwrap();
        let mut current = tls.watch();
        current.mark_unchanged();
        assert!(!tls.look().await.unwrap());
        // Only half of the new pair is there yet.
        write(folder.path(), "tls.crt", &other.cert.pem());
        let error = tls.look().await.unwrap_err();
        assert!(matches!(error, TlsError::Certificate { .. }), "{error:?}");
        assert!(error.to_string().contains("tls.crt"), "{error}");
        assert!(!current.has_changed().unwrap());
        write(folder.path(), "tls.key", &other.signing_key.serialize_pem());
        assert!(tls.look().await.unwrap());
        assert!(current.has_changed().unwrap());
        write(folder.path(), "tls.key", "nothing");
        assert!(matches!(tls.look().await.unwrap_err(), TlsError::Pem { what: "a key", .. }));
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(ServerTls::load(files).await.unwrap_err(), TlsError::Read { .. }));
    }
}
