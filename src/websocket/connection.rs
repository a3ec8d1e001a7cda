//! One task for one connection: reads, writes and waits, until one of the three ends it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::select;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info};

use crate::node::Refusal;
use crate::outbox::Outbox;
use crate::protocol::{ClientError, CloseReason, Frame};
use crate::session::{Due, Session};
use crate::socket::Socket;

use super::Context;
use super::inbound::{Inbound, close_reason};
use super::outbound::{Outbound, PING};

/// How long a peer may take to read the close frame and echo it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Clients per second that may come back without anybody noticing.
const CALM_RATE: f64 = 100.0;

/// Room for a refusal.
const REFUSAL_OUTBOX: usize = 4 * 1024;

/// Who ended the conversation.
enum End {
    /// We did.
    Server(CloseReason),
    /// The client sent a close frame, and its echo is in the outbox.
    Client,
    /// The connection broke.
    Lost,
}

/// Serves a client until it goes, is sent away or vanishes.
pub(super) async fn converse(socket: Socket, early: Bytes, mut session: Session, context: Context) {
    let (reader, writer) = socket.into_split();
    let mut inbound = Inbound::new(reader, early, Arc::clone(session.outbox()));
    let mut outbound = Outbound::new(writer, Arc::clone(session.outbox()));
    let end = select! {
        end = listen(&mut inbound, &mut session, &context) => end,
        result = outbound.run() => result.map_or(End::Lost, End::Server),
    };
    let (socket_id, version) = (session.socket_id(), session.version());
    if let End::Server(CloseReason::SlowConsumer) = end {
        outbound.give_up_backlog();
    }
    // Before any good-byes: the others should not wait for a peer that may be gone.
    session.close(if let End::Server(reason) = &end { Some(reason) } else { None });
    drop(session);
    match end {
        End::Server(reason) => {
            log_our_decision(&reason, &context.peer, socket_id);
            part(inbound, outbound, &reason, Some(version)).await;
        }
        End::Client => {
            debug!(peer = context.peer, %socket_id, "client closed");
            let _ = timeout(FAREWELL_TIMEOUT, outbound.flush()).await;
        }
        End::Lost => debug!(peer = context.peer, %socket_id, "connection lost"),
    }
}

/// Tells a client why it may not stay.
pub(super) async fn refuse(socket: Socket, early: Bytes, refusal: Refusal) {
    let (reader, writer) = socket.into_split();
    let outbox = Arc::new(Outbox::new(REFUSAL_OUTBOX));
    outbox.close(refusal.reason.clone());
    let inbound = Inbound::new(reader, early, Arc::clone(&outbox));
    part(inbound, Outbound::new(writer, outbox), &refusal.reason, refusal.version).await;
}

/// Handles messages and deadlines. Whatever is our decision goes to the outbox, from where it reaches the writer.
async fn listen(inbound: &mut Inbound, session: &mut Session, context: &Context) -> End {
    let mut deadline = pin!(sleep_until(session.deadline().into()));
    let mut leave = pin!(time_to_leave(context));
    let mut leaving = false;
    loop {
        select! {
            message = inbound.next() => {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        let Some(reason) = close_reason(&error) else { return End::Lost };
                        session.outbox().close(reason);
                        return std::future::pending().await;
                    }
                };
                session.alive(Instant::now());
                match message {
                    Message::Text(text) => session.handle(&text),
                    Message::Binary(_) => session.refuse(&ClientError::Binary),
                    Message::Close(_) => {
                        // Lets tungstenite put its echo into the outbox; it has nothing more to say then.
                        let _ = timeout(FAREWELL_TIMEOUT, inbound.next()).await;
                        return End::Client;
                    }
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            () = &mut deadline => {
                if session.on_deadline(Instant::now()) == Due::Probe {
                    session.outbox().push(Frame::control(&PING[..]));
                }
                deadline.as_mut().reset(session.deadline().into());
            }
            () = &mut leave, if !leaving => {
                leaving = true;
                session.outbox().close(CloseReason::ShuttingDown);
            }
        }
    }
}

/// Completes at some moment of the drain period: if all clients were sent away at once, they would all be back at once.
/// A few clients are no crowd, and need not wait for it.
async fn time_to_leave(context: &Context) {
    context.shutdown.requested().await;
    let calmly = Duration::from_secs_f64(context.node.connections() as f64 / CALM_RATE);
    // Leaves the last clients the time to read why.
    let spread = calmly.min(context.drain_period.mul_f64(0.8));
    sleep(spread.mul_f64(rand::random_range(0.0..1.0))).await;
}

/// Says why, and waits a little for the peer to take note.
async fn part(mut inbound: Inbound, mut outbound: Outbound, reason: &CloseReason, version: Option<u32>) {
    let farewell = async {
        if outbound.farewell(reason, version).await.is_err() {
            return;
        }
        match reason {
            // The peer did not even answer a ping.
            CloseReason::NoPong => {}
            // What comes now makes no sense, but must be read: closing a socket with unread bytes resets the
            // connection, and the peer would lose the reason.
            CloseReason::WebSocketProtocol(_) | CloseReason::InvalidUtf8 | CloseReason::MessageTooLarge => {
                outbound.shutdown().await;
                inbound.discard().await;
            }
            _ => while !matches!(inbound.next().await, Ok(Message::Close(_)) | Err(_)) {},
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}

/// A client that reads too slowly is something an operator may want to act on; the rest is everyday life.
fn log_our_decision(reason: &CloseReason, peer: &str, socket_id: crate::protocol::SocketId) {
    let code = reason.code();
    match reason {
        CloseReason::SlowConsumer => info!(peer, %socket_id, code, "client closed: it reads too slowly"),
        _ => debug!(peer, %socket_id, code, %reason, "client closed by us"),
    }
}
