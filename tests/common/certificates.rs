//! A CA of a test, and the certificates that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Paths of a machine's files.
#[derive(Clone, Debug)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl Files {
    /// As keys of a configuration.
    pub fn keys(&self) -> Vec<(String, String)> {
        [("tls.cert", &self.cert), ("tls.key", &self.key), ("tls.ca", &self.ca)]
            .map(|(key, path)| (key.to_owned(), path.display().to_string()))
            .to_vec()
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its certificate.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).expect("written");
    }

    /// Writes certificate and key for hosts and machines (`folio://..`) that end on the first of January of a year.
    pub fn sign(&self, dir: &Path, name: &str, hosts: &[&str], uris: &[&str], ends: i32) -> Files {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(ends, 1, 1);
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
        params.subject_alt_names.extend(uris.iter().map(uri));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |suffix: &str| dir.join(format!("{name}.{suffix}"));
        let files = Files { cert: path("pem"), key: path("key"), ca: dir.join("ca.pem") };
        std::fs::write(&files.cert, certificate.pem()).expect("written");
        write_secret(&files.key, &key.serialize_pem());
        if !files.ca.exists() {
            self.write(&files.ca);
        }
        files
    }
}

/// A file of mode 0600.
pub fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("chmod");
}
