//! From an HTTP request to a running connection (§1.1).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use crate::auth::query_pairs;
use crate::node::{Handshake, Node, Refusal, Stranger};
use crate::open_sockets::Place;
use crate::protocol::CloseReason;
use crate::response::{Date, TEXT, respond};
use crate::rewound::Rewound;
use crate::session::Session;
use crate::shutdown::Shutdown;
use crate::socket::{PeerAddress, Socket};

use super::alarm::TimeLimits;
use super::connection;

/// The subprotocol that strict clients offer, with the protocol version behind it.
const SUBPROTOCOL: &str = "pusher-channels-protocol-";

/// Bytes of the answer to an upgrade, with the greeting behind it.
const FIRST_WORDS: usize = 384;

/// What an upgrade has to know about the server and the client's connection.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    /// Who says stop, and waits for the connection.
    pub shutdown: Shutdown,
    /// How long the client may take for what it has to do.
    pub limits: Arc<TimeLimits>,
    /// Where the client is, for the log.
    pub peer: PeerAddress,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
    /// The place of its socket, if nobody else keeps it until the connection ends.
    pub place: Option<Arc<Place>>,
}

/// What an upgrade request says.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its path, for the log.
    pub path: &'a str,
    /// The app key in the path, or `None` if the path is not that of an app.
    pub key: Option<&'a str>,
    /// Its query string; empty if there is none.
    pub query: &'a str,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
}

/// An upgrade that was decided about.
#[derive(Debug)]
pub struct Upgraded {
    verdict: Result<Session, Refusal>,
    context: Context,
}

/// Whether a request wants to become a WebSocket.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether this is a `Sec-WebSocket-Key`: 16 bytes in base64, in the one way in which they can be written (RFC 6455, 4.1).
pub fn is_challenge(key: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key.as_bytes() {
        // The last digit has two bits of the last byte, and nothing behind them.
        [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'='] => digits.len() == 21 && digits.iter().all(is_digit),
        _ => false,
    }
}

/// The response of the handshake.
///
/// # Errors
/// The request is none: the response to it.
fn switching(request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Box<Response<Full<Bytes>>>> {
    let mut keys = request.headers().get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().and_then(|key| key.to_str().ok());
    let has_key = keys.next().is_none() && key.is_some_and(is_challenge);
    let refuse = |mistake: &str| Err(Box::new(no_handshake(request, mistake)));
    match create_response_with_body(request, Full::default) {
        Err(error) => refuse(&error.to_string()),
        Ok(_) if !has_key => refuse("the Sec-WebSocket-Key is not one value of 16 bytes in base64"),
        // A proxy may have taken the body for the first frames, or the first frames for the body.
        Ok(_) if request.body().size_hint().exact() != Some(0) => refuse("a handshake has no body"),
        Ok(response) => Ok(response),
    }
}

/// Answers an upgrade request. Whatever speaks against the client is said after the upgrade, in a close frame: an HTTP
/// status would be a connection failure without a reason to a browser, which would try for ever. `key` is the app key in
/// the path, or `None` if the path is not that of an app.
pub async fn upgrade(context: Context, request: Request<Incoming>, key: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = match switching(&request) {
        Ok(response) => response,
        Err(response) => return *response,
    };
    if let Some(protocol) = offered_subprotocol(request.headers()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    // Non-ASCII bytes in an origin match no pattern, but they are an origin.
    let origin = request.headers().get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let verdict = judge(&context, &Asked { path, key, query, origin }).await;
    let serve = |context, socket, early| Upgraded { verdict, context }.serve(socket, early);
    when_upgraded(context, request, serve);
    response
}

/// Answers a request to talk of something else than one of the channels' URLs asks for: `talk` goes on with the socket and
/// what was read of it already.
pub fn accept<F>(
    context: Context,
    request: Request<Incoming>,
    talk: impl FnOnce(Context, Socket, Vec<u8>) -> F + Send + 'static,
) -> Response<Full<Bytes>>
where
    F: Future<Output = ()> + Send + 'static,
{
    switching(&request).inspect(|_| when_upgraded(context, request, talk)).unwrap_or_else(|response| *response)
}

/// Goes on with the socket once the answer is written.
fn when_upgraded<F>(
    context: Context,
    mut request: Request<Incoming>,
    talk: impl FnOnce(Context, Socket, Vec<u8>) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let upgraded = hyper::upgrade::on(&mut request);
    let shutdown = context.shutdown.clone();
    shutdown.spawn(async move {
        let upgraded = match timeout(context.limits.message, upgraded).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return debug!(peer = %context.peer, %error, "upgrade failed"),
            Err(_) => return debug!(peer = %context.peer, "upgrade timed out"),
        };
        let Ok(parts) = downcast::<TokioIo<Rewound>>(upgraded) else {
            unreachable!("the listener serves HTTP on nothing but sockets")
        };
        let (socket, rest) = parts.io.into_inner().into_parts();
        let early = [parts.read_buf, rest].concat();
        talk(context, socket, early).await;
    });
}

/// Upgrades a request that is a whole handshake, as the lane in front of hyper has found. Returns what to write first:
/// the answer to `challenge`, the `Sec-WebSocket-Key`, and behind it the greeting, so that both are one packet.
pub async fn switch(context: Context, asked: &Asked<'_>, challenge: &str) -> (Vec<u8>, Upgraded) {
    let verdict = judge(&context, asked).await;
    let accept = derive_accept_key(challenge.as_bytes());
    let mut bytes = Vec::with_capacity(FIRST_WORDS);
    bytes.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n");
    for part in [b"sec-websocket-accept: ", accept.as_bytes(), b"\r\ndate: ", Date::now().as_bytes(), b"\r\n\r\n"] {
        bytes.extend_from_slice(part);
    }
    if let Ok(session) = &verdict {
        session.outbox().take().iter().for_each(|frame| bytes.extend_from_slice(frame.websocket()));
    }
    (bytes, Upgraded { verdict, context })
}

impl Upgraded {
    /// Whether the client may not stay, and is only told why.
    pub fn is_refusal(&self) -> bool {
        self.verdict.is_err()
    }

    /// Talks to the client until the connection ends. `early` was read along with the handshake.
    ///
    /// Boxed here, so that whoever waits for it keeps nothing else: this is what takes up memory for the life of a
    /// connection.
    pub fn serve(self, socket: Socket, early: Vec<u8>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self.verdict {
            Ok(session) => Box::pin(connection::converse(socket, early, session, self.context)),
            Err(refusal) => {
                let place = self.context.place;
                Box::pin(async move {
                    let refuse = connection::refuse(socket, early, refusal);
                    match &place {
                        Some(place) => place.until_needed(refuse).await,
                        None => refuse.await,
                    }
                })
            }
        }
    }
}

/// Opens a session, or says why not.
async fn judge(context: &Context, asked: &Asked<'_>) -> Result<Session, Refusal> {
    let verdict = open(context, asked).await;
    if let Err(refusal) = &verdict {
        let Asked { path, key, origin, .. } = *asked;
        let stranger = Stranger { peer: &context.peer, path: Some(path), key, origin };
        context.node.refused(&stranger, &refusal.reason);
    }
    verdict
}

async fn open(context: &Context, asked: &Asked<'_>) -> Result<Session, Refusal> {
    let query = query_pairs(asked.query, true);
    let protocol = query.iter().find(|(name, _)| name == "protocol").map(|(_, value)| &**value);
    let Some(key) = asked.key else {
        let version = protocol.and_then(|text| text.parse().ok());
        return Err(Refusal { reason: CloseReason::PathNotFound, version });
    };
    let handshake = Handshake { key, protocol, origin: asked.origin, secure: context.secure, peer: &context.peer };
    let session = Session::open(&context.node, &handshake).await?;
    debug!(peer = %context.peer, app = session.app_id(), socket_id = %session.socket_id(), "client connected");
    Ok(session)
}

/// The first subprotocol on offer that names a version; a client that offers one insists on hearing it.
fn offered_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let offers = offers.iter().filter_map(|value| value.to_str().ok());
    let mut offers = offers.flat_map(|value| value.split(',')).map(str::trim);
    let version = |offer: &str| offer.strip_prefix(SUBPROTOCOL).is_some_and(|version| version.parse::<u32>().is_ok());
    offers.find(|offer| version(offer)).and_then(|offer| HeaderValue::from_str(offer).ok())
}

/// The plain HTTP answer to a request that is no WebSocket handshake.
fn no_handshake(request: &Request<Incoming>, error: &str) -> Response<Full<Bytes>> {
    let (status, hints) = match *request.method() {
        Method::GET if is_upgrade(request) => (StatusCode::BAD_REQUEST, &[(CONNECTION, "close")][..]),
        Method::GET => (StatusCode::UPGRADE_REQUIRED, &[(UPGRADE, "websocket"), (CONNECTION, "upgrade")][..]),
        _ => (StatusCode::METHOD_NOT_ALLOWED, &[(ALLOW, "GET")][..]),
    };
    let mut response = respond(status, TEXT, format!("This is a WebSocket endpoint: {error}\n"));
    for (name, value) in hints {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
