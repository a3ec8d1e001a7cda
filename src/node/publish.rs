//! Events: from backends to channels and users, and from client to client (§2.8, §2.9, §4.4).

use std::time::Instant;

use crate::protocol::{ChannelName, EventData, SERVER_TO_USER, ServerEvent, SocketId, UserId};

use crate::webhooks::ClientEventNews;

use super::{Client, Node, Tenant};

/// Whom an event is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The subscribers of a channel.
    Channel(ChannelName),
    /// The connections of a signed-in user.
    User(UserId),
}

/// An event that a backend publishes.
#[derive(Debug)]
pub struct Trigger {
    /// Its name.
    pub event: String,
    /// Whom it is for, each once.
    pub targets: Vec<Target>,
    /// Its data.
    pub data: EventData,
    /// A connection that does not get it.
    pub except: Option<SocketId>,
}

/// An event from one subscriber to the others.
#[derive(Debug)]
pub struct ClientEvent<'a> {
    /// Its name.
    pub event: &'a str,
    /// The channel.
    pub channel: &'a ChannelName,
    /// Its data.
    pub data: &'a EventData,
    /// The sender as the presence channel knows it.
    pub user_id: Option<&'a UserId>,
}

impl Node {
    /// Publishes an event of a backend: encoded once per channel, remembered where the channel is a cache channel, in
    /// the outboxes of all its subscribers when this returns.
    pub fn trigger(&self, tenant: &Tenant, trigger: &Trigger) {
        let now = Instant::now();
        let event = |channel: &str| {
            ServerEvent::Channel { event: &trigger.event, channel, data: &trigger.data, user_id: None }.encode()
        };
        for target in &trigger.targets {
            let delivered = match target {
                Target::Channel(name) => {
                    tenant.channels.publish(name, event(name.as_str()), &trigger.data, trigger.except, now)
                }
                Target::User(id) => tenant.users.deliver(id, &event(&format!("{SERVER_TO_USER}{id}")), trigger.except),
            };
            tenant.metrics.published.inc();
            tenant.metrics.delivered.inc_by(delivered as u64);
        }
    }

    /// Passes a client's event on to the other subscribers. The caller has checked that it may.
    pub fn client_event(&self, client: &Client, event: &ClientEvent<'_>) {
        let ClientEvent { event, channel, data, user_id } = *event;
        let frame = ServerEvent::Channel { event, channel: channel.as_str(), data, user_id }.encode();
        let tenant = &client.tenant;
        let delivered = tenant.channels.deliver(channel, &frame, Some(client.socket_id));
        tenant.webhooks.client_event(&ClientEventNews { channel, event, data, from: client.socket_id, user_id });
        tenant.metrics.client_events.inc();
        tenant.metrics.delivered.inc_by(delivered as u64);
    }
}
