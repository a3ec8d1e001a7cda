//! The URL table of the public listener.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::auth_endpoint::Endpoint;
use crate::authorizers::Authorizers;
use crate::config::ServerConfig;
use crate::node::Node;
use crate::response::{TEXT, respond};
use crate::shutdown::Shutdown;
use crate::{api, auth_endpoint, websocket};

/// Knows who answers what.
#[derive(Debug, Clone)]
pub(super) struct Router(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: api::Context,
    auth: auth_endpoint::Context,
    path_prefix: String,
    drain_period: Duration,
    trust_forwarded_headers: bool,
}

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Address and port.
    pub(super) address: String,
    /// Whether it is encrypted.
    pub(super) secure: bool,
}

impl Router {
    pub(super) fn new(
        config: &ServerConfig,
        node: Arc<Node>,
        authorizers: Arc<Authorizers>,
        shutdown: Shutdown,
    ) -> Self {
        let request_timeout = config.request_timeout;
        Self(Arc::new(Shared {
            api: api::Context { node: Arc::clone(&node), shutdown: shutdown.clone(), request_timeout },
            auth: auth_endpoint::Context { node, authorizers, shutdown, request_timeout },
            path_prefix: config.path_prefix.clone(),
            drain_period: config.drain_period,
            trust_forwarded_headers: config.trust_forwarded_headers,
        }))
    }

    /// How long a client may take for a request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.0.api.request_timeout
    }

    /// Answers a request.
    pub(super) async fn route(self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shared = &*self.0;
        let uri = request.uri().clone();
        let path = uri.path().strip_prefix(&shared.path_prefix).filter(|path| path.starts_with('/'));
        let segments: Vec<&str> = path.unwrap_or_default().split('/').skip(1).collect();
        match (segments.as_slice(), path) {
            (["app", key], _) if !key.is_empty() => {
                websocket::upgrade(shared.context(peer, &request), request, Some(key)).await
            }
            _ if websocket::is_upgrade(&request) => {
                websocket::upgrade(shared.context(peer, &request), request, None).await
            }
            (["apps" | "users", ..], Some(path)) => api::handle(&shared.api, request, path).await,
            (["pusher", endpoint @ ("auth" | "user-auth")], _) if !shared.auth.authorizers.is_empty() => {
                let endpoint = if *endpoint == "auth" { Endpoint::Channels } else { Endpoint::Users };
                let peer = shared.client(peer, &request).address;
                auth_endpoint::handle(&shared.auth, &peer, request, endpoint).await
            }
            ([""], _) => {
                respond(StatusCode::OK, TEXT, "This is a Fanfare server. It speaks the Pusher Channels protocol.\n")
            }
            _ => respond(StatusCode::NOT_FOUND, TEXT, "Not found\n"),
        }
    }
}

impl Shared {
    /// Who really sent the request.
    fn client(&self, peer: Peer, request: &Request<Incoming>) -> Peer {
        if self.trust_forwarded_headers { peer.behind_proxy(request.headers()) } else { peer }
    }

    fn context(&self, peer: Peer, request: &Request<Incoming>) -> websocket::Context {
        let peer = self.client(peer, request);
        websocket::Context {
            node: Arc::clone(&self.api.node),
            shutdown: self.api.shutdown.clone(),
            drain_period: self.drain_period,
            upgrade_timeout: self.api.request_timeout,
            peer: peer.address,
            secure: peer.secure,
        }
    }
}

impl Peer {
    /// What the proxy says about its client.
    fn behind_proxy(mut self, headers: &HeaderMap) -> Self {
        let first = |name: &str| headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
        if let Some(address) = first("x-forwarded-for") {
            self.address = address.to_owned();
        }
        if let Some(scheme) = first("x-forwarded-proto") {
            self.secure = matches!(scheme, "https" | "wss");
        }
        self
    }
}
