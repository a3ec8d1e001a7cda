//! What a backend can ask about channels (§4.6 to §4.8).

use std::time::{Duration, Instant};

use crate::channels::Occupancy;
use crate::protocol::{ChannelName, EventData, UserId};

use super::{Node, Tenant};

impl Node {
    /// How many are subscribed to a channel; all zero if nobody is.
    pub fn occupancy(&self, tenant: &Tenant, name: &ChannelName) -> Occupancy {
        tenant.channels.occupancy(name)
    }

    /// All occupied channels whose name begins with `prefix`, in the order of their names.
    pub fn occupied_channels(&self, tenant: &Tenant, prefix: &str) -> Vec<(ChannelName, Occupancy)> {
        let mut channels = tenant.channels.occupied(prefix);
        channels.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        channels
    }

    /// The members of a presence channel.
    pub fn members(&self, tenant: &Tenant, name: &ChannelName) -> Vec<UserId> {
        tenant.channels.members(name)
    }

    /// The event a cache channel holds, and the time it has left.
    pub fn cached(&self, tenant: &Tenant, name: &ChannelName) -> Option<(EventData, Duration)> {
        tenant.channels.cached(name, Instant::now())
    }
}
