//! Clients that may not stay, whichever way they came.

use tracing::field::display;
use tracing::info;

use crate::protocol::CloseReason;
use crate::socket::PeerAddress;
use crate::untrusted::Untrusted;

use super::Node;

/// A client that may not stay.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub reason: CloseReason,
    /// Its protocol version, if it gave one that makes sense: it decides the form of the refusal.
    pub version: Option<u32>,
}

/// A client that was refused, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Stranger<'a> {
    /// Where it is.
    pub peer: &'a PeerAddress,
    /// The path that it came by.
    pub path: Option<&'a str>,
    /// The app key that it gave.
    pub key: Option<&'a str>,
    /// Its `Origin` header.
    pub origin: Option<&'a str>,
}

impl Node {
    /// Counts and logs a refusal.
    pub fn refused(&self, stranger: &Stranger<'_>, reason: &CloseReason) {
        self.metrics.refused(reason);
        let Stranger { peer, path, key, origin } = stranger;
        let app = key.and_then(|key| self.tenants.by_key(key)).map(|tenant| tenant.app.id());
        let (path, origin) =
            (path.map(|path| display(Untrusted(path))), origin.map(|origin| display(Untrusted(origin))));
        let (code, text) = (reason.code(), reason.to_string());
        info!(app, %peer, path, code, reason = %Untrusted(&text), origin, "client refused");
    }
}
