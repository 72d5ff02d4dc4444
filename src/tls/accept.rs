//! The called end: TLS before anything else, and a clear word to whoever comes in plaintext.
//!
//! Invariant (P7): who shakes no hands within the limit is closed; its place among the connections is bounded by the
//! acceptor all the while.

use super::explain::explain;
use super::material::machines;
use super::names::Certified;
use super::stream::Stream;
use super::{Material, Tls};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

/// The first byte of a TLS connection: a record with a handshake.
const HANDSHAKE: u8 = 0x16;
/// How long a word to somebody in plaintext may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum NoTls {
    /// It speaks plaintext. The socket is still whole, with what it sent unread.
    #[error("it speaks no TLS")]
    Plaintext(TcpStream),
    /// It spoke plaintext, and was told so.
    #[error("it speaks no TLS")]
    Told,
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Failed(String),
    /// It took too long.
    #[error("no TLS handshake in time")]
    Late,
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Tls {
    /// Takes an accepted socket: as it is where TLS is off, else with a handshake within `limit`.
    ///
    /// # Errors
    /// [`NoTls`].
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<(Stream, Certified), NoTls> {
        let Some(material) = self.now() else {
            return Ok((Stream::Plain(stream), Certified::NotAsked));
        };
        match tokio::time::timeout(limit, shake_hands(stream, &material)).await {
            Ok(done) => done,
            Err(_) => Err(NoTls::Late),
        }
    }

    /// As [`Tls::accept`]; whoever speaks plaintext is told `farewell`, also who only waits to be spoken to.
    ///
    /// # Errors
    /// [`NoTls`].
    pub async fn accept_or_tell(
        &self,
        stream: TcpStream,
        limit: Duration,
        farewell: &[u8],
    ) -> Result<(Stream, Certified), NoTls> {
        if self.is_on() {
            // Who says nothing at all waits for us, in plaintext.
            match tokio::time::timeout(limit, begins_tls(&stream)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Err(tell(stream, farewell, NoTls::Told).await),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(tell(stream, farewell, NoTls::Late).await),
            }
        }
        self.accept(stream, limit).await
    }
}

async fn tell(mut stream: TcpStream, farewell: &[u8], why: NoTls) -> NoTls {
    let said = async {
        // What it sent must be read, or the system closes with a reset that overtakes the word.
        stream.try_read(&mut [0; 4096]).unwrap_or_default();
        stream.write_all(farewell).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(FAREWELL, said).await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => why,
    }
}

/// Whether the first byte is one of TLS; waits for it.
async fn begins_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE]),
    }
}

async fn shake_hands(stream: TcpStream, material: &Material) -> Result<(Stream, Certified), NoTls> {
    if !begins_tls(&stream).await? {
        return Err(NoTls::Plaintext(stream));
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&material.server));
    let stream = acceptor.accept(stream).await.map_err(|error| NoTls::Failed(explain(&error)))?;
    let certified = match (&material.client, machines(stream.get_ref().1.peer_certificates())) {
        (None, _) => Certified::NotAsked,
        (Some(_), None) => Certified::Nothing,
        (Some(_), Some(machines)) => Certified::Machines(machines),
    };
    Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), certified))
}
