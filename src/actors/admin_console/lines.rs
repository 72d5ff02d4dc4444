//! The line protocol of the console: what a person can type with `nc`.
//!
//! ```text
//! -> status\n
//! <- state: serving\n
//! <- ..dots at the beginning of a line are doubled\n
//! <- .\n                                               the answer ends
//! ```
//! Invariants: a line has at most [`LINE_LEN_MAX`] bytes, and no more are ever kept (P7); `\r\n` is as good as `\n`; a
//! last line without an end counts.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest command line, bytes without its end.
pub const LINE_LEN_MAX: usize = 4096;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Over the limit: the rest cannot be told from the next command, so the connection ends.
    #[error("a line has at most {LINE_LEN_MAX} bytes")]
    TooLong,
    /// Not text. The next line may be.
    #[error("a line must be UTF-8 text")]
    NotText,
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Cuts a stream into lines.
pub struct Lines<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Around a stream.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next line without its end; `None` at the end of the stream. May be dropped while it waits.
    ///
    /// # Errors
    /// [`LineError`].
    pub async fn next(&mut self) -> Result<Option<String>, LineError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                if end > LINE_LEN_MAX + 1 {
                    return Err(LineError::TooLong);
                }
                let line = self.buffer.split_to(end + 1);
                return text(&line[..end]).map(Some);
            }
            if self.buffer.len() > LINE_LEN_MAX {
                return Err(LineError::TooLong);
            }
            self.buffer.reserve(512);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let rest = self.buffer.split();
                return if rest.is_empty() { Ok(None) } else { text(&rest).map(Some) };
            }
        }
    }

    /// The stream, to write to.
    pub const fn stream(&mut self) -> &mut R {
        &mut self.stream
    }
}

fn text(line: &[u8]) -> Result<String, LineError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_LEN_MAX {
        return Err(LineError::TooLong);
    }
    String::from_utf8(line.to_vec()).map_err(|_| LineError::NotText)
}

/// An answer as it is sent: dots at the beginning of lines doubled, the end marked.
#[must_use]
pub fn seal(answer: &str) -> String {
    let mut out = String::with_capacity(answer.len() + 8);
    for line in answer.lines() {
        if line.starts_with('.') {
            out.push('.');
        }
        out.push_str(line);
        out.push('\n');
    }
    out.push_str(".\n");
    out
}

/// What the other end makes of one line of an answer: `None` is the end of it.
#[must_use]
pub fn unseal(line: &str) -> Option<&str> {
    if line == "." { None } else { Some(line.strip_prefix('.').unwrap_or(line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Result<String, String>> {
        let mut lines = Lines::new(bytes);
        let mut out = Vec::new();
        loop {
            match lines.next().await {
                Ok(None) => return out,
                Ok(Some(line)) => out.push(Ok(line)),
                Err(LineError::NotText) => out.push(Err("not text".to_owned())),
                Err(error) => {
                    out.push(Err(error.to_string()));
                    return out;
                }
            }
        }
    }

    #[actix_rt::test]
    async fn lines_end_as_people_end_them() {
        let got = all(b"status\r\n\nmounts json\nlast").await;
        let want: Vec<_> = ["status", "", "mounts json", "last"].map(|l| Ok(l.to_owned())).into();
        assert_eq!(got, want);
    }

    #[actix_rt::test]
    async fn an_endless_line_is_not_kept() {
        let fits = "x".repeat(LINE_LEN_MAX);
        assert_eq!(all(format!("{fits}\r\n").as_bytes()).await, [Ok(fits.clone())]);
        let long = all(format!("{fits}y\nstatus\n").as_bytes()).await;
        assert_eq!(long, [Err(LineError::TooLong.to_string())]);
        assert!(all(&vec![b'x'; 1 << 20]).await[0].is_err());
    }

    #[actix_rt::test]
    async fn bytes_that_are_no_text_are_refused_and_the_next_line_is_read() {
        let got = all(b"\xff\xfe\nstatus\n").await;
        assert_eq!(got, [Err("not text".to_owned()), Ok("status".to_owned())]);
    }

    #[test]
    fn a_line_of_one_dot_never_ends_an_answer_early() {
        let answer = ".\n..\n.x\nplain\n";
        let sealed = seal(answer);
        let mut got = String::new();
        let mut ended = 0;
        for line in sealed.lines() {
            match unseal(line) {
                Some(line) => got.push_str(&format!("{line}\n")),
                None => ended += 1,
            }
        }
        assert_eq!((got.as_str(), ended), (answer, 1));
        assert!(sealed.ends_with("\n.\n"));
    }
}
