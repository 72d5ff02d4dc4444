//! Stores a file of any size and reads it back in pieces, without ever holding it in memory. Needs `folio dev` to run.
//!
//! ```text
//! cargo run --example streaming -- FILE
//! ```

use folio::client::{Body, Client, ClientOptions, GetOptions, PutOptions};
use std::io::Write;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        anyhow::bail!("usage: streaming FILE");
    };
    let client = Client::connect(ClientOptions::default()).await?;

    // A body made of a path is opened again if a connection breaks half-way; one made of a reader cannot be.
    let body = Body::file(path).on_progress(|sent| {
        print!("\rsent {sent} bytes");
        drop(std::io::stdout().flush());
    });
    let written = client.put(body, PutOptions::default()).await?;
    println!("\n{}", written.id);

    let mut object = client.get(&written.id, GetOptions::default()).await?;
    let (mut pieces, mut longest) = (0, 0);
    while let Some(piece) = object.chunk().await? {
        pieces += 1;
        longest = longest.max(piece.len());
    }
    println!("read {} bytes in {pieces} piece(s) of at most {longest}", object.info.count);
    Ok(())
}
