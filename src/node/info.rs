//! What a backend can ask about channels (§4.6 to §4.8). In a cluster the answers are those of all nodes together.

use std::time::{Duration, Instant};

use crate::channels::Occupancy;
use crate::cluster::{Cluster, Unavailable};
use crate::protocol::{ChannelName, EventData, UserId};

use super::{Node, Tenant};

/// # Errors
/// In a cluster, all of them fail if Redis cannot be asked in time.
impl Node {
    /// How many are subscribed to a channel; all zero if nobody is.
    pub async fn occupancy(&self, tenant: &Tenant, name: &ChannelName) -> Result<Occupancy, Unavailable> {
        match &self.cluster {
            Cluster::Redis(redis) => redis.occupancy(tenant.app.id(), name).await,
            Cluster::Single => Ok(tenant.channels.occupancy(name)),
        }
    }

    /// The members of a presence channel.
    pub async fn members(&self, tenant: &Tenant, name: &ChannelName) -> Result<Vec<UserId>, Unavailable> {
        match &self.cluster {
            Cluster::Redis(redis) => redis.members(tenant.app.id(), name).await,
            Cluster::Single => Ok(tenant.channels.members(name)),
        }
    }

    /// The event a cache channel holds, and the time it has left.
    pub async fn cached(
        &self,
        tenant: &Tenant,
        name: &ChannelName,
    ) -> Result<Option<(EventData, Duration)>, Unavailable> {
        match &self.cluster {
            Cluster::Redis(redis) => redis.cached(tenant.app.id(), name).await,
            Cluster::Single => Ok(tenant.channels.cached(name, Instant::now())),
        }
    }
}
