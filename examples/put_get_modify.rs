//! Stores an object, reads it, edits it, and edits it only if nobody else did. Needs `folio dev` to run.

use folio::client::{Body, Client, ClientOptions, ErrorCode, GetOptions, PutOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::connect(ClientOptions::default()).await?;

    let options = PutOptions { ext: Some("txt".to_owned()), ..PutOptions::default() };
    let written = client.put(Body::bytes("It was a dark night."), options).await?;
    println!("stored as {} on {} machine(s)", written.id, written.copies);

    // The id stays the same through all edits.
    let edited = client.modify(&written.id, Body::bytes("It was a stormy night."), None).await?;
    let object = client.get(&written.id, GetOptions::default()).await?;
    println!("now: {}", String::from_utf8_lossy(&object.bytes(1 << 20).await?));

    // Edit what was read, or not at all: the first version is no longer the current one.
    let late = client.modify(&written.id, Body::bytes("lost?"), Some(written.opver)).await;
    match late {
        Err(error) if error.code == ErrorCode::Precondition => println!("somebody was faster"),
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("an edit of an old version went through"),
    }

    // Read at least what was written, whichever mirror answers.
    let own = GetOptions { min_opver: Some(edited.opver), ..GetOptions::default() };
    client.get(&written.id, own).await?;
    client.delete(&written.id, None).await?;
    client.undelete(&written.id).await?;
    println!("deleted, and back again");
    Ok(())
}
