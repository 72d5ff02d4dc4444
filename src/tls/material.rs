//! The files of `[tls]`, read and checked: what a daemon shows, and whom it trusts.
//!
//! Everything that can be known to be wrong is found here, before a connection is: unreadable files, a key that others
//! may read or that belongs to another certificate, a certificate that has expired, that another CA signed, or that names
//! another machine than ours. Nothing of a key is ever part of an error.

#![allow(
    clippy::disallowed_methods,
    reason = "certificates are read at the start and when they change, never on the way of a request"
)]

use super::connect::ClientTls;
use super::explain::{explain_tls, time};
use super::names::MachineName;
use crate::settings::TlsSettings;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// No file of certificates is longer, bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// A file of `[tls]` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` = {}: {why}; {remedy}", path.display())]
pub struct TlsProblem {
    /// Key of the configuration, or the option of the command.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl TlsProblem {
    fn new(key: &'static str, path: &Path, why: impl ToString, remedy: impl Into<String>) -> Self {
        Self { key, path: path.to_owned(), why: why.to_string(), remedy: remedy.into() }
    }
}

/// What a daemon shows and trusts.
#[derive(Debug)]
pub struct Material {
    /// Of its listeners.
    pub(super) server: Arc<ServerConfig>,
    /// Of its calls; `None` without a CA.
    pub(super) client: Option<ClientTls>,
    /// When its certificate ends, seconds since 1970.
    pub expires_s: u64,
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Material {
    /// Reads and checks the files. `machine`: who a storage is; a tracker is nobody. `now_s`: seconds since 1970.
    ///
    /// # Errors
    /// [`TlsProblem`]: the file, and what to do.
    pub fn load(
        files: &TlsSettings,
        machine: Option<&MachineName>,
        now_s: u64,
    ) -> Result<Self, TlsProblem> {
        let chain = certificates("tls.cert", &files.cert)?;
        let bad = |why: &str, remedy: &str| TlsProblem::new("tls.cert", &files.cert, why, remedy);
        let Some(own) = chain.first() else {
            return Err(bad("no certificate in it", "give the certificate of this machine in PEM"));
        };
        let (names, expires_s) = look_at(own).ok_or_else(|| {
            bad("its first certificate cannot be read", "give an X.509 certificate in PEM")
        })?;
        if expires_s < now_s {
            let why = format!("the certificate has expired on {}", time(expires_s));
            return Err(bad(&why, "renew it"));
        }
        if let Some(machine) = machine
            && !names.contains(machine)
        {
            let shown: Vec<String> = names.iter().map(MachineName::uri).collect();
            let shown = if shown.is_empty() { "no machine".to_owned() } else { shown.join(", ") };
            let uri = machine.uri();
            return Err(TlsProblem::new(
                "tls.cert",
                &files.cert,
                format!("it names {shown}, and this is {uri}"),
                format!("make one with subjectAltName URI:{uri}"),
            ));
        }
        let key = private_key(&files.key)?;
        let roots = files.ca.as_deref().map(|ca| roots("tls.ca", ca)).transpose()?;
        let verifier = match &roots {
            Some(roots) => Some(verifier(roots, files)?),
            None => None,
        };
        if let Some(verifier) = &verifier {
            check_own(&**verifier, &chain, files, machine.is_some(), now_s)?;
        }
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad(&explain_tls(&e), "this is an error of the program"))?;
        let config = match verifier {
            Some(verifier) => config.with_client_cert_verifier(verifier),
            None => config.with_no_client_auth(),
        };
        let mut server = config
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong_pair(&error, files))?;
        server.send_tls13_tickets = 0;
        let client = match roots {
            Some(roots) => {
                let own = Some((chain, key));
                let ca = files.ca.as_deref().unwrap_or(Path::new(""));
                let made = ClientTls::new(roots, own);
                Some(made.map_err(|e| TlsProblem::new("tls.ca", ca, explain_tls(&e), "check it"))?)
            }
            None => None,
        };
        Ok(Self { server: Arc::new(server), client, expires_s })
    }

    /// When it is no longer taken, as RFC 3339.
    #[must_use]
    pub fn expires(&self) -> String {
        time(self.expires_s)
    }
}

fn wrong_pair(error: &Error, files: &TlsSettings) -> TlsProblem {
    match error {
        Error::InconsistentKeys(_) => TlsProblem::new(
            "tls.key",
            &files.key,
            format!("it is not the key of the certificate in {}", files.cert.display()),
            "give the key that the certificate was made for",
        ),
        other => TlsProblem::new(
            "tls.key",
            &files.key,
            explain_tls(other),
            "give an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits and more) key in PEM",
        ),
    }
}

fn verifier(
    roots: &RootCertStore,
    files: &TlsSettings,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let ca = files.ca.as_deref().unwrap_or(Path::new(""));
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsProblem::new("tls.ca", ca, error, "give the CA of the cluster in PEM"))
}

/// Others will look at our certificate with the same CA: they would say no, only later and elsewhere.
fn check_own(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'static>],
    files: &TlsSettings,
    calls: bool,
    now_s: u64,
) -> Result<(), TlsProblem> {
    let Some((own, others)) = chain.split_first() else { return Ok(()) };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
    match verifier.verify_client_cert(own, others, now) {
        Ok(_) => Ok(()),
        // A tracker calls nobody.
        Err(Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        )) if !calls => Ok(()),
        Err(error) => {
            let ca = files.ca.as_deref().unwrap_or(Path::new(""));
            Err(TlsProblem::new(
                "tls.cert",
                &files.cert,
                explain_tls(&error),
                format!("`tls.ca` is {}; give the two that belong together", ca.display()),
            ))
        }
    }
}

/// The certificates of a CA file.
pub(super) fn roots(key: &'static str, path: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|error| {
            TlsProblem::new(key, path, explain_tls(&error), "give the CA of the cluster in PEM")
        })?;
    }
    if roots.is_empty() {
        return Err(TlsProblem::new(
            key,
            path,
            "no certificate in it",
            "give the CA of the cluster in PEM",
        ));
    }
    Ok(roots)
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let bytes = read(key, path, false)?;
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| {
        TlsProblem::new(key, path, format!("it is no PEM: {error}"), "give certificates in PEM")
    })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let bytes = read("tls.key", path, true)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        // What is in the file stays there.
        TlsProblem::new("tls.key", path, "no private key in PEM in it", "give one without password")
    })
}

fn read(key: &'static str, path: &Path, secret: bool) -> Result<Vec<u8>, TlsProblem> {
    let io = |error: std::io::Error| {
        TlsProblem::new(key, path, error, "check that it is there and that this user may read it")
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(TlsProblem::new(key, path, "not a regular file", "name the file itself"));
    }
    let mode = metadata.mode() & 0o7777;
    if secret && mode & 0o177 != 0 {
        let remedy = format!("chmod 600 {}", path.display());
        return Err(TlsProblem::new(
            key,
            path,
            format!("others may read it: it has mode {mode:04o}; allowed: 0600"),
            remedy,
        ));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The machines that a certificate names, and when it ends; `None`: it cannot be read.
fn look_at(certificate: &CertificateDer<'_>) -> Option<(Vec<MachineName>, u64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let mut names = Vec::new();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() else {
            continue;
        };
        names.extend(san.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => MachineName::of_uri(uri),
            _other => None,
        }));
    }
    Some((names, ends))
}

/// The machines that the certificate of the other end names. It was verified before.
pub(super) fn machines(chain: Option<&[CertificateDer<'_>]>) -> Option<Vec<MachineName>> {
    let own = chain?.first()?;
    Some(look_at(own).map(|(names, _)| names).unwrap_or_default())
}
