//! What happens when a client subscribes or unsubscribes (§2.3 to §2.7).

use std::time::Instant;

use tracing::{debug, info, warn};

use crate::auth;
use crate::channels::{Life, Subscriber, Unsubscribed};
use crate::cluster::{Cause, Recipient};
use crate::protocol::{ChannelName, Member, SignIn, SocketId, SubscriptionError, UserId};
use crate::source::Source;
use crate::subscription_memory::{Account, Texts};
use crate::untrusted::Untrusted;

use super::{Client, Node, Tenant};

/// What a client shows to subscribe.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The channel.
    pub channel: &'a ChannelName,
    /// `KEY:SIGNATURE`; ignored where none is needed.
    pub auth: &'a str,
    /// The exact text that was signed with it.
    pub channel_data: Option<&'a str>,
    /// Who is signed in on this connection.
    pub user: Option<&'a SignIn>,
    /// The subscriptions that the connection has already.
    pub held: usize,
}

/// A subscription as the session keeps it: small, as there are many.
#[derive(Debug)]
pub struct Subscription(Option<Box<Membership>>);

/// As whom a client is subscribed to a presence channel.
#[derive(Debug)]
struct Membership {
    user_id: UserId,
    /// Bytes of its id and information.
    texts: usize,
}

impl Subscription {
    /// The user it is seen as, on a presence channel.
    pub fn user_id(&self) -> Option<&UserId> {
        self.0.as_ref().map(|membership| &membership.user_id)
    }

    /// The texts it was charged for, with the channel's name.
    pub fn texts(&self, channel: &ChannelName) -> Texts {
        Texts { name: channel.as_str().len(), member: self.0.as_ref().map(|membership| membership.texts) }
    }
}

impl Node {
    /// Subscribes a client that is not subscribed to this channel yet, and charges it for that. Nothing is visible to
    /// anybody before the signature is verified.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub fn subscribe(
        &self,
        client: &Client,
        request: &Request<'_>,
        memory: &mut Account,
    ) -> Result<Subscription, SubscriptionError> {
        let channel = request.channel;
        let tenant = &client.tenant;
        self.has_room(client, Recipient::Channel(channel), request.held)?;
        if channel.needs_auth() {
            let text = auth::channel_text(client.socket_id, channel.as_str(), request.channel_data);
            let verdict = auth::verify_token(&tenant.app, request.auth, text);
            verdict.map_err(|error| SubscriptionError::Auth(error.to_string()))?;
        }
        let member = match channel.is_presence() {
            true => Some(self.member(client, request)?),
            false => None,
        };
        let subscription = Subscription(member.as_ref().map(|Member { user_id, user_info }| {
            let texts = user_id.as_str().len() + user_info.len();
            Box::new(Membership { user_id: user_id.clone(), texts })
        }));
        let texts = subscription.texts(channel);
        if !memory.charge(texts, request.held) {
            let limit = tenant.subscription_memory.limit();
            warn!(app = tenant.app.id(), peer = %client.peer, limit, "subscription refused: server.subscription_memory is used up");
            return Err(SubscriptionError::OutOfMemory);
        }
        let subscriber = Subscriber { socket_id: client.socket_id, outbox: client.outbox.clone(), member };
        let now = Instant::now();
        let of_channel = Recipient::Channel(channel);
        let life = self.cluster.redis().map_or(Life::default(), |redis| redis.life(tenant.app.id(), of_channel));
        let changed = tenant.channels.subscribe(channel, subscriber, life, now);
        let changed = changed.inspect_err(|_| memory.give_back(texts))?;
        debug!(app = tenant.app.id(), %channel, socket_id = %client.socket_id, ?changed, "subscribed");
        if changed.occupied {
            tenant.channel_changed(channel, client.source());
        }
        if let Some(user_id) = subscription.user_id().filter(|_| changed.member_added) {
            tenant.member_changed(channel, user_id, client.source());
        }
        if changed.cache_miss {
            tenant.webhooks.cache_miss(channel, client.source(), now);
        }
        if changed.counted {
            tenant.count_changed(channel, Some(client.source()));
        }
        if changed.touched {
            self.touch(tenant, of_channel, client.cause());
        }
        if changed.rejoined {
            tenant.metrics.presence_rejoins_hidden.inc();
        }
        // Now that all it caused is on its way.
        client.outbox.flush();
        Ok(subscription)
    }

    /// Ends a subscription of a client.
    pub fn unsubscribe(&self, client: &Client, channel: &ChannelName) {
        let tenant = &client.tenant;
        let changed = tenant.channels.unsubscribe(channel, client.socket_id, Instant::now());
        debug!(app = tenant.app.id(), %channel, socket_id = %client.socket_id, ?changed, "unsubscribed");
        if let Some(changed) = changed {
            self.unsubscribed(tenant, channel, client.socket_id, client.source(), &changed);
        }
    }

    /// Passes on what the end of a subscription has changed.
    pub(super) fn unsubscribed(
        &self,
        tenant: &Tenant,
        channel: &ChannelName,
        socket_id: SocketId,
        source: Source,
        changed: &Unsubscribed,
    ) {
        if let Some(user_id) = &changed.member_removed {
            tenant.member_changed(channel, user_id, source);
        }
        if changed.vacated {
            tenant.channel_changed(channel, source);
        }
        if changed.counted {
            tenant.count_changed(channel, Some(source));
        }
        if changed.touched {
            self.touch(tenant, Recipient::Channel(channel), Cause::Client(source, socket_id));
        }
    }

    /// Ends a client's subscription to a presence channel, which the others are told at this time, and not at all if it has
    /// subscribed again by then.
    pub fn leave_later(&self, client: &Client, channel: &ChannelName, until: Instant) {
        client.tenant.channels.leave_later(channel, client.socket_id, client.source(), until);
        debug!(app = client.tenant.app.id(), %channel, socket_id = %client.socket_id, "unsubscribed, which is told later");
    }

    /// Whether a client's leave is still to be told.
    pub fn is_leaving(&self, client: &Client, channel: &ChannelName) -> bool {
        client.tenant.channels.is_leaving(channel, client.socket_id)
    }

    /// Logs a refused subscription where that tells of a limit that an operator set. `channel` is the name as
    /// the client wrote it.
    pub fn subscription_refused(&self, client: &Client, channel: &str, error: &SubscriptionError) {
        let (app, peer, socket_id) = (client.tenant.app.id(), &client.peer, client.socket_id);
        let channel = Untrusted(channel);
        match error {
            SubscriptionError::Pending(limit) => {
                let text = "subscription refused: as many changes of this connection wait for Redis as \
                            cluster.pending_per_connection allows";
                warn!(app, %peer, %socket_id, %channel, limit, "{text}");
            }
            SubscriptionError::TooManyChannels(limit) => {
                info!(app, %peer, %socket_id, %channel, limit, "subscription refused: limits.channels_per_connection is reached");
            }
            SubscriptionError::TooManyJoins(limit) => {
                let text = "subscription refused: this connection leaves and joins presence channels more often than \
                            limits.presence_joins_per_minute allows";
                warn!(app, %peer, %socket_id, %channel, limit, "{text}");
            }
            _ => {}
        }
    }

    /// In a cluster: whether a client may cause one more change.
    ///
    /// # Errors
    /// [`SubscriptionError::Pending`].
    pub(super) fn has_room(
        &self,
        client: &Client,
        subject: Recipient<'_>,
        held: usize,
    ) -> Result<(), SubscriptionError> {
        match self.cluster.redis() {
            Some(redis) if !redis.has_room(client.tenant.app.id(), subject, client.cause(), held) => {
                Err(SubscriptionError::Pending(redis.pending_per_connection()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a client is subscribed to a channel. In a cluster, a subscription that it was let in for may have been
    /// refused since.
    pub fn is_subscribed(&self, client: &Client, channel: &ChannelName) -> bool {
        match self.cluster.redis() {
            None => true,
            Some(_) => client.tenant.channels.is_subscribed(channel, client.socket_id),
        }
    }

    /// Whom the other members will see: from the signed `channel_data`, or else the user who is signed in (§2.5).
    fn member(&self, client: &Client, request: &Request<'_>) -> Result<Member, SubscriptionError> {
        let limits = &client.tenant.app.config().limits;
        let member = match (request.channel_data, request.user) {
            (Some(data), _) => Member::parse(data, limits.user_id_length, limits.user_info),
            (None, Some(user)) => {
                let member = Member { user_id: user.user_id.clone(), user_info: user.user_info.clone() };
                member.with_info_within(limits.user_info)
            }
            (None, None) => {
                let text = "Invalid channel_data: a presence channel needs it unless the user is signed in";
                return Err(SubscriptionError::InvalidMember(text.to_owned()));
            }
        };
        member.map_err(|error| SubscriptionError::InvalidMember(format!("Invalid channel_data: {error}")))
    }
}
