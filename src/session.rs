//! One client's conversation: text in, node verbs out, replies into its outbox. The same for every transport, which only
//! brings text here, takes frames from the outbox and asks for the next deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use tracing::{debug, info, trace};

use crate::addresses::AddressSeat;
use crate::apps::Seat;
use crate::config::origin_allowed;
use crate::node::{Admission, Client, ClientEvent, Handshake, Node, Refusal, SubscribeRequest, Subscription};
use crate::outbox::Outbox;
use crate::presence_joins::PresenceJoins;
use crate::protocol::{
    ChannelName, ClientError, ClientMessage, CloseReason, EventData, SERVER_TO_USER, ServerEvent, SignIn, SocketId,
    SubscriptionError,
};
use crate::rate_limit::Bucket;
use crate::subscription_memory::Account;

/// The server's side of one connection. Dropping it leaves every channel, exactly once.
#[derive(Debug)]
pub struct Session {
    node: Arc<Node>,
    client: Client,
    version: u32,
    /// Own subscriptions: what the end of the session has to walk, and no more.
    subscriptions: HashMap<ChannelName, Subscription, RandomState>,
    /// The memory that they take.
    memory: Account,
    user: Option<Box<SignIn>>,
    client_events: Bucket,
    /// Of all that the client says.
    messages: Bucket,
    /// Presence channels that were left not long ago.
    presence_joins: Option<Box<PresenceJoins>>,
    last_activity: Instant,
    /// The client was silent for the activity timeout, and has been asked for a sign of life.
    probed: bool,
    /// Until when the client must have authorised itself, where it must (§1.6).
    authorize_by: Option<Instant>,
    app_seat: Option<Seat>,
    /// Its places in the counts of this node and of the app.
    _places: [Seat; 2],
    /// Its place among the clients of its address.
    _address_seat: AddressSeat,
    closed: bool,
}

/// Clients per second that may come back without anybody noticing.
const CALM_RATE: f64 = 100.0;

/// What a deadline asks the transport to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: come back at the next deadline.
    Nothing,
    /// Ask the client for a sign of life, in whatever way the transport has.
    Probe,
}

impl Session {
    /// Admits a client and queues its greeting.
    ///
    /// # Errors
    /// The refusal, for the transport to tell and to count.
    pub async fn open(node: &Arc<Node>, handshake: &Handshake<'_>) -> Result<Self, Refusal> {
        let Admission { tenant, version, places, address_seat, app_seat } = node.connect(handshake).await?;
        let now = Instant::now();
        let config = tenant.app.config();
        let limits = &config.limits;
        let socket_id = SocketId::random();
        let outbox = Arc::new(Outbox::new(limits.outbox));
        let activity_timeout = limits.activity_timeout;
        outbox.push(ServerEvent::ConnectionEstablished { socket_id, activity_timeout }.encode());
        let client = Client { tenant: Arc::clone(&tenant), socket_id, peer: handshake.peer.clone(), outbox };
        node.greeted(&client);
        Ok(Self {
            node: Arc::clone(node),
            version,
            subscriptions: HashMap::default(),
            memory: tenant.account(),
            user: None,
            client_events: Bucket::default(),
            messages: Bucket::default(),
            presence_joins: None,
            last_activity: now,
            probed: false,
            authorize_by: config.authorized_connections.then(|| now + limits.authorization_timeout),
            app_seat,
            _places: places,
            _address_seat: address_seat,
            closed: false,
            client,
        })
    }

    /// The node that it is at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The connection's name.
    pub fn socket_id(&self) -> SocketId {
        self.client.socket_id
    }

    /// The app id.
    pub fn app_id(&self) -> &str {
        self.client.tenant.app.id()
    }

    /// The protocol version, which decides the form of a fatal error.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of one message, at most.
    pub fn message_limit(&self) -> usize {
        self.client.tenant.app.config().limits.message
    }

    /// Whether a page of this origin may speak for the client.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        origin_allowed(&self.client.tenant.app.config().allowed_origins, origin)
    }

    /// What waits for the client.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.client.outbox
    }

    /// Any sign of life: every complete frame or request counts (§1.4).
    pub fn alive(&mut self, now: Instant) {
        self.last_activity = now;
        self.probed = false;
    }

    /// When [`Session::on_deadline`] wants to be called next.
    pub fn deadline(&self) -> Instant {
        let silence = self.silence();
        let silent_since = self.last_activity + silence;
        self.authorize_by.map_or(silent_since, |authorize_by| authorize_by.min(silent_since))
    }

    /// Does what the clock asks for. A session whose time is over closes its outbox.
    pub fn on_deadline(&mut self, now: Instant) -> Due {
        if self.authorize_by.is_some_and(|deadline| deadline <= now) {
            self.authorize_by = None;
            self.client.outbox.close(CloseReason::NotAuthorized);
        }
        if now < self.last_activity + self.silence() {
            return Due::Nothing;
        }
        if self.probed {
            self.client.outbox.close(CloseReason::NoPong);
            // Nothing is left to wait for; keeps the transport from asking again at once.
            self.last_activity = now;
            return Due::Nothing;
        }
        self.probed = true;
        Due::Probe
    }

    /// Charges the client for a message, of whatever kind. Returns until when it has sent enough: the transport reads
    /// nothing more before.
    pub fn charge(&mut self, now: Instant) -> Option<Instant> {
        let tenant = &self.client.tenant;
        self.messages.charge(&tenant.app.rates().messages, now).inspect(|_| {
            tenant.metrics.pauses.inc();
            let Client { peer, socket_id, .. } = &self.client;
            info!(app = tenant.app.id(), %peer, %socket_id, "client is read more slowly: it sends more than limits.messages_per_second allows");
        })
    }

    /// How long a client that has sent enough has to wait until it may send so many more messages.
    pub fn time_for(&self, messages: usize) -> Duration {
        self.client.tenant.app.rates().messages.time_for(messages)
    }

    /// Handles one text message. Whatever it causes is in outboxes when this returns. After the end nothing is handled.
    pub fn handle(&mut self, text: &str) {
        if self.client.outbox.is_closed() {
            return;
        }
        trace!(socket_id = %self.client.socket_id, text, "received");
        self.client.tenant.metrics.received.inc();
        let limit = self.message_limit();
        let result = match text.len() > limit {
            true => Err(ClientError::MessageTooLarge(limit)),
            false => ClientMessage::parse(text).and_then(|message| self.dispatch(message)),
        };
        if let Err(error) = result {
            self.refuse(&error);
        }
    }

    /// Tells the client that a message was refused. The connection lives.
    pub fn refuse(&self, error: &ClientError) {
        self.note_refusal(error);
        self.client.outbox.push(ServerEvent::Error(error).encode());
    }

    /// Tells the client that its message was longer than the limit, and was thrown away.
    pub fn refuse_too_large(&self) {
        self.client.tenant.metrics.received.inc();
        self.refuse(&ClientError::MessageTooLarge(self.message_limit()));
    }

    fn note_refusal(&self, error: &ClientError) {
        // Quoted, as it repeats what a stranger wrote.
        let error_text = error.to_string();
        debug!(app = self.app_id(), socket_id = %self.client.socket_id, error = ?error_text, "message refused");
        self.client.tenant.metrics.errors.inc();
    }

    /// Leaves everything, and counts the end: by the reason, or 0 if the client went by itself.
    pub fn close(&mut self, reason: Option<&CloseReason>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for (channel, subscription) in self.subscriptions.drain() {
            self.node.unsubscribe(&self.client, &channel);
            self.memory.give_back(subscription.texts(&channel));
        }
        // At its end it leaves at once, also what it was to leave later.
        for channel in self.presence_joins.take().iter().flat_map(|joins| joins.leaving()) {
            self.node.unsubscribe(&self.client, channel);
        }
        let user = self.user.take();
        if let Some(user) = &user {
            self.node.sign_out(&self.client, user);
        }
        self.node.disconnected(&self.client, reason, user.as_ref().map(|user| &user.user_id));
    }

    fn silence(&self) -> Duration {
        let limits = &self.client.tenant.app.config().limits;
        limits.activity_timeout + if self.probed { limits.pong_timeout } else { Duration::ZERO }
    }

    fn dispatch(&mut self, message: ClientMessage<'_>) -> Result<(), ClientError> {
        match message {
            ClientMessage::Ping => self.client.outbox.push(ServerEvent::Pong.encode()),
            ClientMessage::Pong => {}
            ClientMessage::Subscribe { channel, auth, channel_data } => {
                self.subscribe(&channel, &auth, channel_data.as_deref())?;
            }
            ClientMessage::Unsubscribe { channel } => self.unsubscribe(channel)?,
            ClientMessage::SignIn { auth, user_data } => self.sign_in(&auth, &user_data)?,
            ClientMessage::ClientEvent { event, channel, data } => {
                self.client_event(&event, channel.as_deref(), data.as_ref())?;
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, channel: &str, auth: &str, channel_data: Option<&str>) -> Result<(), ClientError> {
        match self.try_subscribe(channel, auth, channel_data)? {
            Ok(()) => Ok(()),
            Err(error) => {
                self.note_refusal(&ClientError::Subscription(error.to_string()));
                self.client.tenant.metrics.subscriptions_refused(error.reason(), 1);
                self.node.subscription_refused(&self.client, channel, &error);
                for frame in error.frames(channel, self.client.tenant.app.config().subscription_error_events) {
                    self.client.outbox.push(frame);
                }
                Ok(())
            }
        }
    }

    /// The outer error is a mistake that leaves the subscription as it is, the inner one a refused subscription.
    fn try_subscribe(
        &mut self,
        channel: &str,
        auth: &str,
        channel_data: Option<&str>,
    ) -> Result<Result<(), SubscriptionError>, ClientError> {
        if channel.starts_with('#') {
            return Ok(self.subscribe_to_own_user(channel));
        }
        let limits = &self.client.tenant.app.config().limits;
        let name = match ChannelName::parse(channel, limits.channel_name_length) {
            Ok(name) => name,
            Err(error) => return Ok(Err(SubscriptionError::InvalidName(error.to_string()))),
        };
        let limit = limits.channels_per_connection;
        if self.subscriptions.contains_key(&name) {
            if self.node.is_subscribed(&self.client, &name) {
                return Err(ClientError::AlreadySubscribed(name));
            }
            if let Some(refused) = self.subscriptions.remove(&name) {
                self.memory.give_back(refused.texts(&name));
            }
        }
        let subscribed = self.subscriptions.len();
        if limit > 0 && subscribed >= limit {
            return Ok(Err(SubscriptionError::TooManyChannels(limit)));
        }
        let (node, client) = (&self.node, &self.client);
        let is_leaving = |left: &ChannelName| node.is_leaving(client, left);
        if name.is_presence()
            && let Some(joins) = &mut self.presence_joins
            && !joins.may_join(&name, limit, Instant::now(), is_leaving)
        {
            return Ok(Err(SubscriptionError::TooManyJoins(limits.presence_joins_per_minute)));
        }
        let request =
            SubscribeRequest { channel: &name, auth, channel_data, user: self.user.as_deref(), held: subscribed };
        match self.node.subscribe(&self.client, &request, &mut self.memory) {
            Ok(subscription) => self.subscriptions.insert(name.clone(), subscription),
            Err(error) => return Ok(Err(error)),
        };
        if let Some(joins) = &mut self.presence_joins {
            joins.joined(&name, Instant::now());
        }
        if name.needs_auth() {
            self.authorized();
        }
        Ok(Ok(()))
    }

    /// A signed-in connection gets its user's events anyway; asking for the channel is answered for the clients that
    /// wait for it. Nobody gets another user's.
    fn subscribe_to_own_user(&self, channel: &str) -> Result<(), SubscriptionError> {
        let own =
            self.user.as_ref().is_some_and(|user| channel.strip_prefix(SERVER_TO_USER) == Some(user.user_id.as_str()));
        if !own {
            let shown: String = channel.chars().take(200).collect();
            return Err(SubscriptionError::Auth(format!("Not signed in as the user of channel {shown}")));
        }
        self.client.outbox.push(ServerEvent::SubscriptionSucceeded { channel, data: "{}" }.encode());
        Ok(())
    }

    fn unsubscribe(&mut self, channel: String) -> Result<(), ClientError> {
        let Some((name, subscription)) = self.subscriptions.remove_entry(channel.as_str()) else {
            return Err(ClientError::NotSubscribed(channel));
        };
        self.memory.give_back(subscription.texts(&name));
        if name.is_presence()
            && let Some(rate) = self.client.tenant.app.rates().presence_leaves
        {
            let joins = self.presence_joins.get_or_insert_with(|| Box::new(PresenceJoins::new(rate)));
            if let Some(until) = joins.leave(&name, Instant::now()) {
                self.node.leave_later(&self.client, &name, until);
                return Ok(());
            }
        }
        self.node.unsubscribe(&self.client, &name);
        Ok(())
    }

    fn sign_in(&mut self, auth: &str, user_data: &str) -> Result<(), ClientError> {
        let user = self.node.sign_in(&self.client, auth, user_data, self.user.as_deref())?;
        self.user = Some(Box::new(user));
        self.authorized();
        Ok(())
    }

    /// The checks of §2.8, in its order.
    fn client_event(
        &mut self,
        event: &str,
        channel: Option<&str>,
        data: Option<&EventData>,
    ) -> Result<(), ClientError> {
        let config = self.client.tenant.app.config();
        let limits = &config.limits;
        if !config.client_events {
            return Err(ClientError::ClientEventsDisabled);
        }
        if !event.starts_with("client-") {
            return Err(ClientError::ClientEventPrefix);
        }
        if event.chars().count() > limits.event_name_length {
            return Err(ClientError::ClientEventName(event.chars().take(limits.event_name_length).collect()));
        }
        let (Some(channel), Some(data)) = (channel, data) else { return Err(ClientError::ClientEventIncomplete) };
        let Some((name, subscription)) = self.subscriptions.get_key_value(channel) else {
            let name = ChannelName::parse(channel, limits.channel_name_length);
            return Err(match name.is_ok_and(|name| name.needs_auth()) {
                true => ClientError::ClientEventNotSubscribed(channel.to_owned()),
                false => ClientError::ClientEventChannel,
            });
        };
        if !name.needs_auth() {
            return Err(ClientError::ClientEventChannel);
        }
        if data.length() > limits.event_data {
            return Err(ClientError::ClientEventTooLarge(limits.event_data));
        }
        if self.client_events.take(&self.client.tenant.app.rates().client_events, Instant::now()).is_err() {
            return Err(ClientError::ClientEventRate);
        }
        let event = ClientEvent { event, channel: name, data, user_id: subscription.user_id() };
        self.node.client_event(&self.client, &event)
    }

    /// The client has shown a valid signature. Where that is what makes it count, it counts from now on.
    fn authorized(&mut self) {
        self.authorize_by = None;
        if self.app_seat.is_none() {
            self.app_seat = self.node.authorized(&self.client);
        }
    }
}

/// How long a client may stay when the server stops: if all were sent away at once, they would all be back at once. A few
/// clients are no crowd, and need not wait for it.
pub fn time_to_leave(node: &Node, drain_period: Duration) -> Duration {
    let calmly = Duration::from_secs_f64(node.connections() as f64 / CALM_RATE);
    // Leaves the last clients the time to read why.
    let spread = calmly.min(drain_period.mul_f64(0.8));
    spread.mul_f64(rand::random_range(0.0..1.0))
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only if the transport's task ended without saying why, as it does when the runtime stops.
        self.close(None);
    }
}
