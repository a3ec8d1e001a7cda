//! The HTTP transports, for clients that cannot use WebSockets (§7): streaming and polling as pusher-js does them, and
//! SockJS, from which that was taken.
//!
//! A client chooses the name of its session, receives with one request at a time and sends with others. What belongs
//! together is an [`http_session::HttpSession`], found by its name in the `registry`: a [`crate::session::Session`] like
//! that of every other client, and the one who receives for it. A `receiver` is a response; it takes what is in the
//! session's outbox when it can write it, so that nobody waits for a slow client here either. A `transport` is what
//! `packet`s look like in a response. Everything that the clock asks for is done by one task, which looks at all sessions.
//!
//! With other nodes, a request may come to one that does not have its session: `relay` passes it on to the one that has.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gauges;
mod headers;
mod http_session;
mod packet;
mod pages;
mod receiver;
mod registry;
mod relay;
mod sending;
mod sweep;
mod transport;
mod websocket;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::auth::query_pairs;
use crate::body_budget::BodyBudget;
use crate::cluster::RedisCluster;
use crate::config::{FallbacksConfig, Limits};
use crate::node::{Handshake, Node, Refusal, Stranger};
use crate::open_sockets::Place;
use crate::protocol::CloseReason;
use crate::request_body::{BodyError, BodyRules, RequestBody};
use crate::response::{Body, TEXT, any_body, empty, whole};
use crate::session::{Session, time_to_leave};
use crate::shutdown::Shutdown;
use crate::socket::PeerAddress;
use crate::websocket::TimeLimits;

use http_session::{Heard, HttpSession, Rules};
use receiver::Receiver;
use registry::{Id, Registry};
use relay::Relay;
use sending::Form;
use transport::Transport;

pub use receiver::HangUp;
pub use sweep::sweep;

/// Nodes that are asked for a session, one after the other: the one that is remembered, the one that Redis names, and
/// another one if that has died.
const ATTEMPTS: usize = 3;

/// How long another node may wait for a session that is about to begin.
const BEGINNING: Duration = Duration::from_secs(5);

/// The HTTP transports of a node.
#[derive(Debug)]
pub struct Fallbacks {
    node: Arc<Node>,
    shutdown: Shutdown,
    config: FallbacksConfig,
    rules: Arc<Rules>,
    registry: Registry,
    relay: Relay,
    limits: Arc<TimeLimits>,
    bodies: BodyBudget,
    /// Bytes that a client may send before it is known for which app.
    max_body: usize,
    /// Bytes that may wait for a client, whatever its app is.
    max_outbox: usize,
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: PeerAddress,
    /// Whether its connection is encrypted.
    pub secure: bool,
    /// Ends that connection, if whoever writes to it would wait for ever.
    pub hang_up: HangUp,
    /// The place of its socket, if nobody else keeps it until the connection ends.
    pub place: Option<Arc<Place>>,
}

/// What a request says, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `GET`, `POST` or `OPTIONS`, or one that gets nowhere.
    pub method: &'a Method,
    /// Path and query string, as they came.
    pub target: &'a str,
    /// The query string; empty if there is none.
    pub query: &'a str,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// All headers, or none of those that only SockJS and other nodes need.
    pub headers: &'a HeaderMap,
}

/// A request for a session.
struct Call<'a> {
    fallbacks: &'a Arc<Fallbacks>,
    peer: Peer,
    asked: Asked<'a>,
    id: Id,
}

impl Fallbacks {
    /// HTTP transports without sessions.
    pub fn new(
        node: Arc<Node>,
        config: FallbacksConfig,
        limits: Arc<TimeLimits>,
        bodies: BodyBudget,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let largest = |limit: fn(&Limits) -> usize| {
            node.tenants().all().iter().map(|tenant| limit(&tenant.app.config().limits)).max().unwrap_or(0)
        };
        let fallbacks = Arc::new(Self {
            max_body: largest(|limits| limits.http_body),
            max_outbox: largest(|limits| limits.outbox),
            rules: Arc::new(Rules {
                grace: config.grace,
                heartbeat: config.heartbeat,
                hostname: config.hostname.as_str().into(),
            }),
            registry: Registry::default(),
            relay: Relay::new(node.metrics().relay()),
            node,
            shutdown,
            config,
            limits,
            bodies,
        });
        fallbacks.node.metrics().register(Box::new(gauges::Gauges(Arc::downgrade(&fallbacks))));
        fallbacks
    }

    /// The path of a request below that of the HTTP transports, if they are on.
    pub fn own_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = path.strip_prefix(&self.config.path).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        below.filter(|_| self.config.enabled || self.config.sockjs)
    }

    /// Answers a request that hyper has read, whose path is `path` below that of the HTTP transports.
    pub async fn handle(self: &Arc<Self>, peer: Peer, request: Request<Incoming>, path: &str) -> Response<Body> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let framing = match segments.as_slice() {
            ["websocket"] => Some(websocket::Framing::Raw),
            [server, session, "websocket"] => Id::of_sockjs(server, session).map(|_| websocket::Framing::Packets),
            _ => None,
        };
        if let Some(framing) = framing.filter(|_| self.config.sockjs) {
            return websocket::upgrade(Arc::clone(self), peer, request, framing).await;
        }
        let (head, body) = request.into_parts();
        let asked = Asked {
            method: &head.method,
            target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
            query: head.uri.query().unwrap_or_default(),
            // Non-ASCII bytes in an origin match no pattern, but they are an origin.
            origin: head.headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default()),
            headers: &head.headers,
        };
        self.answer(peer, asked, path, RequestBody::Coming(body)).await
    }

    /// The path of a plain request below that of the HTTP transports, if [`Fallbacks::answer`] can answer it.
    pub fn plain_path<'b>(&self, path: &'b str) -> Option<&'b str> {
        self.own_path(path).filter(|path| self.config.enabled && path.starts_with("/app/"))
    }

    /// Answers a request, whose path is `path` below that of the HTTP transports.
    pub async fn answer(
        self: &Arc<Self>,
        peer: Peer,
        asked: Asked<'_>,
        path: &str,
        body: RequestBody<'_>,
    ) -> Response<Body> {
        let mut segments = path.split('/').skip(1);
        let segments: [Option<&str>; 6] = std::array::from_fn(|_| segments.next());
        let is_pusher = segments[0] == Some("app");
        let mut response = match segments {
            [Some("app"), Some(key), Some(server), Some(session), Some(action), None] if self.config.enabled => {
                let id = Id::of_pusher(key, server, session).filter(|_| !key.is_empty());
                self.call(peer, asked, id, action, body).await
            }
            [Some("app"), ..] => not_found(),
            _ if !self.config.sockjs => not_found(),
            [Some(server), Some(session), Some(action), None, ..] => {
                let mut response = self.call(peer, asked, Id::of_sockjs(server, session), action, body).await;
                if self.config.cookie {
                    headers::set_cookie(asked.headers, response.headers_mut());
                }
                response
            }
            [page, None, ..] => self.page(page.unwrap_or_default(), asked),
            _ => not_found(),
        };
        headers::complete(asked.headers, response.headers_mut(), is_pusher);
        response
    }

    /// Answers what is no session's.
    fn page(&self, page: &str, asked: Asked<'_>) -> Response<Body> {
        let answer: &dyn Fn() -> Response<Body> = match page {
            "" => &pages::greeting,
            "info" => &|| pages::info(&self.config),
            page if pages::is_iframe(page) => &|| pages::iframe(&self.config, asked.query, asked.headers),
            _ => return not_found(),
        };
        match *asked.method {
            Method::OPTIONS => headers::preflight(asked.headers, false),
            Method::GET | Method::HEAD => answer(),
            _ => wrong_method("GET, OPTIONS"),
        }
    }

    /// Answers a request for a session. `id` is `None` if its path names none that there could be.
    async fn call(
        self: &Arc<Self>,
        peer: Peer,
        asked: Asked<'_>,
        id: Option<Id>,
        action: &str,
        body: RequestBody<'_>,
    ) -> Response<Body> {
        let Some(id) = id else { return not_found() };
        let is_pusher = id.is_pusher();
        let (method, action) = match (action, is_pusher) {
            ("xhr_streaming", _) => (Method::POST, Ok(Action::Receive(Transport::XhrStreaming))),
            ("xhr", _) => (Method::POST, Ok(Action::Receive(Transport::Xhr))),
            ("xhr_send", _) => (Method::POST, Ok(Action::Send(Form::Json))),
            ("jsonp_send", false) => (Method::POST, Ok(Action::Send(Form::Field))),
            ("eventsource", false) => (Method::GET, Ok(Action::Receive(Transport::EventSource))),
            ("htmlfile", false) => {
                (Method::GET, callback(asked.query).map(|name| Action::Receive(Transport::HtmlFile(name))))
            }
            ("jsonp", false) => {
                (Method::GET, callback(asked.query).map(|name| Action::Receive(Transport::Jsonp(name))))
            }
            _ => return not_found(),
        };
        if *asked.method == Method::OPTIONS {
            return headers::preflight(asked.headers, is_pusher);
        }
        if *asked.method != method {
            return wrong_method(if method == Method::POST { "POST, OPTIONS" } else { "GET, OPTIONS" });
        }
        let call = Call { fallbacks: self, peer, asked, id };
        match action {
            Ok(Action::Receive(transport)) => {
                // Nobody reads it, and hyper would keep what comes of it for as long as a poll is held.
                drop(body);
                call.receive(transport).await
            }
            // Boxed: a poll that is held would keep room for it.
            Ok(Action::Send(form)) => Box::pin(call.send(form, body)).await,
            Err(reason) => whole(StatusCode::INTERNAL_SERVER_ERROR, TEXT, reason),
        }
    }

    /// Admits a client, or says why not.
    async fn open(
        &self,
        peer: &Peer,
        key: Option<&str>,
        query: &str,
        origin: Option<&str>,
    ) -> Result<Session, Refusal> {
        let query = query_pairs(query, true);
        let protocol = query.iter().find(|(name, _)| name == "protocol").map(|(_, value)| &**value);
        let opening = async {
            let refuse = |reason| Refusal { reason, version: protocol.and_then(|text| text.parse().ok()) };
            let key = key.ok_or_else(|| refuse(CloseReason::PathNotFound))?;
            if self.shutdown.is_requested() {
                return Err(refuse(CloseReason::ShuttingDown));
            }
            let handshake = Handshake { key, protocol, origin, secure: peer.secure, peer: &peer.address };
            Session::open(&self.node, &handshake).await
        };
        let verdict = opening.await;
        match &verdict {
            Ok(session) => {
                debug!(peer = %peer.address, app = session.app_id(), socket_id = %session.socket_id(), "client connected");
            }
            Err(refusal) => {
                let stranger = Stranger { peer: &peer.address, path: None, key, origin };
                self.node.refused(&stranger, &refusal.reason);
            }
        }
        verdict
    }

    /// Completes when the server stops, and it is the turn of a client.
    fn leave(self: &Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let fallbacks = Arc::clone(self);
        async move {
            fallbacks.shutdown.requested().await;
            sleep(time_to_leave(&fallbacks.node, fallbacks.limits.drain)).await;
        }
    }

    /// The refusal of a client whose address has all the sessions that it may have.
    fn too_many(&self, peer: &Peer) -> Refusal {
        let limit = self.config.sessions_per_address;
        warn!(peer = %peer.address, limit, "an address has as many sessions as fallbacks.sessions_per_address allows");
        let stranger = Stranger { peer: &peer.address, path: None, key: None, origin: None };
        self.node.refused(&stranger, &CloseReason::AddressOverCapacity);
        Refusal { reason: CloseReason::AddressOverCapacity, version: None }
    }
}

/// What a request for a session asks for.
enum Action {
    Receive(Transport),
    Send(Form),
}

impl Call<'_> {
    /// Receives for a session, which may have to begin first.
    async fn receive(self, transport: Transport) -> Response<Body> {
        let fallbacks = self.fallbacks;
        if relay::is_hurry(self.asked.headers) {
            fallbacks.registry.get(&self.id).iter().for_each(|session| session.hurry());
            return empty(StatusCode::NO_CONTENT);
        }
        if relay::was_relayed(self.asked.headers) {
            // The node that asks may have seen our claim before there is a session.
            fallbacks.registry.begun(&self.id, BEGINNING).await;
        }
        let session = match fallbacks.registry.get(&self.id) {
            Some(session) => session,
            None => {
                let _beginning = fallbacks.registry.begin(&self.id);
                // Boxed, like all that is done once in a session or only among nodes: a poll that is held would keep room for it.
                if let Some(response) = Box::pin(self.elsewhere(Bytes::new(), true)).await {
                    return response;
                }
                match Box::pin(self.begin()).await {
                    Ok(session) => session,
                    Err(refusal) => return refused(&transport, &refusal),
                }
            }
        };
        if !session.allows(self.asked.origin) {
            return forbidden();
        }
        let (hang_up, shutdown) = (self.peer.hang_up.clone(), fallbacks.shutdown.clone());
        let Ok(mut receiver) = Receiver::attach(session, transport.clone(), hang_up, shutdown) else {
            return once(&transport, &[packet::close(2010, "Another connection still open")]);
        };
        let body = match transport.is_streaming() {
            true => any_body(receiver),
            // All at once, so that it goes out at once, and the connection can serve the next request.
            false => any_body(Full::new(poll_fn(|cx| receiver.poll_part(cx)).await.unwrap_or_default())),
        };
        typed(body, &transport)
    }

    /// Begins a session that no node has.
    async fn begin(&self) -> Result<Arc<HttpSession>, Refusal> {
        let (fallbacks, id) = (self.fallbacks, &self.id);
        let seat = fallbacks.registry.take_seat(&self.peer.address, fallbacks.config.sessions_per_address);
        let session = match (seat, id.key()) {
            (None, _) => Err(fallbacks.too_many(&self.peer)),
            (Some(seat), None) => Ok((seat, None)),
            (Some(seat), Some(key)) => {
                let opened = fallbacks.open(&self.peer, Some(key), self.asked.query, self.asked.origin).await;
                opened.map(|session| (seat, Some(session)))
            }
        };
        match session {
            Ok((seat, session)) => {
                let session = HttpSession::new(id.clone(), Arc::clone(&fallbacks.rules), session, seat);
                // If two requests have raced to begin it, the second one goes on with what the first one has.
                Ok(fallbacks.registry.insert(session).unwrap_or_else(|there| there))
            }
            Err(refusal) => {
                if let Some(redis) = self.others() {
                    redis.release_sessions(&[id.as_str()]).await;
                }
                Err(refusal)
            }
        }
    }

    /// Takes in what a client sends.
    async fn send(self, form: Form, body: RequestBody<'_>) -> Response<Body> {
        self.take_in(form, body).await.unwrap_or_else(sending::unreadable)
    }

    async fn take_in(self, form: Form, body: RequestBody<'_>) -> Result<Response<Body>, BodyError> {
        let fallbacks = self.fallbacks;
        let session = fallbacks.registry.get(&self.id);
        let limit = match self.id.key().map(|key| fallbacks.node.tenants().by_key(key)) {
            Some(None) => return Ok(unknown_session()),
            Some(Some(tenant)) => tenant.app.config().limits.http_body,
            None => fallbacks.max_body,
        };
        if session.is_none() && self.others().is_none() {
            return Ok(unknown_session());
        }
        if session.as_ref().is_some_and(|session| !session.allows(self.asked.origin)) {
            return Ok(forbidden());
        }
        let rules =
            BodyRules { deadline: fallbacks.limits.message, budget: &fallbacks.bodies, shutdown: &fallbacks.shutdown };
        let (body, reservation) = body.read(limit, rules).await?.hold(&fallbacks.bodies)?;
        let Some(session) = session else {
            let elsewhere = reservation.race(self.elsewhere(body, false)).await?;
            return Ok(elsewhere.unwrap_or_else(unknown_session));
        };
        let messages = match form.parse(&body) {
            Ok(messages) => messages,
            Err(unusable) => return Ok(unusable.response()),
        };
        drop(body);
        reservation.resize(sending::memory(&messages))?;
        Ok(reservation.race(self.hear(&session, form, &messages)).await?)
    }

    /// Has a session handle messages, as fast as it may.
    async fn hear(&self, session: &HttpSession, form: Form, messages: &[String]) -> Response<Body> {
        let give_up = Instant::now() + self.fallbacks.limits.message;
        let (mut rest, mut early) = (messages, false);
        loop {
            match session.hear(rest, give_up.into_std()) {
                Heard::All => break,
                Heard::Part(count, until) => {
                    rest = &rest[count..];
                    match until {
                        Some(until) => sleep_until(Instant::from_std(until)).await,
                        None => yield_now().await,
                    }
                }
                Heard::TooFast(left) => return self.too_fast(left),
                // The receiver learns why the client was not admitted.
                Heard::Gone if early => return form.thanks(),
                Heard::Gone => return unknown_session(),
                Heard::Wish => {
                    self.admit(session, &rest[0]).await;
                    (rest, early) = (&rest[1..], true);
                }
                Heard::Opening(admission) => {
                    admission.cancelled().await;
                    early = true;
                }
            }
        }
        let limit = session.message_limit();
        match limit.is_some_and(|limit| messages.iter().any(|message| message.len() > limit)) {
            true => whole(StatusCode::PAYLOAD_TOO_LARGE, TEXT, "Message too large\n"),
            false => form.thanks(),
        }
    }

    /// Refuses messages that would have to wait longer than a request may take.
    fn too_fast(&self, messages: usize) -> Response<Body> {
        let peer = &self.peer.address;
        info!(%peer, messages, "messages refused: a client sends more than limits.messages_per_second allows");
        let mut response = whole(
            StatusCode::TOO_MANY_REQUESTS,
            TEXT,
            format!("{messages} messages were not accepted (setting limits.messages_per_second)\n"),
        );
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// Admits a SockJS client, which has said what it wants.
    async fn admit(&self, session: &HttpSession, message: &str) {
        let (key, query) = sending::wish(message);
        let opened = self.fallbacks.open(&self.peer, key.as_deref(), &query, self.asked.origin).await;
        session.admit(opened.map_err(|refusal| (refusal.reason, refusal.version)));
    }

    /// The other nodes, if one of them may have the session: none has any of an app that does not exist.
    fn others(&self) -> Option<&RedisCluster> {
        let node = &self.fallbacks.node;
        let possible = self.id.key().is_none_or(|key| node.tenants().by_key(key).is_some());
        node.cluster().redis().filter(|_| possible)
    }

    /// The answer of the node that has the session, if that is another one; `begins` if it shall be this one otherwise.
    async fn elsewhere(&self, body: Bytes, begins: bool) -> Option<Response<Body>> {
        let redis = self.others()?;
        let relay = &self.fallbacks.relay;
        if relay::was_relayed(self.asked.headers) {
            return Some(relay::not_here());
        }
        let mut owner = relay.remembered(&self.id);
        let mut gone = None;
        // What is remembered may be over, and what Redis says out of date; but not for ever.
        for _ in 0..ATTEMPTS {
            let found = match owner.take() {
                Some(owner) => owner,
                None => relay.find(redis, &self.id, begins, gone.as_deref()).await?,
            };
            let (peer, leave) = (&self.peer.address, self.fallbacks.leave());
            let patience = self.fallbacks.rules.heartbeat + self.fallbacks.limits.message;
            match relay.pass_on(&found, self.asked, peer, body.clone(), patience, leave).await {
                Some(response) => return Some(response),
                None => gone = Some(found),
            }
        }
        None
    }
}

/// Answers pusher-js about its statistics: with a call of the function with this number, or for those who read the answer
/// themselves (§7.7).
pub fn statistics(action: &str, number: &str) -> Response<Body> {
    if !(1..=10).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return not_found();
    }
    let mut response = match action {
        "jsonp" => pages::statistics(Some(number)),
        "xhr" => pages::statistics(None),
        _ => return not_found(),
    };
    headers::complete(&HeaderMap::new(), response.headers_mut(), true);
    response
}

fn callback(query: &str) -> Result<String, &'static str> {
    let query = query_pairs(query, true);
    let name = query.into_iter().find(|(name, _)| name == "c" || name == "callback").map(|(_, value)| value);
    let name = name.ok_or("\"callback\" parameter required")?;
    transport::is_callback(&name).then(|| name.into_owned()).ok_or("invalid \"callback\" parameter")
}

/// A response of one part.
fn once(transport: &Transport, packets: &[Vec<u8>]) -> Response<Body> {
    let mut part = transport.prelude();
    packets.iter().for_each(|packet| transport.write(&mut part, packet));
    typed(any_body(Full::from(part)), transport)
}

/// Tells a client why it may not stay. The session has to be open for it to listen.
fn refused(transport: &Transport, refusal: &Refusal) -> Response<Body> {
    let mut packets = vec![packet::open("")];
    packets.extend(packet::farewell(&refusal.reason, refusal.version));
    once(transport, &packets)
}

fn typed(body: Body, transport: &Transport) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(transport.content_type()));
    response
}

fn not_found() -> Response<Body> {
    whole(StatusCode::NOT_FOUND, TEXT, "Not found\n")
}

fn unknown_session() -> Response<Body> {
    whole(StatusCode::NOT_FOUND, TEXT, "No such session\n")
}

fn forbidden() -> Response<Body> {
    whole(StatusCode::FORBIDDEN, TEXT, "Origin not allowed\n")
}

fn wrong_method(allowed: &'static str) -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
