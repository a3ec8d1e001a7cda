//! All occupied channels of an app, page by page (§4.6): a million of them must not be copied at once, and delay nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::channels::{Occupancy, Walk};
use crate::cluster::{Cluster, Pages, Unavailable};
use crate::protocol::ChannelName;

use super::{Node, Tenant};

/// How long a listing waits for others to end before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// Places for listings that are answered at the same time.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    free: Arc<Semaphore>,
}

/// A listing of channels that has begun.
#[derive(Debug)]
pub struct Listing {
    source: Source,
    _places: [OwnedSemaphorePermit; 2],
}

#[derive(Debug)]
enum Source {
    Walk(Walk, Arc<Semaphore>),
    Cluster(Pages),
}

/// Too many listings are being answered.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum TooManyListings {
    /// Of the app: its limit.
    #[error("Too many channel listings at the same time (limit {0}, setting limits.channel_listings)")]
    OfApp(usize),
    /// Of all apps: the node's limit.
    #[error("Too many channel listings at the same time on this node (limit {0}, setting server.channel_listings)")]
    OfNode(usize),
}

impl Places {
    /// So many.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, free: Arc::new(Semaphore::new(limit)) }
    }

    async fn take(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(until, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()
    }
}

impl Node {
    /// Begins a listing of all occupied channels whose name begins with `prefix`, in no particular order.
    ///
    /// # Errors
    /// [`TooManyListings`], if that does not change within a second.
    pub async fn list_channels(&self, tenant: &Tenant, prefix: &str) -> Result<Listing, TooManyListings> {
        let until = Instant::now() + PATIENCE;
        let refuse = |error: TooManyListings| {
            tenant.metrics.listings_refused.inc();
            warn!(app = tenant.app.id(), %error, "channel listing refused");
            error
        };
        let of_app = tenant.listings.take(until).await;
        let of_app = of_app.ok_or_else(|| refuse(TooManyListings::OfApp(tenant.listings.limit)))?;
        let of_node = self.listings.take(until).await;
        let of_node = of_node.ok_or_else(|| refuse(TooManyListings::OfNode(self.listings.limit)))?;
        let source = match &self.cluster {
            Cluster::Redis(redis) => Source::Cluster(redis.occupied(tenant.app.id(), prefix)),
            Cluster::Single => Source::Walk(Walk::new(Arc::clone(&tenant.channels), prefix), Arc::clone(&self.walking)),
        };
        Ok(Listing { source, _places: [of_app, of_node] })
    }
}

impl Listing {
    /// The next page, which may be empty; `None` at the end. A channel that is occupied all the while is on exactly one.
    ///
    /// # Errors
    /// In a cluster, Redis cannot be asked in time.
    pub async fn page(&mut self) -> Result<Option<Vec<(ChannelName, Occupancy)>>, Unavailable> {
        match &mut self.source {
            Source::Cluster(pages) => pages.next().await,
            Source::Walk(walk, turn) => {
                // It is never closed.
                let turn = turn.acquire().await;
                let slice = walk.slice();
                drop(turn);
                if slice.is_some() {
                    yield_now().await;
                }
                Ok(slice)
            }
        }
    }
}
