//! SockJS over a WebSocket (§7.6): its packets, or the bare messages. A session of its own, which no other request belongs
//! to. pusher-js has a better one, so this is for other clients, and costs more than it has to: what is for the client goes
//! from the session's outbox to that of the socket.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::{Request, Response};
use tokio::select;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::Limits;
use crate::node::Refusal;
use crate::outbox::Outbox;
use crate::protocol::{ClientError, CloseReason, Frame};
use crate::rate_limit::{Bucket, RateLimit};
use crate::response::{Body, any_body};
use crate::session::{Due, Session};
use crate::socket::Socket;
use crate::websocket::{self, Alarm, Inbound, Message, PING, Silence, farewell};

use super::http_session::{FAREWELL, PATH_TIMEOUT};
use super::{Fallbacks, Peer, packet, sending};

/// Bytes that may wait in the wire besides what was brought from the session.
const OUTBOX: usize = 1024 * 1024;

/// Bytes that are brought from the session at once. The rest stays there, where it is counted.
const PART: usize = 64 * 1024;

/// Bytes of a frame in a packet, for each of its own, at most: quotes and backslashes become two, U+2028 six instead of
/// three.
const ESCAPED: usize = 2;

/// Bytes of the message in which a client says which app it wants.
const MAX_WISH: usize = 16 * 1024;

/// Messages in one packet. Clients send one, or a few that came up at the same moment.
const MAX_MESSAGES: usize = 1000;

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As with the other transports of SockJS; from the client, an array of strings.
    Packets,
    /// As they are.
    Raw,
}

/// Who speaks.
struct Conversation {
    fallbacks: Arc<Fallbacks>,
    peer: Peer,
    origin: Option<String>,
    framing: Framing,
    inbound: Inbound,
    /// What goes to the socket.
    wire: Arc<Outbox>,
    /// Messages that came together, and wait for the first of them to be understood.
    early: Vec<String>,
}

/// Answers an upgrade request.
pub(super) async fn upgrade(
    fallbacks: Arc<Fallbacks>,
    peer: Peer,
    request: Request<Incoming>,
    framing: Framing,
) -> Response<Body> {
    let origin = request.headers().get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default().to_owned());
    let context = websocket::Context {
        node: Arc::clone(&fallbacks.node),
        shutdown: fallbacks.shutdown.clone(),
        limits: Arc::clone(&fallbacks.limits),
        peer: peer.address.clone(),
        secure: peer.secure,
        place: peer.place.clone(),
    };
    let talk = move |_, socket: Socket, read: Vec<u8>| async move {
        // One frame may be as long as all that may wait in the session.
        let wire = Arc::new(Outbox::new(OUTBOX + ESCAPED * fallbacks.max_outbox));
        let inbound = Inbound::new(socket, read, Arc::clone(&wire), MAX_WISH);
        let conversation = Conversation { fallbacks, peer, origin, framing, inbound, wire, early: Vec::new() };
        conversation.run().await;
    };
    websocket::accept(context, request, talk).map(any_body)
}

impl Conversation {
    async fn run(mut self) {
        self.say(b"o");
        let limit = self.fallbacks.config.sessions_per_address;
        let seat = self.fallbacks.registry.take_seat(&self.peer.address, limit);
        let session = match &seat {
            Some(_) => self.greet().await,
            None => Err(Some(self.fallbacks.too_many(&self.peer))),
        };
        let (reason, version) = match session {
            Ok(mut session) => {
                let reason = self.converse(&mut session).await;
                if reason == Some(CloseReason::SlowConsumer) {
                    self.give_up(&session);
                }
                session.close(reason.as_ref());
                (reason, Some(session.version()))
            }
            Err(refusal) => refusal.map_or((None, None), |refusal| (Some(refusal.reason), refusal.version)),
        };
        let Some(reason) = reason else { return };
        if self.framing == Framing::Packets {
            let packets = packet::farewell(&reason, version);
            packets.iter().for_each(|packet| self.wire.say_good_bye(Frame::from_text(packet)));
        }
        self.wire.close(reason.clone());
        farewell(&self.wire, &reason, if self.framing == Framing::Raw { version } else { None });
        let last_words = async {
            if poll_fn(|cx| self.wire.poll_drain(cx)).await.is_ok() && reason != CloseReason::NoPong {
                drop(poll_fn(|cx| self.inbound.poll_hear(cx, |_, _| None)).await);
            }
        };
        let _ = timeout(FAREWELL, last_words).await;
    }

    /// Waits for the client to say which app it wants. An error without a refusal: it went before it did.
    async fn greet(&mut self) -> Result<Session, Option<Refusal>> {
        let fallbacks = Arc::clone(&self.fallbacks);
        let Self { framing, inbound, wire, .. } = self;
        let refuse = |reason| Err(Some(Refusal { reason, version: None }));
        // Whose limits these are to be, nobody knows yet.
        let Limits { messages_per_second, message_burst, .. } = Limits::default();
        let (limit, mut said) = (RateLimit::new(messages_per_second, message_burst), Bucket::default());
        let mut alarm = Alarm::default();
        let mut heard = Vec::new();
        let mut too_late = pin!(sleep(PATH_TIMEOUT));
        let mut stop = pin!(fallbacks.shutdown.requested());
        while heard.is_empty() {
            select! {
                biased;
                end = poll_fn(|cx| wire.poll_write(cx)) => return end.map_or(Err(None), refuse),
                silence = poll_fn(|cx| {
                    let silence = inbound.poll_hear(cx, |message, now| {
                        heard = messages(*framing, &message).unwrap_or_default();
                        // The messages behind it are for the session to hear.
                        if heard.is_empty() { said.charge(&limit, now) } else { Some(now) }
                    });
                    match heard.is_empty() {
                        true => alarm.poll(cx, inbound, wire, &fallbacks.limits, silence),
                        false => Poll::Ready(None),
                    }
                }) => match silence {
                    Some(Silence::Broken(reason)) => return refuse(reason),
                    Some(Silence::Closed | Silence::Lost) => return Err(None),
                    None => {}
                },
                () = &mut too_late => break,
                () = &mut stop => return refuse(CloseReason::ShuttingDown),
            }
        }
        let mut heard = heard.into_iter();
        let (key, query) = sending::wish(&heard.next().unwrap_or_default());
        self.early = heard.collect();
        let opened = fallbacks.open(&self.peer, key.as_deref(), &query, self.origin.as_deref()).await;
        opened.map_err(Some)
    }

    /// Goes on until the client is gone, or has to go for a reason of ours.
    async fn converse(&mut self, session: &mut Session) -> Option<CloseReason> {
        let Self { fallbacks, framing, inbound, wire, early, .. } = self;
        let (framing, outbox) = (*framing, Arc::clone(session.outbox()));
        inbound.set_limit(session.message_limit());
        let mut alarm = Alarm::default();
        let now = std::time::Instant::now();
        for message in early.drain(..) {
            session.handle(&message);
            // The next one owes what these do.
            let _ = session.charge(now);
        }
        let heartbeat = fallbacks.rules.heartbeat;
        let mut beat_at = Instant::now() + heartbeat;
        let mut timer = pin!(sleep_until(Instant::from_std(session.deadline()).min(beat_at)));
        let mut leave = pin!(fallbacks.leave());
        loop {
            select! {
                biased;
                end = poll_fn(|cx| pump(&outbox, wire, framing, cx)) => return end,
                silence = poll_fn(|cx| {
                    let silence = inbound.poll_hear(cx, |message, now| hear(session, framing, &message, now));
                    alarm.poll(cx, inbound, wire, &fallbacks.limits, silence)
                }) => match silence {
                    Some(Silence::Closed | Silence::Lost) => return None,
                    Some(Silence::Broken(reason)) => return Some(reason),
                    None => {}
                },
                () = &mut timer => {
                    let now = Instant::now();
                    if session.on_deadline(now.into_std()) == Due::Probe {
                        wire.push(Frame::control(&PING[..]));
                    }
                    if beat_at <= now {
                        beat_at = now + heartbeat;
                        if framing == Framing::Packets {
                            wire.push(Frame::from_text(packet::HEARTBEAT));
                        }
                    }
                    timer.as_mut().reset(Instant::from_std(session.deadline()).min(beat_at));
                }
                () = &mut leave => return Some(CloseReason::ShuttingDown),
            }
        }
    }

    /// Counts what a client misses that reads too slowly: what was on its way to it, and what waited.
    fn give_up(&self, session: &Session) {
        session.outbox().give_up();
        if let Some(tenant) = self.fallbacks.node.tenants().by_id(session.app_id()) {
            tenant.metrics.dropped.inc_by(self.wire.dropped());
        }
    }

    fn say(&self, packet: &[u8]) {
        if self.framing == Framing::Packets {
            self.wire.push(Frame::from_text(packet));
        }
    }
}

/// Brings what waits for the client to the socket, but no more than that takes: what waits is counted by the session.
/// Returns why this is over, or `None` if the socket is gone.
fn pump(outbox: &Outbox, wire: &Outbox, framing: Framing, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
    loop {
        if let Poll::Ready(end) = wire.poll_write(cx) {
            return Poll::Ready(end.ok());
        }
        let end = outbox.poll_write(cx);
        let frames = match wire.is_idle() {
            _ if end.is_ready() => outbox.take(),
            true => outbox.take_some(PART),
            false => Vec::new(),
        };
        match framing {
            _ if frames.is_empty() => {}
            Framing::Packets => wire.push(Frame::from_text(&packet::messages(&frames))),
            Framing::Raw => wire.push_all(frames.iter()),
        }
        match end {
            Poll::Ready(end) => return Poll::Ready(end.ok()),
            Poll::Pending if frames.is_empty() => return Poll::Pending,
            Poll::Pending => {}
        }
    }
}

/// The messages in one of the WebSocket. `None` if there should be some, but it makes no sense.
fn messages(framing: Framing, message: &Message<'_>) -> Option<Vec<String>> {
    let Message::Text(text) = message else { return Some(Vec::new()) };
    match framing {
        Framing::Raw => Some(vec![(*text).to_owned()]),
        Framing::Packets if text.is_empty() => Some(Vec::new()),
        Framing::Packets => {
            let one = || serde_json::from_str(text).map(|message| vec![message]);
            let messages: Option<Vec<String>> = serde_json::from_str(text).or_else(|_| one()).ok();
            messages.filter(|messages| messages.len() <= MAX_MESSAGES)
        }
    }
}

/// Does what a client asks for. Returns until when it has said enough.
fn hear(
    session: &mut Session,
    framing: Framing,
    message: &Message<'_>,
    now: std::time::Instant,
) -> Option<std::time::Instant> {
    session.alive(now);
    match message {
        Message::Binary => session.refuse(&ClientError::Binary),
        Message::TooLarge => session.refuse_too_large(),
        message => match messages(framing, message) {
            Some(messages) => {
                for message in &messages {
                    session.handle(message);
                    // What the last one owes is what all of them do.
                    let _ = session.charge(now);
                }
            }
            None => session.outbox().close(CloseReason::WebSocketProtocol("Broken framing.".to_owned())),
        },
    }
    session.charge(now)
}
