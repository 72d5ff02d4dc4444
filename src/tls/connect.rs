//! The calling end: the chain up to our CA and the host of the address are always checked.

use super::explain::explain;
use super::material::{TlsProblem, machines, provider, roots};
use super::names::MachineName;
use super::stream::Stream;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

/// Whom a caller trusts, and what it shows of itself.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl ClientTls {
    /// Trusts the certificates in a PEM file; shows nothing (a client is known by its key).
    ///
    /// # Errors
    /// [`TlsProblem`].
    pub fn of_ca_file(path: &Path) -> Result<Self, TlsProblem> {
        let roots = roots("--ca", path)?;
        Self::new(roots, None).map_err(|error| TlsProblem {
            key: "--ca",
            path: path.to_owned(),
            why: error.to_string(),
            remedy: "give the CA of the cluster in PEM".to_owned(),
        })
    }

    pub(super) fn new(roots: RootCertStore, own: Option<Own>) -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match own {
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with `HOST:PORT` on a connected socket.
    ///
    /// # Errors
    /// What is wrong, in words; the time it takes is bounded by the caller.
    pub async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<Stream> {
        let name = server_name(address)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(TlsStream::Client(stream)))),
            Err(error) => Err(in_words(&error)),
        }
    }

    /// The same for a blocking socket; its timeouts bound the handshake.
    ///
    /// # Errors
    /// As [`ClientTls::connect`].
    pub fn connect_blocking(
        &self,
        mut stream: std::net::TcpStream,
        address: &str,
    ) -> io::Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
        let mut connection = ClientConnection::new(Arc::clone(&self.0), server_name(address)?)
            .map_err(|error| in_words(&io::Error::other(error)))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| in_words(&error))?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

fn in_words(error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "closed during the TLS handshake; does the other end speak TLS?".to_owned()
        }
        _other => explain(error),
    };
    io::Error::new(error.kind(), format!("TLS: {text}"))
}

/// The words for what broke a connection on the way.
#[must_use]
pub fn broken(error: &io::Error) -> String {
    explain(error)
}

/// The name that the certificate must have: the host of the address.
fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("TLS: {host:?} is no host that a certificate could name"),
        )
    })
}

/// The machines that the certificate of a called end names; `None`: plaintext.
#[must_use]
pub fn machines_of(stream: &Stream) -> Option<Vec<MachineName>> {
    match stream {
        Stream::Plain(_) => None,
        Stream::Tls(stream) => {
            let (_, connection) = stream.get_ref();
            Some(machines(connection.peer_certificates()).unwrap_or_default())
        }
    }
}

/// Whether bytes that came instead of an answer begin a record of TLS: an alert or a handshake.
#[must_use]
pub const fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 0x03, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_must_name_the_host_of_the_address() {
        for (address, host) in [
            ("127.0.0.1:7400", "127.0.0.1"),
            ("[::1]:7400", "::1"),
            ("books-1.example:7400", "books-1.example"),
        ] {
            assert_eq!(server_name(address).expect("a host").to_str(), host);
        }
        assert!(server_name("no host:1").is_err() && server_name(":1").is_err());
    }
}
