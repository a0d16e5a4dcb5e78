//! TLS as the web configuration has it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

use crate::config::web_config::{ClientCertificates, TlsSettings, TlsVersion};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("no {content} in {}: {source}", path.display())]
    NotPem {
        path: PathBuf,
        content: &'static str,
        source: pem::Error,
    },
    #[error("cannot use the certificate {} with the key {}: {source}", cert.display(), key.display())]
    Unusable {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("cannot verify clients with {}: {source}", path.display())]
    Authority {
        path: PathBuf,
        source: AuthorityError,
    },
    #[error("unknown or unsupported cipher suite {name:?}, expected {expected}")]
    Suite { name: String, expected: String },
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

/// Reads certificates and keys.
pub(super) fn server_config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(&settings.cipher_suites)?);
    let unusable = |source| TlsError::Unusable {
        cert: settings.cert_file.clone(),
        key: settings.key_file.clone(),
        source,
    };
    let certificates = certificates(&settings.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key_file)
        .map_err(|error| pem_error(&settings.key_file, "private key", error))?;
    let versions: Vec<_> = settings.versions.iter().copied().map(version).collect();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(unusable)?;
    let builder = match &settings.clients {
        ClientCertificates::NotRequested => builder.with_no_client_auth(),
        ClientCertificates::Optional { ca_file } | ClientCertificates::Required { ca_file } => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(authority(ca_file)?),
                provider,
            );
            let verifier = match &settings.clients {
                ClientCertificates::Optional { .. } => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|error| TlsError::Authority {
                path: ca_file.clone(),
                source: error.into(),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    config.ignore_client_order = settings.prefers_own_suites;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn version(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::Tls12 => &TLS12,
        TlsVersion::Tls13 => &TLS13,
    }
}

/// All suites of TLS 1.3, which Go does not let anyone choose either, and of TLS 1.2 those named, or all.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
    let is_new = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
    let known: Vec<_> = provider.cipher_suites.iter().map(name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(TlsError::Suite {
            name: unknown.clone(),
            expected: known.join(", "),
        });
    }
    if !names.is_empty() {
        let suites = &mut provider.cipher_suites;
        suites.retain(|suite| is_new(suite) || names.contains(&name(suite)));
    }
    Ok(provider)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |error| pem_error(path, "certificate", error);
    let found = CertificateDer::pem_file_iter(path).map_err(error)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(error)?;
    match found.is_empty() {
        true => Err(error(pem::Error::NoItemsFound)),
        false => Ok(found),
    }
}

fn authority(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority {
                path: path.to_owned(),
                source: error.into(),
            })?;
    }
    Ok(roots)
}

fn pem_error(path: &Path, content: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Unreadable { path, source },
        source => TlsError::NotPem {
            path,
            content,
            source,
        },
    }
}
