//! `[fallbacks]`: the HTTP transports for clients that cannot use WebSockets.

use std::time::Duration;

/// `[fallbacks]`.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbacksConfig {
    /// Whether there are HTTP streaming and polling, as pusher-js has had them since version 2.2.
    pub enabled: bool,
    /// Whether there is SockJS, too: for old browsers, and for other SockJS clients.
    pub sockjs: bool,
    /// The path that all their URLs begin with: the `httpPath` of pusher-js.
    pub path: String,
    /// The host name at which clients reach this node and no other, and to which they send everything that follows; empty:
    /// they go on with the one they have.
    pub hostname: String,
    /// How long a client may be away between two requests before it counts as gone.
    pub grace: Duration,
    /// Silence after which a client is told that the connection lives.
    pub heartbeat: Duration,
    /// Sessions of one IP address, or of one IPv6 network of 64 bits; 0 = no limit. Above it: close code 4100.
    pub sessions_per_address: u64,
    /// Set a cookie that a balancer can hash: `JSESSIONID`, as SockJS servers do.
    pub cookie: bool,
    /// Patterns of the URLs from which the pages of SockJS for iframes may load the client. The first one without `*` is
    /// what they load when the client does not say what.
    pub client_scripts: Vec<String>,
}

impl Default for FallbacksConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sockjs: true,
            path: "/pusher".to_owned(),
            hostname: String::new(),
            grace: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            sessions_per_address: 10_000,
            cookie: false,
            client_scripts: vec!["https://js.pusher.com/*".to_owned(), "http://js.pusher.com/*".to_owned()],
        }
    }
}
