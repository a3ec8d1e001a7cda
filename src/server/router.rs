//! The URL table of the public listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::addresses::{Addresses, Network};
use crate::api::ApiResponse;
use crate::auth_endpoint::Endpoint;
use crate::authorizers::Authorizers;
use crate::body_budget::BodyBudget;
use crate::config::ServerConfig;
use crate::fallback::{self, Fallbacks, HangUp};
use crate::node::Node;
use crate::open_sockets::Place;
use crate::request_body::RequestBody;
use crate::response::{Answer, Body, TEXT, any_body, respond};
use crate::shutdown::Shutdown;
use crate::socket::PeerAddress;
use crate::websocket::{TimeLimits, Upgraded};
use crate::{api, auth_endpoint, websocket};

use super::plain::Head;
use super::strict;

/// Knows who answers what.
#[derive(Debug, Clone)]
pub(super) struct Router(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: api::Context,
    auth: auth_endpoint::Context,
    fallbacks: Arc<Fallbacks>,
    path_prefix: String,
    limits: Arc<TimeLimits>,
    trust_forwarded_headers: bool,
}

/// Who answers a plain request.
#[derive(Debug)]
pub(super) enum Route<'b> {
    /// The API.
    Api,
    /// The HTTP transports.
    Fallback,
    /// The WebSocket endpoint of the app with this key.
    WebSocket(&'b str),
}

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: PeerAddress,
    /// Whether it is encrypted.
    pub(super) secure: bool,
    /// The place of its socket, where it may outlive the HTTP connection.
    pub(super) place: Option<Arc<Place>>,
}

impl Router {
    pub(super) fn new(
        config: &ServerConfig,
        node: Arc<Node>,
        authorizers: Arc<Authorizers>,
        fallbacks: Arc<Fallbacks>,
        sockets: Arc<Addresses>,
        bodies: BodyBudget,
        shutdown: Shutdown,
    ) -> Self {
        let request_timeout = config.request_timeout;
        Self(Arc::new(Shared {
            api: api::Context {
                node: Arc::clone(&node),
                sockets,
                bodies: bodies.clone(),
                shutdown: shutdown.clone(),
                request_timeout,
            },
            auth: auth_endpoint::Context { node, authorizers, bodies, shutdown, request_timeout },
            fallbacks,
            path_prefix: config.path_prefix.clone(),
            limits: TimeLimits::of(config),
            trust_forwarded_headers: config.trust_forwarded_headers,
        }))
    }

    /// How long a client may take for a request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.0.api.request_timeout
    }

    /// Who answers a plain request; `None` for what is asked so seldom that [`Router::route`] may do it.
    pub(super) fn plain<'b>(&self, head: &Head<'b>) -> Option<Route<'b>> {
        let path = self.0.own_path(head.path)?;
        match head.challenge {
            None if path.starts_with("/apps/") || path.starts_with("/users/") => Some(Route::Api),
            None => self.0.fallbacks.plain_path(path).map(|_| Route::Fallback),
            Some(_) => {
                let key = path.strip_prefix("/app/").filter(|key| !key.is_empty() && !key.contains('/'));
                key.map(Route::WebSocket)
            }
        }
    }

    /// The memory for bodies of requests that anybody can send.
    pub(super) fn bodies(&self) -> &BodyBudget {
        &self.0.auth.bodies
    }

    /// The answer to a plain request of the API that cannot be authentic, whatever its body is.
    pub(super) fn refuse_by_head(&self, head: &Head<'_>) -> Option<Answer> {
        let path = self.0.own_path(head.path).unwrap_or_default();
        let call = api::Call { method: head.method, path, query: head.query, from: None };
        api::refuse_by_head(&self.0.api, call, head.body)
    }

    /// Answers a plain request of the API.
    pub(super) async fn call(&self, from: SocketAddr, head: &Head<'_>, body: RequestBody<'_>) -> ApiResponse {
        let path = self.0.own_path(head.path).unwrap_or_default();
        let call = api::Call { method: head.method, path, query: head.query, from: self.0.sockets_of(from) };
        api::handle(&self.0.api, call, body).await
    }

    /// Answers a plain request of a client with an HTTP transport. It may be long until there is an answer, and longer until
    /// its end.
    pub(super) async fn fall_back(
        &self,
        peer: Peer,
        head: &Head<'_>,
        body: RequestBody<'_>,
        hang_up: &HangUp,
    ) -> Response<Body> {
        let path = self.0.own_path(head.path).and_then(|path| self.0.fallbacks.plain_path(path)).unwrap_or_default();
        let Peer { address, secure, place } = self.0.client(peer, || (head.forwarded_for, head.forwarded_proto));
        let peer = fallback::Peer { address, secure, hang_up: hang_up.clone(), place };
        let Head { method, target, query, origin, .. } = *head;
        let asked = fallback::Asked { method, target, query, origin, headers: &HeaderMap::new() };
        self.0.fallbacks.answer(peer, asked, path, body).await
    }

    /// Upgrades a plain request; see [`websocket::switch`].
    pub(super) async fn switch(&self, peer: Peer, head: &Head<'_>, key: &str) -> (Vec<u8>, Upgraded) {
        let Head { path, query, origin, .. } = *head;
        let peer = self.0.client(peer, || (head.forwarded_for, head.forwarded_proto));
        let asked = websocket::Asked { path, key: Some(key), query, origin };
        websocket::switch(self.0.context(peer), &asked, head.challenge.unwrap_or_default()).await
    }

    /// Answers a request that hyper has read.
    pub(super) async fn route(self, peer: Peer, request: Request<Incoming>, hang_up: &HangUp) -> Response<Body> {
        if let Some(mistake) = strict::mistake(&request) {
            return strict::refuse(request.version(), mistake);
        }
        let shared = &*self.0;
        let uri = request.uri().clone();
        let path = shared.own_path(uri.path());
        let segments: Vec<&str> = path.unwrap_or_default().split('/').skip(1).collect();
        let response = match (segments.as_slice(), path) {
            (["app", key], _) if !key.is_empty() => {
                websocket::upgrade(shared.context(shared.sender(peer, &request)), request, Some(key)).await
            }
            (["pusher", endpoint @ ("auth" | "user-auth")], _) if !shared.auth.authorizers.is_empty() => {
                let endpoint = if *endpoint == "auth" { Endpoint::Channels } else { Endpoint::Users };
                let peer = shared.sender(peer, &request).address;
                // Boxed: it needs far more than any other request does.
                Box::pin(auth_endpoint::handle(&shared.auth, &peer, request, endpoint)).await
            }
            (_, Some(path)) if shared.fallbacks.own_path(path).is_some() => {
                let Peer { address, secure, place } = shared.sender(peer, &request);
                let peer = fallback::Peer { address, secure, hang_up: hang_up.clone(), place };
                let path = shared.fallbacks.own_path(path).unwrap_or_default();
                return shared.fallbacks.handle(peer, request, path).await;
            }
            _ if websocket::is_upgrade(&request) => {
                websocket::upgrade(shared.context(shared.sender(peer, &request)), request, None).await
            }
            (["apps" | "users", ..], Some(path)) => {
                let (head, body) = request.into_parts();
                let from = match peer.address {
                    PeerAddress::Direct(address) => shared.sockets_of(address),
                    PeerAddress::Forwarded(_) => None,
                };
                let call = api::Call { method: &head.method, path, query: uri.query().unwrap_or_default(), from };
                return api::handle(&shared.api, call, RequestBody::Coming(body)).await.into();
            }
            (["timeline", "v2", action, number], _) => return fallback::statistics(action, number),
            ([""], _) => {
                respond(StatusCode::OK, TEXT, "This is a Fanfare server. It speaks the Pusher Channels protocol.\n")
            }
            _ => respond(StatusCode::NOT_FOUND, TEXT, "Not found\n"),
        };
        response.map(any_body)
    }
}

impl Shared {
    /// The path without the configured prefix; `None` if it has another one.
    fn own_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&self.path_prefix).filter(|path| path.starts_with('/'))
    }

    /// Who really sent the request.
    fn sender(&self, peer: Peer, request: &Request<Incoming>) -> Peer {
        let value = |name: &str| request.headers().get(name)?.to_str().ok();
        self.client(peer, || (value("x-forwarded-for"), value("x-forwarded-proto")))
    }

    /// Who that is if a proxy may say it, with the values of `X-Forwarded-For` and `X-Forwarded-Proto`.
    fn client<'a>(&self, peer: Peer, forwarded: impl FnOnce() -> (Option<&'a str>, Option<&'a str>)) -> Peer {
        if !self.trust_forwarded_headers {
            return peer;
        }
        let (address, scheme) = forwarded();
        let first = |value: &'a str| value.split(',').next().unwrap_or_default().trim();
        Peer {
            address: address.map_or(peer.address, |address| PeerAddress::Forwarded(first(address).into())),
            secure: scheme.map_or(peer.secure, |scheme| matches!(first(scheme), "https" | "wss")),
            place: peer.place,
        }
    }

    /// The address that a socket counts for, where sockets are counted by address.
    fn sockets_of(&self, address: SocketAddr) -> Option<Network> {
        (!self.trust_forwarded_headers).then(|| Network::of(address.ip()))
    }

    fn context(&self, peer: Peer) -> websocket::Context {
        websocket::Context {
            node: Arc::clone(&self.api.node),
            shutdown: self.api.shutdown.clone(),
            limits: Arc::clone(&self.limits),
            peer: peer.address,
            secure: peer.secure,
            place: peer.place,
        }
    }
}
