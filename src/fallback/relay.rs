//! Requests for sessions of other nodes. Who has a session is known at Redis; the request goes there over HTTP, and the
//! answer comes back as it is. A client is best served by a balancer that sends all its requests to one node, and this is
//! for all the others.

use std::error::Error;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, HeaderName, HeaderValue, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::select;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tracing::{debug, warn};

use crate::cluster::RedisCluster;
use crate::http_client::{HttpClient, innermost};
use crate::metrics::RelayMetrics;
use crate::protocol::CloseReason;
use crate::response::{Body, TEXT, any_body, whole};
use crate::socket::PeerAddress;

use super::registry::Id;
use super::{Asked, packet};

/// Names the client of a request that another node has passed on. Whoever has not got its session says so then, and does
/// not pass it on again.
const RELAYED: HeaderName = HeaderName::from_static("fanfare-relayed");

/// Asks the node of a session to answer whoever receives now, because the node in between stops.
const HURRY: HeaderName = HeaderName::from_static("fanfare-hurry");

/// The headers of another node's answer that go on to the client: those that a session's answers have. The cookie of
/// SockJS is not among them, as the node in between sets it.
const PASSED_BACK: [HeaderName; 9] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ALLOW,
    CACHE_CONTROL,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    VARY,
    X_CONTENT_TYPE_OPTIONS,
    HeaderName::from_static("x-accel-buffering"),
];

/// Sessions whose node is remembered.
const MEMORY: usize = 100_000;

/// Silence after which the other node counts as gone. Whatever it has to say, it says something every 29 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Passes requests on.
#[derive(Debug)]
pub(super) struct Relay {
    client: OnceLock<Option<HttpClient>>,
    /// Nodes that had a session a short time ago.
    known: DashMap<Id, String>,
    metrics: RelayMetrics,
}

/// Whether another node has passed a request on.
pub(super) fn was_relayed(headers: &HeaderMap) -> bool {
    headers.contains_key(RELAYED)
}

/// Whether another node wants whoever receives to be answered.
pub(super) fn is_hurry(headers: &HeaderMap) -> bool {
    headers.contains_key(RELAYED) && headers.contains_key(HURRY)
}

/// Tells the node that has passed a request on that this one has no such session.
pub(super) fn not_here() -> Response<Body> {
    whole(StatusCode::MISDIRECTED_REQUEST, TEXT, "No such session on this node\n")
}

impl Relay {
    /// A relay that knows nobody yet.
    pub(super) fn new(metrics: RelayMetrics) -> Self {
        Self { client: OnceLock::new(), known: DashMap::new(), metrics }
    }

    /// The node that had a session a short time ago.
    pub(super) fn remembered(&self, id: &Id) -> Option<String> {
        self.known.get(id).map(|owner| owner.clone())
    }

    /// The node that has a session, but for one that has it no more. If it `begins`, and is nowhere, it is this node's from
    /// now on. While nobody can be asked, it is nowhere.
    pub(super) async fn find(&self, redis: &RedisCluster, id: &Id, begins: bool, gone: Option<&str>) -> Option<String> {
        self.known.remove(id);
        let owner = redis.session_owner(id.as_str(), begins, gone).await;
        let owner = owner.inspect_err(|error| debug!(session = %id, %error, "nobody can say who has a session"));
        let owner = owner.ok().flatten()?;
        if self.known.len() < MEMORY {
            self.known.insert(id.clone(), owner.clone());
        }
        Some(owner)
    }

    /// Forgets all of it; whoever needs it asks again.
    pub(super) fn tidy(&self) {
        self.known.clear();
    }

    /// The answer of another node, whose head has to come within `patience`. `None` if it has no such session, or is not
    /// there. `leave` completes when this node wants to be left alone.
    pub(super) async fn pass_on(
        &self,
        owner: &str,
        asked: Asked<'_>,
        peer: &PeerAddress,
        body: Bytes,
        patience: Duration,
        leave: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Response<Body>> {
        let client = self.client.get_or_init(connect).as_ref()?;
        let path = asked.target.split('?').next().unwrap_or_default();
        let request = as_relayed(owner, asked, peer, body)?;
        self.metrics.relayed();
        let mut leave: Leave = Box::pin(leave);
        let mut timeout = pin!(sleep(patience));
        let mut answer = pin!(client.begin(request));
        let polls = ["/xhr", "/jsonp"].iter().any(|poll| path.ends_with(poll));
        let mut hurried = !polls;
        let answer = loop {
            select! {
                biased;
                answer = &mut answer => break answer,
                () = &mut timeout => {
                    warn!(owner, "another node does not answer a request for one of its sessions");
                    self.metrics.failed();
                    return Some(whole(StatusCode::GATEWAY_TIMEOUT, TEXT, "The node of this session does not answer\n"));
                }
                // What the other node answers now is the last that this client hears from here; and it may already be on
                // its way, so nobody must drop it.
                () = &mut leave, if !hurried => {
                    hurried = true;
                    leave = Box::pin(pending());
                    if let Some(mut hurry) = as_relayed(owner, asked, peer, Bytes::new()) {
                        hurry.headers_mut().insert(HURRY, HeaderValue::from_static("yes"));
                        let client = client.clone();
                        // Ends by itself, and this process has no time to wait for it if it does not.
                        tokio::spawn(async move { timeout_at(Instant::now() + patience, client.begin(hurry)).await });
                    }
                }
            }
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::MISDIRECTED_REQUEST => None,
            Ok(answer) => {
                let (mut head, body) = answer.into_parts();
                let body = any_body(Relayed::new(body, leave, path.ends_with("/xhr_streaming")));
                let mut response = Response::new(body);
                *response.status_mut() = head.status;
                let headers = PASSED_BACK.into_iter().filter_map(|name| Some((head.headers.remove(&name)?, name)));
                response.headers_mut().extend(headers.map(|(value, name)| (name, value)));
                Some(response)
            }
            Err(error) => {
                self.metrics.failed();
                warn!(owner, error = innermost(&error), "another node cannot be reached for one of its sessions");
                if error.is_connect() {
                    return None;
                }
                Some(whole(StatusCode::BAD_GATEWAY, TEXT, "The node of this session cannot be reached\n"))
            }
        }
    }
}

/// The request as the other node gets it.
fn as_relayed(owner: &str, asked: Asked<'_>, peer: &PeerAddress, body: Bytes) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = format!("{}{}", owner.trim_end_matches('/'), asked.target).parse().ok()?;
    let passed_on = [CONTENT_TYPE, COOKIE].into_iter();
    let passed_on = passed_on.filter_map(|name| Some((name.clone(), asked.headers.get(&name)?.clone())));
    request.headers_mut().extend(passed_on);
    let origin = asked.origin.and_then(|origin| HeaderValue::from_str(origin).ok());
    request.headers_mut().extend(origin.map(|origin| (ORIGIN, origin)));
    let peer = HeaderValue::from_str(&peer.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    request.headers_mut().insert(RELAYED, peer);
    Some(request)
}

/// A client for other nodes. Where there are no root certificates, they cannot be reached over TLS.
fn connect() -> Option<HttpClient> {
    let client = HttpClient::new(true).or_else(|_| HttpClient::new(false));
    client.inspect_err(|error| warn!(%error, "other nodes cannot be asked for their sessions")).ok()
}

/// Completes when this node wants to be left alone by a client.
type Leave = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The answer of another node on its way.
struct Relayed {
    body: Incoming,
    silence: Pin<Box<Sleep>>,
    leave: Leave,
    /// The client reads line by line, and would take a mere end for a failure.
    lines: bool,
    /// A line was begun.
    begun: bool,
    over: bool,
}

impl Relayed {
    fn new(body: Incoming, leave: Leave, lines: bool) -> Self {
        Self { body, silence: Box::pin(sleep(SILENCE)), leave, lines, begun: false, over: false }
    }
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silence.as_mut().reset(Instant::now() + SILENCE);
                if let Some(last) = frame.data_ref().and_then(|data| data.last()) {
                    this.begun = *last != b'\n';
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        if this.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the node of this session has fallen silent".into())));
        }
        if !this.begun && this.leave.as_mut().poll(cx).is_ready() {
            this.over = true;
            if this.lines {
                let reason = CloseReason::ShuttingDown;
                let mut line = packet::close(reason.code(), &reason.to_string());
                line.push(b'\n');
                return Poll::Ready(Some(Ok(Frame::data(line.into()))));
            }
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
