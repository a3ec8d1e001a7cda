//! One task for one connection: reads, writes and waits, until one of the three ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::node::Refusal;
use crate::open_sockets::Place;
use crate::outbox::Outbox;
use crate::protocol::{ClientError, CloseReason, Frame};
use crate::session::{Due, Session, time_to_leave};
use crate::shutdown::Shutdown;
use crate::socket::Socket;
use tokio::select;
use tokio::time::{sleep_until, timeout};

use super::Context;
use super::alarm::{Alarm, TimeLimits};
use super::inbound::{Inbound, Silence};
use super::outbound::{PING, farewell};
use super::reader::Message;

/// How long a peer may take to read the close frame and echo it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Room for a refusal.
const REFUSAL_OUTBOX: usize = 4 * 1024;

/// Room for what a client says that is refused.
const REFUSAL_LIMIT: usize = 1024;

/// Who ended the conversation.
enum End {
    /// We did.
    Server(CloseReason),
    /// The client sent a close frame, and its echo is in the outbox.
    Client,
    /// The connection broke.
    Lost,
}

/// A client and what serves it.
#[derive(Debug)]
struct Conversation {
    inbound: Inbound,
    session: Session,
    shutdown: Shutdown,
    limits: Arc<TimeLimits>,
    /// Of its socket, for as long as this lives.
    _place: Option<Arc<Place>>,
}

/// Serves a client until it goes, is sent away or vanishes.
pub(super) fn converse(socket: Socket, early: Vec<u8>, session: Session, context: Context) -> impl Future<Output = ()> {
    let outbox = Arc::clone(session.outbox());
    let inbound = Inbound::new(socket, early, outbox, session.message_limit());
    let Context { shutdown, limits, place, .. } = context;
    Conversation { inbound, session, shutdown, limits, _place: place }.run()
}

/// Tells a client why it may not stay.
pub(super) async fn refuse(socket: Socket, early: Vec<u8>, refusal: Refusal) {
    let outbox = Arc::new(Outbox::new(REFUSAL_OUTBOX));
    outbox.close(refusal.reason.clone());
    let inbound = Inbound::new(socket, early, Arc::clone(&outbox), REFUSAL_LIMIT);
    part(inbound, &outbox, &refusal.reason, refusal.version).await;
}

impl Conversation {
    /// Until the client is gone.
    #[expect(
        clippy::manual_async_fn,
        reason = "its future would have room for `self` twice, for as long as a client is here"
    )]
    fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let end = self.listen().await;
            // Boxed: nobody shall keep room for this until the time has come.
            Box::pin(self.end(end)).await;
        }
    }

    /// Ends the session, and says good-bye to the peer.
    async fn end(self, end: End) {
        let Self { inbound, mut session, _place, .. } = self;
        // Before any good-byes: the others should not wait for a peer that may be gone.
        session.close(if let End::Server(reason) = &end { Some(reason) } else { None });
        let outbox = Arc::clone(session.outbox());
        let version = session.version();
        drop(session);
        match end {
            End::Server(reason) => part(inbound, &outbox, &reason, Some(version)).await,
            End::Client => {
                if poll_fn(|cx| Poll::Ready(outbox.poll_drain(cx))).await.is_pending() {
                    let _ = timeout(FAREWELL_TIMEOUT, poll_fn(|cx| outbox.poll_drain(cx))).await;
                }
            }
            End::Lost => {}
        }
    }

    /// Handles messages and deadlines, and writes what others leave to this task. Whatever is our decision closes the
    /// outbox.
    async fn listen(&mut self) -> End {
        let Self { inbound, session, shutdown, limits, .. } = self;
        let outbox = Arc::clone(session.outbox());
        let mut timer = pin!(sleep_until(session.deadline().into()));
        let mut stopping = pin!(shutdown.requested());
        let mut leave_at: Option<Instant> = None;
        let mut alarm = Alarm::default();
        loop {
            select! {
                biased;
                // First: what a client says is not heard any more once it is to go.
                result = poll_fn(|cx| outbox.poll_write(cx)) => return result.map_or(End::Lost, End::Server),
                silence = poll_fn(|cx| {
                    let silence = inbound.poll_hear(cx, |message, now| hear(session, &message, now));
                    alarm.poll(cx, inbound, &outbox, limits, silence)
                }) => match silence {
                    Some(Silence::Closed) => return End::Client,
                    Some(Silence::Lost) => return End::Lost,
                    Some(Silence::Broken(reason)) => outbox.close(reason),
                    None => {}
                },
                () = &mut timer => {
                    let now = Instant::now();
                    if leave_at.is_some_and(|leave_at| leave_at <= now) {
                        outbox.close(CloseReason::ShuttingDown);
                    }
                    if session.on_deadline(now) == Due::Probe {
                        outbox.push(Frame::control(&PING[..]));
                    }
                    let deadline = session.deadline();
                    timer.as_mut().reset(leave_at.map_or(deadline, |leave_at| leave_at.min(deadline)).into());
                }
                () = &mut stopping, if leave_at.is_none() => {
                    let leave = Instant::now() + time_to_leave(session.node(), limits.drain);
                    leave_at = Some(leave);
                    timer.as_mut().reset(leave.min(session.deadline()).into());
                }
            }
        }
    }
}

/// Does what a client asks for. Returns until when it has said enough.
fn hear(session: &mut Session, message: &Message<'_>, now: Instant) -> Option<Instant> {
    session.alive(now);
    match message {
        Message::Text(text) => session.handle(text),
        Message::Binary => session.refuse(&ClientError::Binary),
        Message::TooLarge => session.refuse_too_large(),
        Message::Ping(_) | Message::Pong | Message::Part => {}
    }
    session.charge(now)
}

/// Says why, and waits a little for the peer to take note.
async fn part(mut inbound: Inbound, outbox: &Outbox, reason: &CloseReason, version: Option<u32>) {
    farewell(outbox, reason, version);
    let last_words = async {
        if poll_fn(|cx| outbox.poll_drain(cx)).await.is_err() {
            return;
        }
        match reason {
            // The peer did not even answer a ping.
            CloseReason::NoPong => {}
            // What comes now makes no sense, but must be read: closing a socket with unread bytes resets the
            // connection, and the peer would lose the reason.
            CloseReason::WebSocketProtocol(_) | CloseReason::InvalidUtf8 | CloseReason::MessageTooLarge => {
                // An error means that the peer is gone, which is what we are about to find out anyway.
                let _ = poll_fn(|cx| outbox.poll_shutdown(cx)).await;
                poll_fn(|cx| inbound.poll_discard(cx)).await;
            }
            _ => drop(poll_fn(|cx| inbound.poll_hear(cx, |_, _| None)).await),
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, last_words).await;
}
