//! Events: from backends to channels and users, and from client to client (§2.8, §2.9, §4.4).

use std::borrow::Cow;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::yield_now;

use crate::protocol::{ChannelName, ClientError, EventData, Frame, SERVER_TO_USER, ServerEvent, SocketId, UserId};

use crate::channels::{Delivery, Occupancy};
use crate::cluster::{ClientEventRefused, Cluster, Event, Recipient, RedisCluster, Unavailable};
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
pub struct Trigger<'a> {
    /// Its name.
    pub event: Cow<'a, str>,
    /// Whom it is for, each once.
    pub targets: Vec<Target>,
    /// Its data.
    pub data: EventData,
    /// A connection that does not get it.
    pub except: Option<SocketId>,
    /// Whether anybody wants to know who is there. Alone, a node does not look if not.
    pub asks: bool,
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
    /// Publishes events of a backend, in this order: each is encoded once per channel, and remembered where that is a
    /// cache channel. When this returns, all of it is on its way to the subscribers, in an order that nothing can change
    /// any more. Returns who is there, target by target, where that is asked for.
    ///
    /// # Errors
    /// The cluster has not taken them.
    pub async fn trigger(
        &self,
        tenant: &Tenant,
        triggers: &[Trigger<'_>],
        now: Instant,
    ) -> Result<Vec<Occupancy>, Unavailable> {
        let reach = match &self.cluster {
            Cluster::Redis(redis) => tenant.publish(redis, triggers).await?,
            Cluster::Single => {
                let (reach, last) = tenant.deliver(triggers, now);
                // On a single core nobody can publish while we write to all these subscribers. So whoever is ready to comes
                // first, and shares the writes.
                if Handle::current().metrics().num_workers() == 1 && last.as_ref().is_some_and(Delivery::is_large) {
                    yield_now().await;
                }
                drop(last);
                reach
            }
        };
        tenant.metrics.published.inc_by(reach.len() as u64);
        Ok(reach)
    }

    /// Passes a client's event on to the other subscribers. The caller has checked that it may.
    ///
    /// # Errors
    /// [`ClientError::ClientEventUnavailable`] or [`ClientError::ClientEventsPending`].
    pub fn client_event(&self, client: &Client, event: &ClientEvent<'_>) -> Result<(), ClientError> {
        let ClientEvent { event, channel, data, user_id } = *event;
        let frame = ServerEvent::Channel { event, channel: channel.as_str(), data, user_id }.encode();
        let tenant = &client.tenant;
        match &self.cluster {
            Cluster::Single => tenant.channels.deliver(channel, frame, Some(client.socket_id)),
            Cluster::Redis(redis) => {
                // A subscription that still waits, or was refused since it was asked for, is none.
                if !tenant.channels.is_in_place(channel, client.socket_id) {
                    return Err(ClientError::ClientEventNotSubscribed(channel.to_string()));
                }
                let to = Recipient::Channel(channel);
                let event = Event { to, frame, except: Some(client.socket_id), cached: None };
                let published = redis.publish_client_event(tenant.app.id(), client.socket_id, &event);
                published.map_err(|refused| match refused {
                    ClientEventRefused::CutOff => ClientError::ClientEventUnavailable,
                    ClientEventRefused::TooMany => ClientError::ClientEventsPending,
                })?;
            }
        }
        let news = ClientEventNews { channel, event, data, from: client.socket_id, user_id };
        tenant.webhooks.client_event(client.source(), &news);
        tenant.metrics.client_events.inc();
        Ok(())
    }
}

impl Tenant {
    /// Returns who is there, target by target, and the last delivery, which is left to do.
    fn deliver(&self, triggers: &[Trigger<'_>], now: Instant) -> (Vec<Occupancy>, Option<Delivery<'_>>) {
        let mut last = None;
        let targets = triggers.iter().flat_map(|trigger| trigger.targets.iter().map(move |target| (trigger, target)));
        let reach = targets.map(|(trigger, target)| {
            let except = trigger.except;
            // What is for the same channel goes out with it; all else keeps its order, also for a client of both channels.
            if last.as_ref().is_some_and(|(previous, _)| *previous != target) {
                last = None;
            }
            match target {
                Target::Channel(name) => {
                    let encode = || trigger.encode(target);
                    let delivery = self.channels.publish(name, encode, &trigger.data, except, now);
                    last = last.take().or(delivery.map(|delivery| (target, delivery)));
                    if trigger.asks { self.channels.occupancy(name) } else { Occupancy::default() }
                }
                Target::User(id) => {
                    self.users.deliver(id, &trigger.encode(target), except);
                    Occupancy::default()
                }
            }
        });
        let reach = reach.collect();
        (reach, last.map(|(_, delivery)| delivery))
    }

    async fn publish(&self, redis: &RedisCluster, triggers: &[Trigger<'_>]) -> Result<Vec<Occupancy>, Unavailable> {
        let ttl = self.app.config().limits.cache_ttl;
        let events = triggers.iter().flat_map(|trigger| {
            trigger.targets.iter().map(move |target| {
                let (to, cached) = match target {
                    Target::Channel(name) => (Recipient::Channel(name), name.is_cache()),
                    Target::User(id) => (Recipient::User(id), false),
                };
                let cached = cached.then_some((ttl, &trigger.data));
                Event { to, frame: trigger.encode(target), except: trigger.except, cached }
            })
        });
        redis.publish(self.app.id(), events.collect()).await
    }
}

impl Trigger<'_> {
    fn encode(&self, target: &Target) -> Frame {
        let (event, data) = (&*self.event, &self.data);
        let encode = |channel: &str| ServerEvent::Channel { event, channel, data, user_id: None }.encode();
        match target {
            Target::Channel(name) => encode(name.as_str()),
            Target::User(id) => encode(&format!("{SERVER_TO_USER}{id}")),
        }
    }
}
