//! What happens when a client subscribes or unsubscribes (§2.3 to §2.7).

use std::time::Instant;

use tracing::debug;

use crate::auth;
use crate::channels::{Life, Subscriber};
use crate::cluster::Recipient;
use crate::protocol::{ChannelName, Member, SignIn, SubscriptionError, UserId};

use super::{Client, Node};

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
}

impl Node {
    /// Subscribes a client that is not subscribed to this channel yet. Returns the user it is seen as, on a presence
    /// channel. Nothing is visible to anybody before the signature is verified.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub fn subscribe(&self, client: &Client, request: &Request<'_>) -> Result<Option<UserId>, SubscriptionError> {
        let channel = request.channel;
        let tenant = &client.tenant;
        if channel.needs_auth() {
            let text = auth::channel_text(client.socket_id, channel.as_str(), request.channel_data);
            let verdict = auth::verify_token(&tenant.app, request.auth, text);
            verdict.map_err(|error| SubscriptionError::Auth(error.to_string()))?;
        }
        let member = match channel.is_presence() {
            true => Some(self.member(client, request)?),
            false => None,
        };
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let subscriber = Subscriber { socket_id: client.socket_id, outbox: client.outbox.clone(), member };
        let now = Instant::now();
        let of_channel = Recipient::Channel(channel);
        let life = self.cluster.redis().map_or(Life::default(), |redis| redis.life(tenant.app.id(), of_channel));
        let changed = tenant.channels.subscribe(channel, subscriber, life, now)?;
        debug!(app = tenant.app.id(), %channel, socket_id = %client.socket_id, ?changed, "subscribed");
        if changed.occupied {
            tenant.channel_changed(channel, client.source());
        }
        if let Some(user_id) = user_id.as_ref().filter(|_| changed.member_added) {
            tenant.member_changed(channel, user_id, client.source());
        }
        if changed.cache_miss {
            tenant.webhooks.cache_miss(channel, client.source(), now);
        }
        if changed.counted {
            tenant.count_changed(channel, Some(client.source()));
        }
        if changed.touched {
            self.touch(tenant, of_channel);
        }
        // Now that all it caused is on its way.
        client.outbox.flush();
        Ok(user_id)
    }

    /// Ends a subscription of a client.
    pub fn unsubscribe(&self, client: &Client, channel: &ChannelName) {
        let tenant = &client.tenant;
        let changed = tenant.channels.unsubscribe(channel, client.socket_id, Instant::now());
        debug!(app = tenant.app.id(), %channel, socket_id = %client.socket_id, ?changed, "unsubscribed");
        let Some(changed) = changed else { return };
        if let Some(user_id) = &changed.member_removed {
            tenant.member_changed(channel, user_id, client.source());
        }
        if changed.vacated {
            tenant.channel_changed(channel, client.source());
        }
        if changed.counted {
            tenant.count_changed(channel, Some(client.source()));
        }
        if changed.touched {
            self.touch(tenant, Recipient::Channel(channel));
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
