//! From an HTTP request to a running connection (§1.1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::{debug, info};

use crate::auth::query_pairs;
use crate::node::{Handshake, Node, Refusal};
use crate::protocol::CloseReason;
use crate::response::{TEXT, respond};
use crate::session::Session;
use crate::shutdown::Shutdown;
use crate::socket::Socket;

use super::connection;

/// The subprotocol that strict clients offer, with the protocol version behind it.
const SUBPROTOCOL: &str = "pusher-channels-protocol-";

/// What an upgrade has to know about the server and the client's connection.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    /// Who says stop, and waits for the connection.
    pub shutdown: Shutdown,
    /// The time over which connections are closed when the server stops.
    pub drain_period: Duration,
    /// How long the client may take to switch protocols.
    pub upgrade_timeout: Duration,
    /// Where the client is, for the log.
    pub peer: String,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
}

/// Whether a request wants to become a WebSocket.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Answers an upgrade request. Whatever speaks against the client is said after the upgrade, in a close frame: an HTTP
/// status would be a connection failure without a reason to a browser, which would try for ever. `key` is the app key in
/// the path, or `None` if the path is not that of an app.
pub async fn upgrade(context: Context, mut request: Request<Incoming>, key: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = match create_response_with_body(&request, Full::default) {
        Ok(response) => response,
        Err(error) => return no_handshake(&request, &error.to_string()),
    };
    if let Some(protocol) = offered_subprotocol(request.headers()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let verdict = judge(&context, request.uri(), request.headers(), key).await;
    if let Err(refusal) = &verdict {
        let (code, reason) = (refusal.reason.code(), &refusal.reason);
        context.node.metrics().refused(code);
        info!(peer = context.peer, path = request.uri().path(), code, %reason, "client refused");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let shutdown = context.shutdown.clone();
    shutdown.spawn(async move {
        let upgraded = match timeout(context.upgrade_timeout, upgraded).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return debug!(peer = context.peer, %error, "upgrade failed"),
            Err(_) => return debug!(peer = context.peer, "upgrade timed out"),
        };
        let Ok(parts) = downcast::<TokioIo<Socket>>(upgraded) else {
            unreachable!("the listener serves HTTP on nothing but sockets")
        };
        let socket = parts.io.into_inner();
        match verdict {
            Ok(session) => {
                // A task of its own, so that nothing of the handshake takes up memory for the life of the connection.
                let shutdown = context.shutdown.clone();
                shutdown.spawn(connection::converse(socket, parts.read_buf, session, context));
            }
            Err(refusal) => connection::refuse(socket, parts.read_buf, refusal).await,
        }
    });
    response
}

/// Opens a session, or says why not.
async fn judge(context: &Context, uri: &Uri, headers: &HeaderMap, key: Option<&str>) -> Result<Session, Refusal> {
    let query = query_pairs(uri.query().unwrap_or_default(), true);
    let protocol = query.iter().find(|(name, _)| name == "protocol").map(|(_, value)| value.as_str());
    let Some(key) = key else {
        let version = protocol.and_then(|text| text.parse().ok());
        return Err(Refusal { reason: CloseReason::PathNotFound, version });
    };
    // Non-ASCII bytes in an origin match no pattern, but they are an origin.
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let handshake = Handshake { key, protocol, origin, secure: context.secure };
    let session = Session::open(&context.node, &handshake).await?;
    debug!(peer = context.peer, app = session.app_id(), socket_id = %session.socket_id(), "client connected");
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
        Method::GET if is_upgrade(request) => (StatusCode::BAD_REQUEST, &[][..]),
        Method::GET => (StatusCode::UPGRADE_REQUIRED, &[(UPGRADE, "websocket"), (CONNECTION, "upgrade")][..]),
        _ => (StatusCode::METHOD_NOT_ALLOWED, &[(ALLOW, "GET")][..]),
    };
    let mut response = respond(status, TEXT, format!("This is a WebSocket endpoint: {error}\n"));
    for (name, value) in hints {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
