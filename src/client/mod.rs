//! The client library: a cluster as one object store. Needs tokio, nothing else.
//!
//! ```no_run
//! # async fn example() -> folio::client::Result<()> {
//! use folio::client::{Body, Client, ClientOptions, GetOptions, PutOptions};
//!
//! let client = Client::connect(ClientOptions::default()).await?;
//! let written = client.put(Body::bytes("chapter one"), PutOptions::default()).await?;
//! client.modify(&written.id, Body::bytes("chapter one, edited"), None).await?;
//! let object = client.get(&written.id, GetOptions::default()).await?;
//! assert_eq!(object.bytes(1 << 20).await?, "chapter one, edited");
//! # Ok(())
//! # }
//! ```
//!
//! The way of a request: `mutate` and `read` say what is asked, `drive` chooses the node by the cached cluster
//! view (`views`) and tries again, `pool` has the connections, `connection` pipelines.
//!
//! What a caller may rely on:
//! - A mutation is done once however often it is tried (R2). If it is not known whether it was done the error is
//!   `UnknownOutcome`. Dropping the future of a mutation does not undo it.
//! - All bytes of an object are of one version, and checked (P2).
//! - Trackers are needed for the first view only; while all of them are down the client goes on with what it knows.
//! - A streamed body is never held in memory beyond the window (4 MiB) and one piece.

mod body;
mod connection;
mod drive;
mod error;
mod flow;
mod mutate;
mod object;
mod options;
mod outbox;
mod pinned;
mod pool;
mod random;
mod read;
mod survey;
mod tokens;
mod views;
mod write_end;

pub use body::Body;
pub(crate) use error::io_remedy;
pub use error::{Error, Result};
pub use mutate::Written;
pub use object::{Object, ObjectInfo};
pub use options::{ClientOptions, GetOptions, PutOptions};
pub use pinned::{Lease, Pinned, Place};
pub use read::Stat;
pub use survey::{Df, DfStorage, ListStream, Listed};

pub use crate::messages::error::ErrorCode;
pub use crate::messages::heads::Reserve;

use crate::cluster::view::ClusterView;
use crate::format::file_id::{FileId, is_ext};
use crate::format::ids::{MachineId, Tag};
use drive::{Driver, Nowhere};
use mutate::{Change, Mutate};
use pool::{Credentials, Pool};
use read::{Look, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokens::Tokens;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use views::Views;

/// Pause between two rounds over the trackers while none has answered yet.
const FIRST_VIEW_PAUSE: Duration = Duration::from_millis(100);

/// A client of one cluster. Clones share connections, view and tokens.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    driver: Arc<Driver>,
    tokens: Arc<Tokens>,
    /// Counts the puts, for the policy; begins anywhere.
    turn: AtomicU64,
    refresher: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl Client {
    /// Connects: waits until a tracker has told the cluster view, at most `timeout`.
    ///
    /// # Errors
    /// `Unavailable` if no tracker answered, `Unauthorized` or `Version` if one refused.
    pub async fn connect(options: ClientOptions) -> Result<Self> {
        let instance = random::bytes::<16>()?;
        let credentials = Credentials::new(options.keys.as_ref(), options.tls, instance);
        let pool = Arc::new(Pool::new(credentials, options.connections_per_node));
        let views = Arc::new(Views::new(Arc::clone(&pool), options.trackers));
        let deadline = Instant::now() + options.timeout;
        while let Err(error) = views.refresh(true, deadline).await {
            let hopeless = error.code != ErrorCode::Unavailable;
            if hopeless || Instant::now() + FIRST_VIEW_PAUSE >= deadline {
                return Err(error);
            }
            tokio::time::sleep(FIRST_VIEW_PAUSE).await;
        }
        let refresher = tokio::spawn(Arc::clone(&views).keep_fresh()).abort_handle();
        let tokens = Tokens::new(pool.credentials().instance);
        let driver = Arc::new(Driver { pool, views, timeout: options.timeout });
        let turn = AtomicU64::new(random::below(1 << 32));
        Ok(Self { inner: Arc::new(Inner { driver, tokens, turn, refresher }) })
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// `UnknownGroup`, `Unavailable`, `NoSpace`, `UnknownOutcome`, and `Failed` if the body cannot be read.
    pub async fn put(&self, body: Body, options: PutOptions) -> Result<Written> {
        let PutOptions { group, ext, reserve, pinned } = options;
        if let Some(ext) = &ext
            && !is_ext(ext)
        {
            return Err(Error::new(ErrorCode::Usage, format!("{ext:?} is no extension"))
                .remedy("1 to 16 letters or digits, without the dot"));
        }
        let body = body.prepare().await?;
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        self.change(Change::Put { group, ext, reserve, body, turn, pinned }).await
    }

    /// Replaces the whole content of an object; the id stays. `if_opver`: only if that is the current version.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`, `Unavailable`, `NoSpace`, `UnknownOutcome`, `Failed` as for a put.
    pub async fn modify(&self, id: &FileId, body: Body, if_opver: Option<Tag>) -> Result<Written> {
        let body = body.prepare().await?;
        let change = Change::Modify { id: id.clone(), if_opver, body };
        self.change(change).await.map_err(|error| error.on(id))
    }

    /// Deletes an object. `if_opver`: only if that is the current version.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`, `Unavailable`, `UnknownOutcome`.
    pub async fn delete(&self, id: &FileId, if_opver: Option<Tag>) -> Result<Written> {
        let change = Change::Delete { id: id.clone(), if_opver };
        self.change(change).await.map_err(|error| error.on(id))
    }

    /// Brings a deleted object back, while its window lasts.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `UnknownOutcome`.
    pub async fn undelete(&self, id: &FileId) -> Result<Written> {
        let change = Change::Undelete { id: id.clone() };
        self.change(change).await.map_err(|error| error.on(id))
    }

    async fn change(&self, change: Change) -> Result<Written> {
        let driver = &self.inner.driver;
        let ticket = match &change {
            Change::Put { pinned: Some(pinned), .. } => self.inner.tokens.fixed(pinned.token),
            _ => self.inner.tokens.issue(),
        };
        let patience = driver.timeout;
        driver.run(Mutate { change, ticket, patience }).await
    }

    /// Reads an object, or a range of it.
    ///
    /// # Errors
    /// `NotFound`, `BadRange`, `Behind`, `Unavailable`, `Damaged`.
    pub async fn get(&self, id: &FileId, options: GetOptions) -> Result<Object> {
        let driver = &self.inner.driver;
        let (first, last) = options.range.unwrap_or((0, None));
        if last.is_some_and(|last| last < first) {
            let text = "the range ends before it begins";
            return Err(Error::new(ErrorCode::BadRange, text).on(id));
        }
        let GetOptions { from, min_opver, .. } = options;
        let patience = driver.timeout;
        let read = Read { id, first, last, from, min_opver, patience };
        driver.run(read).await.map_err(|error| error.on(id))
    }

    /// What is known about an object; `from`: to that machine.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn stat(&self, id: &FileId, from: Option<MachineId>) -> Result<Stat> {
        let look = Look { id, from };
        self.inner.driver.run(look).await.map_err(|error| error.on(id))
    }

    /// Every live object of a group, or of all, modified since a time if one is given.
    #[must_use]
    pub fn list(&self, group: Option<&str>, since_ms: Option<u64>) -> ListStream {
        ListStream::new(Arc::clone(&self.inner.driver), group.map(str::to_owned), since_ms)
    }

    /// Space per storage and mount. A storage that does not answer is listed with its error.
    ///
    /// # Errors
    /// `Unavailable` if there is not even a cluster view.
    pub async fn df(&self) -> Result<Df> {
        self.inner.driver.df().await
    }

    /// The cluster view, fresh if a tracker answers, else as known.
    ///
    /// # Errors
    /// `Unavailable` if there never was one.
    pub async fn view(&self) -> Result<Arc<ClusterView>> {
        let driver = &self.inner.driver;
        match driver.views.refresh(true, Instant::now() + driver.timeout).await {
            Ok(view) => Ok(view),
            Err(error) => driver.views.current().ok_or(error),
        }
    }
}

fn routing_error(none: crate::cluster::routing::NoRoute) -> Nowhere {
    none.into()
}
