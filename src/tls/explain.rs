//! What an error of a handshake means, in words that say what to do.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use std::io;

/// The words for a broken TLS handshake or stream; other errors keep theirs.
pub(super) fn explain(error: &io::Error) -> String {
    match inner(error) {
        Some(tls) => explain_tls(tls),
        None => error.to_string(),
    }
}

/// The error of TLS in an error of a socket.
pub(super) fn inner(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

pub(super) fn explain_tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(certificate) => of_certificate(certificate),
        Error::InvalidMessage(InvalidMessage::InvalidContentType)
        | Error::InvalidMessage(InvalidMessage::MissingData(_))
        | Error::InvalidMessage(InvalidMessage::MessageTooLarge)
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            "the other end speaks no TLS: leave out the CA (--ca, FOLIO_CA_FILE) or set its [tls]"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the other end refuses our certificate: its `tls.ca` did not sign it".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the other end refuses our certificate: it has expired; renew `tls.cert`".to_owned()
        }
        Error::AlertReceived(alert) => format!("the other end refuses the handshake: {alert:?}"),
        Error::PeerIncompatible(why) => {
            format!("no common version of TLS or ciphers ({why:?}): TLS 1.3 is needed")
        }
        other => other.to_string(),
    }
}

/// What is wrong with a certificate.
pub(super) fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the certificate has expired; renew it".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate has expired on {}; renew it", time(not_after.as_secs()))
        }
        CertificateError::NotValidYet => {
            "the certificate is not valid yet; are the clocks right?".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate is not valid before {}; are the clocks right?",
            time(not_before.as_secs())
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is not signed by the CA that is trusted here".to_owned()
        }
        CertificateError::NotValidForName => {
            "the certificate is not for the host of this address".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate is for {} and not for {}; use an address that it names, or make one \
             that names this address",
            if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") },
            expected.to_str()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not made for this end: it needs the usages serverAuth and \
             clientAuth, or none"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn time(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| seconds.to_string(), |time| time.to_string())
}
