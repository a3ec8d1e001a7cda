//! What the requests with one session id have in common: a client's session, and who receives for it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::apps::Seat;
use crate::protocol::{CloseReason, Frame};
use crate::session::{Due, Session};

use super::packet;
use super::receiver::HangUp;
use super::registry::Id;

/// How long a SockJS client may be away between two requests (§7.6).
const SOCKJS_GRACE: Duration = Duration::from_secs(5);

/// How long a SockJS client may take to say which app it wants (§7.6).
pub(super) const PATH_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that are handled before everybody else has a turn.
const TURN: usize = 64;

/// How long a receiver that should have ended may take to read the last of it.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// What all sessions have in common.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// See `fallbacks.grace`.
    pub(super) grace: Duration,
    /// See `fallbacks.heartbeat`.
    pub(super) heartbeat: Duration,
    /// See `fallbacks.hostname`.
    pub(super) hostname: Box<str>,
}

/// A client with an HTTP transport.
#[derive(Debug)]
pub(super) struct HttpSession {
    pub(super) id: Id,
    rules: Arc<Rules>,
    state: Mutex<State>,
    /// Its place among those of its address.
    _seat: Seat,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Who receives now.
    receiver: Option<Attached>,
    /// How it or the last one receives.
    transport: &'static str,
    /// Receivers there ever were.
    receivers: u64,
    /// Since when nobody receives.
    detached_at: Instant,
    /// The client knows that the session is open.
    opened: bool,
    /// A sign of life is to be written.
    heartbeat_due: bool,
    /// The response is to end, so that the client asks anew: other signs of life SockJS does not have.
    renewal_due: bool,
    /// When something was written last, or a receiver came.
    written_at: Instant,
    /// When it is to go because the server stops.
    leave_at: Option<Instant>,
}

/// A receiver as the session sees it.
#[derive(Debug)]
struct Attached {
    number: u64,
    waker: Option<Waker>,
    hang_up: HangUp,
}

#[derive(Debug)]
enum Stage {
    /// A SockJS client has yet to say which app it wants.
    Expecting { until: Instant },
    /// It has, and is being admitted. Requests with what else it says wait for that.
    Opening { until: Instant, admission: Admission },
    /// A client like all others.
    Open(Box<Session>),
    /// It is over. What waited, if it is still to be read, and what whoever asks hears.
    Closed { last: Vec<Frame>, farewell: Vec<Vec<u8>>, at: Instant },
}

/// Tells those who wait for it when it is over, however it ends.
#[derive(Debug)]
struct Admission(CancellationToken);

/// What a receiver gets.
#[derive(Debug, Default)]
pub(super) struct Packets {
    /// In this order.
    pub(super) list: Vec<Vec<u8>>,
    /// There is nothing more for this receiver.
    pub(super) over: bool,
}

/// What becomes of messages from a client.
#[derive(Debug)]
pub(super) enum Heard {
    /// They were handled.
    All,
    /// So many were handled. The others have to wait until then, if the client has said too much, or for their turn.
    Part(usize, Option<Instant>),
    /// The client has said too much, and so many would have to wait too long.
    TooFast(usize),
    /// There is nobody any more who could.
    Gone,
    /// The first one of a SockJS client says what it wants. The others come after that.
    Wish,
    /// They have to wait until this SockJS client is admitted.
    Opening(CancellationToken),
}

/// There is a receiver already, and SockJS does not want to have two.
#[derive(Debug)]
pub(super) struct Busy;

/// What to do with a session after a look at it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Remove,
}

impl HttpSession {
    /// A client of pusher-js that was admitted, or one of SockJS that has said nothing yet.
    pub(super) fn new(id: Id, rules: Arc<Rules>, session: Option<Session>, seat: Seat) -> Self {
        let now = Instant::now();
        let stage = match session {
            Some(session) => Stage::Open(Box::new(session)),
            None => Stage::Expecting { until: now + PATH_TIMEOUT },
        };
        let state = State {
            stage,
            receiver: None,
            transport: "",
            receivers: 0,
            detached_at: now,
            opened: false,
            heartbeat_due: false,
            renewal_due: false,
            written_at: now,
            leave_at: None,
        };
        Self { id, rules, state: Mutex::new(state), _seat: seat }
    }

    /// Lets somebody receive. Whoever did before ends quietly, and nothing is lost; with SockJS, the second one must go.
    ///
    /// # Errors
    /// [`Busy`].
    pub(super) fn attach(&self, transport: &'static str, hang_up: HangUp) -> Result<u64, Busy> {
        let mut state = self.state.lock();
        if !self.id.is_pusher() && state.receiver.is_some() {
            return Err(Busy);
        }
        let now = Instant::now();
        state.receivers += 1;
        state.transport = transport;
        state.written_at = now;
        state.renewal_due = false;
        let number = state.receivers;
        let former = state.receiver.replace(Attached { number, waker: None, hang_up });
        if let Stage::Open(session) = &mut state.stage {
            session.alive(now);
        }
        drop(state);
        if let Some(waker) = former.and_then(|former| former.waker) {
            waker.wake();
        }
        Ok(number)
    }

    /// A receiver is gone. If it was `cut_off`, it ended before we did: a SockJS client is gone with it.
    pub(super) fn detach(&self, number: u64, cut_off: bool) {
        let mut state = self.state.lock();
        if state.receiver.as_ref().is_none_or(|receiver| receiver.number != number) {
            return;
        }
        state.receiver = None;
        state.detached_at = Instant::now();
        if cut_off && !self.id.is_pusher() {
            state.vanish();
        }
    }

    /// What there is for a receiver, whose response goes on afterwards if it is `streaming`. `stopping`: the server stops,
    /// and a client that has to come back for more would not find it.
    pub(super) fn poll_packets(
        &self,
        number: u64,
        cx: &mut Context<'_>,
        streaming: bool,
        stopping: bool,
    ) -> Poll<Packets> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut packets = Packets::default();
        let Some(receiver) = state.receiver.as_mut().filter(|receiver| receiver.number == number) else {
            packets.over = true;
            return Poll::Ready(packets);
        };
        // One that takes what is there and comes back; with SockJS it takes one packet.
        packets.over = !streaming;
        let full = |packets: &Packets| !streaming && !self.id.is_pusher() && !packets.list.is_empty();
        if !std::mem::replace(&mut state.opened, true) {
            packets.list.push(packet::open(&self.rules.hostname));
        }
        if let Stage::Open(session) = &state.stage
            && let Poll::Ready(Ok(reason)) = session.outbox().poll_write(cx)
        {
            state.stage.end(&self.id, &reason);
        }
        let frames = match &mut state.stage {
            _ if full(&packets) => Vec::new(),
            Stage::Open(session) => session.outbox().take(),
            Stage::Closed { last, .. } => std::mem::take(last),
            Stage::Expecting { .. } | Stage::Opening { .. } => Vec::new(),
        };
        if !frames.is_empty() {
            packets.list.push(packet::messages(&frames));
            if stopping && !streaming && matches!(state.stage, Stage::Open(_)) {
                state.stage.end(&self.id, &CloseReason::ShuttingDown);
            }
        }
        if !full(&packets) {
            if let Stage::Closed { farewell, .. } = &mut state.stage {
                packets.list.append(farewell);
                farewell.extend(packets.list.last().cloned());
                packets.over = true;
            } else if std::mem::take(&mut state.heartbeat_due) {
                packets.list.push(packet::HEARTBEAT.to_vec());
                packets.over |= state.renewal_due;
            }
        }
        if packets.list.is_empty() {
            match &mut receiver.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        state.written_at = Instant::now();
        Poll::Ready(packets)
    }

    /// Waits until somebody else receives, without taking anything from them.
    pub(super) fn poll_replaced(&self, number: u64, cx: &mut Context<'_>) -> Poll<Packets> {
        let mut state = self.state.lock();
        match state.receiver.as_mut().filter(|receiver| receiver.number == number) {
            Some(receiver) => {
                receiver.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Packets { list: Vec::new(), over: true }),
        }
    }

    /// Has whoever receives be answered, if with nothing else then with a sign of life.
    pub(super) fn hurry(&self) {
        let mut state = self.state.lock();
        state.heartbeat_due = true;
        state.wake();
    }

    /// Handles what the client sends, in this order, as far as it can be handled by `give_up`.
    pub(super) fn hear(&self, messages: &[String], give_up: Instant) -> Heard {
        let mut state = self.state.lock();
        match &mut state.stage {
            Stage::Open(session) if session.outbox().is_closed() => Heard::Gone,
            Stage::Open(session) => {
                let now = Instant::now();
                session.alive(now);
                for (index, message) in messages.iter().enumerate() {
                    if index == TURN {
                        return Heard::Part(index, None);
                    }
                    session.handle(message);
                    let left = messages.len() - index - 1;
                    if let Some(until) = session.charge(now)
                        && left > 0
                    {
                        let in_time = until + session.time_for(left - 1) <= give_up;
                        return if in_time { Heard::Part(index + 1, Some(until)) } else { Heard::TooFast(left) };
                    }
                }
                Heard::All
            }
            Stage::Expecting { .. } | Stage::Opening { .. } if messages.is_empty() => Heard::All,
            Stage::Expecting { until } => {
                let admission = Admission(CancellationToken::new());
                state.stage = Stage::Opening { until: *until, admission };
                Heard::Wish
            }
            Stage::Opening { admission, .. } => Heard::Opening(admission.0.clone()),
            Stage::Closed { .. } => Heard::Gone,
        }
    }

    /// A SockJS client is admitted, or not.
    pub(super) fn admit(&self, verdict: Result<Session, (CloseReason, Option<u32>)>) {
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Opening { .. }) {
            return;
        }
        state.stage = match verdict {
            Ok(session) => Stage::Open(Box::new(session)),
            Err((reason, version)) => Stage::closed(&reason, version),
        };
        state.wake();
    }

    /// Bytes of one message, once it is known for which app.
    pub(super) fn message_limit(&self) -> Option<usize> {
        match &self.state.lock().stage {
            Stage::Open(session) => Some(session.message_limit()),
            _ => None,
        }
    }

    /// Whether a page of this origin may speak for the client.
    pub(super) fn allows(&self, origin: Option<&str>) -> bool {
        match &self.state.lock().stage {
            Stage::Open(session) => session.allows(origin),
            _ => true,
        }
    }

    /// How the client receives, or did last.
    pub(super) fn transport(&self) -> &'static str {
        self.state.lock().transport
    }

    /// Does what the clock asks for. `leave`: how long it may stay, if the server stops.
    pub(super) fn look(&self, now: Instant, leave: Option<&dyn Fn() -> Duration>) -> Verdict {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(leave) = leave {
            let leave_at = *state.leave_at.get_or_insert_with(|| now + leave());
            if leave_at <= now {
                state.stage.end(&self.id, &CloseReason::ShuttingDown);
                state.wake();
            }
        }
        if let Stage::Open(session) = &mut state.stage {
            if session.deadline() <= now && session.on_deadline(now) == Due::Probe {
                state.heartbeat_due = true;
                state.renewal_due = !self.id.is_pusher();
            }
            // Nobody may be there to see that it is closed.
            if let Some(reason) = session.outbox().closed() {
                state.stage.end(&self.id, &reason);
            }
            state.wake_if_due();
        }
        if let Stage::Expecting { until } | Stage::Opening { until, .. } = state.stage
            && until <= now
        {
            state.stage = Stage::closed(&CloseReason::PathNotFound, None);
            state.wake();
        }
        let over = matches!(state.stage, Stage::Closed { .. });
        match &mut state.receiver {
            Some(receiver) => {
                if let Stage::Closed { at, .. } = &state.stage {
                    if *at + FAREWELL <= now {
                        debug!(session = %self.id, "the client does not read the end");
                        receiver.hang_up.cancel();
                    }
                } else if state.written_at + self.rules.heartbeat <= now {
                    state.heartbeat_due = true;
                    state.wake_if_due();
                }
            }
            None => {
                let since = match &state.stage {
                    Stage::Closed { at, .. } => state.detached_at.max(*at),
                    _ => state.detached_at,
                };
                if since + self.grace() <= now {
                    state.vanish();
                    return Verdict::Remove;
                }
            }
        }
        // Where nobody asks after it any more there is no need to know why it ended.
        if over && state.leave_at.is_some() && state.receiver.is_none() { Verdict::Remove } else { Verdict::Keep }
    }

    fn grace(&self) -> Duration {
        if self.id.is_pusher() { self.rules.grace } else { SOCKJS_GRACE }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.receiver.as_mut().and_then(|receiver| receiver.waker.take()) {
            waker.wake();
        }
    }

    fn wake_if_due(&mut self) {
        if self.heartbeat_due || matches!(self.stage, Stage::Closed { .. }) {
            self.wake();
        }
    }

    /// The client has gone without a word.
    fn vanish(&mut self) {
        if let Stage::Open(session) = &mut self.stage {
            debug!(socket_id = %session.socket_id(), "client went");
            session.close(None);
        }
        if !matches!(self.stage, Stage::Closed { .. }) {
            let farewell = vec![packet::close(1002, "Connection interrupted")];
            self.stage = Stage::Closed { last: Vec::new(), farewell, at: Instant::now() };
        }
    }
}

impl Stage {
    /// Ends a session for a reason of ours. What waits for the client is kept.
    fn end(&mut self, id: &Id, reason: &CloseReason) {
        match self {
            Self::Open(session) => {
                session.close(Some(reason));
                let (last, version) = (session.outbox().take(), session.version());
                *self = Self::Closed { last, farewell: packet::farewell(reason, Some(version)), at: Instant::now() };
            }
            Self::Expecting { .. } | Self::Opening { .. } => {
                debug!(session = %id, %reason, "client closed by us before it said anything");
                *self = Self::closed(reason, None);
            }
            Self::Closed { .. } => {}
        }
    }

    fn closed(reason: &CloseReason, version: Option<u32>) -> Self {
        Self::Closed { last: Vec::new(), farewell: packet::farewell(reason, version), at: Instant::now() }
    }
}
