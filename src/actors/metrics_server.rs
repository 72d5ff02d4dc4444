//! `GET /metrics`: the smallest HTTP/1.1 server that a scraper needs.
//!
//! Invariants (P7): a request is at most [`REQUEST_MAX`] bytes and comes within [`PATIENCE`], else the socket is closed;
//! one answer for each connection, then it is closed; at most [`CONNECTIONS_MAX`] at a time; nothing that was asked is
//! looked at but method and path.

use super::acceptor::{Accepted, Acceptor, AcceptorConfig};
use crate::tls::Tls;
use actix::prelude::*;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest request, bytes.
pub const REQUEST_MAX: usize = 8 << 10;
/// How long a request, and reading its answer, may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 16;

/// What one connection too many is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
/// What somebody in plaintext is told where TLS is on.
const SPEAKS_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
this port speaks TLS: scrape it as https, with the CA of the cluster\n";

/// Makes the page. Runs on the control arbiter, so it must never block there.
pub type PageSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String>>> + Send + Sync>;

/// Serves the page of `source` on the control arbiter. Stop it with [`super::acceptor::StopAccepting`].
pub fn start(
    listener: std::net::TcpListener,
    source: PageSource,
    tls: Tls,
    control: &ArbiterHandle,
) -> Addr<Acceptor> {
    // In the middle of a TLS handshake it would be noise.
    let too_many = if tls.is_on() { &[][..] } else { TOO_MANY };
    let config = AcceptorConfig {
        listener,
        name: "metrics",
        max_connections: CONNECTIONS_MAX,
        too_many: bytes::Bytes::from_static(too_many),
    };
    let begin = Box::new(move |accepted| {
        let (source, tls) = (Arc::clone(&source), tls.clone());
        actix::spawn(async move {
            let Accepted { stream, peer, permit } = accepted;
            let served = secure_and_serve(stream, &tls, &source).await;
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a scrape ended early");
            }
            drop(permit);
        });
    });
    Acceptor::start_in_arbiter(control, move |_| Acceptor::new(config, begin))
}

async fn secure_and_serve(
    stream: std::net::TcpStream,
    tls: &Tls,
    source: &PageSource,
) -> std::io::Result<()> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let secured = tls.accept_or_tell(stream, PATIENCE, SPEAKS_TLS).await;
    let (stream, _) = secured.map_err(std::io::Error::other)?;
    serve(stream, source).await
}

/// Answers one request.
///
/// # Errors
/// The socket, or the other end takes too long.
pub async fn serve<S>(mut stream: S, source: &PageSource) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let request = tokio::time::timeout(PATIENCE, read(&mut stream)).await.map_err(late)??;
    let answer = match request.as_deref().map(asked) {
        Some(Asked::Page { body }) => {
            let page = source().await;
            response("200 OK", "text/plain; version=0.0.4; charset=utf-8", &page, body)
        }
        Some(Asked::Nothing) => plain("404 Not Found", "the metrics are at /metrics\n"),
        Some(Asked::Otherwise) => plain("405 Method Not Allowed", "only GET\n"),
        Some(Asked::Nonsense) | None => plain("400 Bad Request", "this is no HTTP request\n"),
    };
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(PATIENCE, written).await.map_err(late)?
}

/// Up to the empty line; `None` if there is none within the limit.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Vec<u8>>> {
    let mut request = Vec::with_capacity(512);
    let mut piece = [0; 1_024];
    while request.len() < REQUEST_MAX {
        let got = stream.read(&mut piece).await?;
        if got == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&piece[..got]);
        if request.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

enum Asked {
    Page { body: bool },
    Nothing,
    Otherwise,
    Nonsense,
}

fn asked(request: &[u8]) -> Asked {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Asked::Nonsense };
    let mut words = line.split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let is_http = version.is_some_and(|version| version.starts_with("HTTP/1."));
    let path = path.map(|path| path.split('?').next().unwrap_or(path));
    match (method, path) {
        _ if !is_http || words.next().is_some() => Asked::Nonsense,
        (Some(method @ ("GET" | "HEAD")), Some("/metrics")) => {
            Asked::Page { body: method == "GET" }
        }
        (Some("GET" | "HEAD"), _) => Asked::Nothing,
        _ => Asked::Otherwise,
    }
}

fn plain(status: &str, text: &str) -> String {
    response(status, "text/plain; charset=utf-8", text, true)
}

fn response(status: &str, kind: &str, text: &str, body: bool) -> String {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    if body { head + text } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let source: PageSource = Arc::new(|| Box::pin(async { "page 1\n".to_owned() }));
        let request = request.to_vec();
        let asking = async move {
            // The server may have answered and gone.
            client.write_all(&request).await.unwrap_or_default();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("an answer");
            answer
        };
        let (answer, served) = tokio::join!(asking, serve(server, &source));
        served.unwrap_or_default();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_page_is_served() {
        let page = ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\npage 1\n"),
            "{page}"
        );
        assert!(page.contains("Content-Length: 7\r\n"), "{page}");
        let head = ask(b"HEAD /metrics HTTP/1.0\r\n\r\n").await;
        assert!(head.contains("Content-Length: 7\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        assert!(ask(b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
        for nonsense in [
            &b"\r\n\r\n"[..],
            b"GET /metrics\r\n\r\n",
            b"\xff\xff\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
        ] {
            assert!(ask(nonsense).await.starts_with("HTTP/1.1 400"), "{nonsense:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_endless_or_silent_request_holds_it() {
        assert!(ask(&vec![b'x'; REQUEST_MAX + 10]).await.starts_with("HTTP/1.1 400"));
        let (client, server) = tokio::io::duplex(64);
        let source: PageSource = Arc::new(|| Box::pin(async { String::new() }));
        let served = serve(server, &source).await;
        assert_eq!(served.expect_err("silence").kind(), std::io::ErrorKind::TimedOut);
        drop(client);
    }
}
