//! Who may connect (§1.1, §1.2, §1.5).

use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info, warn};

use crate::addresses::{AddressSeat, Excess};
use crate::apps::Seat;
use crate::config::origin_allowed;
use crate::protocol::{CloseReason, SUPPORTED_VERSIONS, UserId};
use crate::socket::PeerAddress;

use super::{Client, Node, Refusal, Tenant};

/// What a client says about itself when it connects, on any transport.
#[derive(Debug, Clone, Copy)]
pub struct Handshake<'a> {
    /// The app key in the URL.
    pub key: &'a str,
    /// The `protocol` parameter.
    pub protocol: Option<&'a str>,
    /// The `Origin` header; only browsers send one.
    pub origin: Option<&'a str>,
    /// Whether the connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
    /// Where the client is.
    pub peer: &'a PeerAddress,
}

/// A client that may stay.
#[derive(Debug)]
pub struct Admission {
    /// Its app.
    pub tenant: Arc<Tenant>,
    /// Its protocol version.
    pub version: u32,
    /// Its places in the counts of this node and of the app.
    pub places: [Seat; 2],
    /// Its place among the clients of its address.
    pub address_seat: AddressSeat,
    /// Its place in the app's quota. Where connections must be authorised, it gets one only then (§1.6).
    pub app_seat: Option<Seat>,
}

impl Node {
    /// Decides about a new connection.
    ///
    /// # Errors
    /// A [`Refusal`], to be told with a close frame after the upgrade: a browser cannot read an HTTP status.
    pub async fn connect(&self, handshake: &Handshake<'_>) -> Result<Admission, Refusal> {
        let admission = self.admit(handshake)?;
        // Boxed, as few have to ask: what waits for this is carried about by all who come.
        if admission.app_seat.is_some()
            && self.shares_quota(&admission.tenant)
            && !Box::pin(self.is_within_quota(&admission.tenant)).await
        {
            return Err(Refusal { reason: CloseReason::OverQuota, version: Some(admission.version) });
        }
        admission.tenant.metrics.opened.inc();
        Ok(admission)
    }

    /// As far as this node can decide.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Admission, Refusal> {
        let tenant = self.tenants.by_key(handshake.key);
        let assume_7 = tenant.is_some_and(|tenant| tenant.app.config().assume_protocol_7);
        let version = parse_version(handshake.protocol, assume_7)?;
        let refuse = |reason| Refusal { reason, version: Some(version) };
        if !SUPPORTED_VERSIONS.contains(&version) {
            return Err(refuse(CloseReason::UnsupportedVersion));
        }
        let tenant = tenant.ok_or_else(|| refuse(CloseReason::unknown_app(handshake.key)))?;
        let config = tenant.app.config();
        if !config.enabled {
            return Err(refuse(CloseReason::AppDisabled));
        }
        if config.require_tls && !handshake.secure {
            return Err(refuse(CloseReason::TlsRequired));
        }
        if !origin_allowed(&config.allowed_origins, handshake.origin) {
            return Err(refuse(CloseReason::OriginNotAllowed));
        }
        let address_seat = self.enter(handshake.peer).map_err(|_| refuse(CloseReason::AddressOverCapacity))?;
        let node_seat = Seat::take(&self.seats, self.max_connections);
        let node_seat = node_seat.ok_or_else(|| refuse(CloseReason::OverCapacity))?;
        let app_seat = match config.authorized_connections {
            true => None,
            false => Some(tenant.app.take_seat().ok_or_else(|| refuse(CloseReason::OverQuota))?),
        };
        let places = [node_seat, tenant.app.count_connection()];
        Ok(Admission { tenant: Arc::clone(tenant), version, places, address_seat, app_seat })
    }

    /// A place among the clients of an address.
    fn enter(&self, peer: &PeerAddress) -> Result<AddressSeat, Excess> {
        self.clients.enter(peer.network(), Instant::now()).inspect_err(|excess| {
            self.metrics.connection_dropped(excess.name());
            let setting = excess.setting();
            warn!(%peer, setting, "client refused: its address has more connections than it may have");
        })
    }

    /// Whether others have a part in an app's quota of connections.
    fn shares_quota(&self, tenant: &Tenant) -> bool {
        self.cluster.redis().is_some() && tenant.app.config().limits.connections > 0
    }

    /// Whether the app is within its quota with the connections that it has here. While the others cannot be asked, these
    /// are what counts: better a few too many than none at all.
    async fn is_within_quota(&self, tenant: &Tenant) -> bool {
        let quota = tenant.app.config().limits.connections;
        let Some(redis) = self.cluster.redis() else { return true };
        redis.take_seat(tenant.app.id(), tenant.app.seats(), quota).await.unwrap_or_else(|error| {
            debug!(app = tenant.app.id(), %error, "the quota of connections is this node's alone for now");
            true
        })
    }

    /// A place in the app's quota for a client that is here already. Without one it is sent away, if need be later.
    pub fn authorized(self: &Arc<Self>, client: &Client) -> Option<Seat> {
        let Some(seat) = client.tenant.app.take_seat() else {
            client.outbox.close(CloseReason::OverQuota);
            return None;
        };
        if self.shares_quota(&client.tenant) {
            let (node, client) = (Arc::clone(self), client.clone());
            // Ends by itself within `cluster.timeout`.
            tokio::spawn(async move {
                if !node.is_within_quota(&client.tenant).await {
                    client.outbox.close(CloseReason::OverQuota);
                }
            });
        }
        Some(seat)
    }

    /// A client that was admitted has its greeting.
    pub fn greeted(&self, client: &Client) {
        client.tenant.webhooks.connection_opened(client.source(), client.socket_id);
    }

    /// A connection has ended and left everything: for this reason, or because the client went or vanished. `user_id` was
    /// signed in on it.
    pub fn disconnected(&self, client: &Client, reason: Option<&CloseReason>, user_id: Option<&UserId>) {
        let Tenant { app, webhooks, metrics, .. } = &*client.tenant;
        webhooks.connection_closed(client.source(), client.socket_id, reason, user_id);
        metrics.closed(reason);
        metrics.dropped.inc_by(client.outbox.dropped());
        let (app, peer, socket_id) = (app.id(), &client.peer, client.socket_id);
        let Some(reason) = reason else {
            return debug!(app, %peer, %socket_id, "client left or vanished");
        };
        let code = reason.code();
        // A client that reads or sends too slowly is something an operator may want to act on; the rest is everyday life.
        match reason {
            CloseReason::SlowConsumer => info!(app, %peer, %socket_id, code, "client closed: it reads too slowly"),
            CloseReason::UnfinishedMessage => {
                let text = "client closed: a message was not complete within server.request_timeout";
                info!(app, %peer, %socket_id, code, "{text}");
            }
            _ => debug!(app, %peer, %socket_id, code, %reason, "client closed by us"),
        }
    }
}

fn parse_version(protocol: Option<&str>, assume_7: bool) -> Result<u32, Refusal> {
    let refuse = |reason| Refusal { reason, version: None };
    match protocol {
        None if assume_7 => Ok(7),
        None => Err(refuse(CloseReason::NoVersion)),
        Some(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refuse(CloseReason::InvalidVersion));
            }
            // An integer, but none that anybody ever used.
            text.parse().map_err(|_| refuse(CloseReason::UnsupportedVersion))
        }
    }
}
