//! A file that only grows, line by line, each line durable before anybody is told.
//!
//! Group commit: while one batch is being synced the next one gathers, so that many jobs share one `fdatasync`. After an
//! error nothing more is accepted (as R9 has it for the store): what the file holds then is no longer known.

use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::Write;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait at most; a job waits for its own, so this only has to exceed the number of jobs.
const QUEUE: usize = 1024;

struct Line {
    text: String,
    done: oneshot::Sender<Result<(), String>>,
}

/// Appends lines durably. Clones append to the same file.
#[derive(Clone)]
pub(super) struct Appender {
    queue: mpsc::Sender<Line>,
}

impl Appender {
    /// Takes an open file whose position is at its end, and a handle of the lock, which is held until the last write
    /// has ended.
    pub(super) fn new(file: File, lock: File) -> Self {
        let (queue, lines) = mpsc::channel(QUEUE);
        tokio::spawn(run(file, lock, lines));
        Self { queue }
    }

    /// Returns when the line is on stable storage.
    pub(super) async fn append(&self, text: String) -> Result<(), String> {
        const GONE: &str = "the file could not be written before";
        let (done, answer) = oneshot::channel();
        self.queue.send(Line { text, done }).await.map_err(|_| GONE.to_owned())?;
        answer.await.unwrap_or_else(|_| Err(GONE.to_owned()))
    }
}

async fn run(mut file: File, mut lock: File, mut lines: mpsc::Receiver<Line>) {
    while let Some(first) = lines.recv().await {
        let mut batch = vec![first];
        while let Ok(line) = lines.try_recv() {
            batch.push(line);
        }
        let mut text = BytesMut::new();
        for line in &batch {
            text.extend_from_slice(line.text.as_bytes());
        }
        let (back, result) = write(file, lock, text.freeze()).await;
        for line in batch {
            // A job that was given up does not wait any more.
            let _gone = line.done.send(result.clone());
        }
        match (back, result) {
            (Some(back), Ok(())) => (file, lock) = back,
            _ => return,
        }
    }
}

async fn write(
    mut file: File,
    lock: File,
    text: Bytes,
) -> (Option<(File, File)>, Result<(), String>) {
    let work = tokio::task::spawn_blocking(move || {
        let result = file.write_all(&text).and_then(|()| file.sync_data());
        ((file, lock), result)
    });
    match work.await {
        Ok((back, result)) => (Some(back), result.map_err(|e| e.to_string())),
        Err(e) => (None, Err(e.to_string())),
    }
}
