//! The event loop: one thread, all sockets, one buffer for reading.

mod alarm;
mod http;
mod incoming;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

pub(super) use super::backend::Nanos;
use super::backend::{Answer, Publisher};
use super::connection::{Connection, Stage};
use super::frame;
use super::{BenchError, Target};
use alarm::Alarm;
use http::Sender;

pub(super) use http::Http;
pub(crate) use http::Transport;

/// Tokens from here on belong to publishers; those below are client numbers.
const PUBLISHERS: usize = 1 << 32;
/// Tokens from here on belong to connections over which clients with an HTTP transport send.
const SENDERS: usize = 1 << 33;
/// The alarm's token.
const ALARM: Token = Token(1 << 34);
/// What is read at once. Larger than what most sockets hold, so that one call empties them.
const BUFFER: usize = 256 * 1024;
/// Readiness events taken at once.
const BATCH: usize = 1024;

/// Hears every text message of every greeted client, in the order of arrival.
pub(super) trait Listener {
    /// Whether that was a message it knows; the engine looks at the others itself.
    fn hear(&mut self, client: usize, text: &[u8], now: Nanos) -> bool;
}

/// Knows no message.
pub(super) struct Deaf;

impl Listener for Deaf {
    fn hear(&mut self, _client: usize, _text: &[u8], _now: Nanos) -> bool {
        false
    }
}

/// What a scenario may want to react to, besides messages.
#[derive(Debug)]
pub(super) enum Happening {
    /// A client was greeted.
    Greeted(usize),
    /// One of a client's subscriptions was confirmed.
    Subscribed(usize),
    /// A client's `pusher:ping` was answered.
    Ponged,
    /// A client's connection is gone; its number is free.
    Closed {
        /// Its number.
        client: usize,
        /// Whether it left by itself.
        left: bool,
        /// The close code, if the server sent one.
        code: Option<u16>,
        /// Code and reason, or what broke.
        how: String,
    },
    /// The server sent an error event.
    Refused {
        /// To whom.
        client: usize,
        /// The message.
        text: String,
    },
    /// A publisher's request was answered.
    Answered {
        /// The publisher's number.
        publisher: usize,
        /// From the first byte of the request to the last of the answer.
        took: Nanos,
    },
}

/// All sockets of a run.
pub(super) struct Engine {
    poll: Poll,
    alarm: Alarm,
    events: Events,
    start: Instant,
    buffer: Vec<u8>,
    clients: Vec<Option<Connection>>,
    publishers: Vec<Publisher>,
    happenings: VecDeque<Happening>,
    /// Connections opened so far.
    opened: usize,
    /// How clients connect.
    transport: Transport,
    senders: Vec<Sender>,
    /// Tells the sessions of this run from those of others.
    run: u32,
    targets: Vec<Target>,
    /// The upgrade request of each target.
    upgrades: Vec<(SocketAddr, Vec<u8>)>,
    /// The first failure of something that must not fail.
    failure: Option<BenchError>,
}

impl Engine {
    /// An engine without sockets. Clients are spread over the targets by their number.
    pub(super) fn new(targets: &[Target], transport: Transport) -> Result<Self, BenchError> {
        let poll = Poll::new().map_err(BenchError::Poll)?;
        Ok(Self {
            alarm: Alarm::new(poll.registry(), ALARM).map_err(BenchError::Poll)?,
            poll,
            events: Events::with_capacity(BATCH),
            start: Instant::now(),
            buffer: vec![0; BUFFER],
            clients: Vec::new(),
            publishers: Vec::new(),
            happenings: VecDeque::new(),
            opened: 0,
            transport,
            senders: Vec::new(),
            run: rand::random(),
            targets: targets.to_vec(),
            upgrades: targets.iter().map(|target| (target.address, target.upgrade(transport))).collect(),
            failure: None,
        })
    }

    /// The time.
    pub(super) fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }

    /// The next thing that happened.
    pub(super) fn next_happening(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// Opens a connection under this number, which must be free. With a small buffer the kernel holds little for a
    /// client that does not read.
    pub(super) fn open(&mut self, client: usize, small_buffer: bool) -> Result<(), BenchError> {
        let address = self.upgrades[client % self.upgrades.len()].0;
        let failed = |cause| BenchError::Connect { address: address.to_string(), cause };
        let mut connection = Connection::open(address, self.opened, small_buffer).map_err(failed)?;
        let target = &self.targets[client % self.targets.len()];
        connection.http = self.transport.session(target, self.run, self.opened);
        let registry = self.poll.registry();
        // Edges: what was registered once never has to be changed.
        registry
            .register(&mut connection.stream, Token(client), Interest::READABLE | Interest::WRITABLE)
            .map_err(BenchError::Poll)?;
        if self.clients.len() <= client {
            self.clients.resize_with(client + 1, || None);
        }
        self.opened += 1;
        self.clients[client] = Some(connection);
        Ok(())
    }

    /// Adds a backend connection to the target with this number; publishers are numbered from 0 on.
    pub(super) fn add_publisher(&mut self, target: &Target) -> Result<usize, BenchError> {
        let number = self.publishers.len();
        let publisher = Publisher::connect(target.address, self.poll.registry(), Token(PUBLISHERS + number))?;
        self.publishers.push(publisher);
        Ok(number)
    }

    /// Whether a publisher has no request under way.
    pub(super) fn is_idle(&self, publisher: usize) -> bool {
        self.publishers[publisher].is_idle()
    }

    /// Sends a request, whose answer will be an [`Happening::Answered`].
    pub(super) fn request(&mut self, publisher: usize, request: Vec<u8>, now: Nanos) -> Result<(), BenchError> {
        self.publishers[publisher].send(request, now, self.poll.registry())
    }

    /// A greeted client's socket id; empty for others.
    pub(super) fn socket_id(&self, client: usize) -> &str {
        self.clients[client].as_ref().map_or("", |connection| &connection.socket_id)
    }

    /// Whether this client is greeted and has not left.
    pub(super) fn is_open(&self, client: usize) -> bool {
        self.clients.get(client).and_then(Option::as_ref).is_some_and(|connection| connection.stage == Stage::Open)
    }

    /// Sends a message.
    pub(super) fn send(&mut self, client: usize, text: &str) {
        match self.transport {
            Transport::Websocket => self.send_frame(client, frame::TEXT, text.as_bytes()),
            _ => self.send_packet(client, text),
        }
    }

    /// Asks for a subscription, whose success will be an [`Happening::Subscribed`].
    pub(super) fn subscribe(&mut self, client: usize, message: &str) {
        if let Some(connection) = &mut self.clients[client] {
            connection.awaited += 1;
        }
        self.send(client, message);
    }

    /// From now on this client reads nothing.
    pub(super) fn stall(&mut self, client: usize) {
        if let Some(connection) = &mut self.clients[client] {
            connection.stalled = true;
        }
    }

    /// Lets a stalled client read all that waits for it.
    pub(super) fn resume(&mut self, client: usize, listener: &mut impl Listener) {
        if let Some(connection) = &mut self.clients[client] {
            connection.stalled = false;
            self.read(client, false, listener);
        }
    }

    /// Says goodbye; the end is an [`Happening::Closed`].
    pub(super) fn leave(&mut self, client: usize) {
        if !self.transport.has_frames() {
            if let Some(connection) = &mut self.clients[client] {
                connection.stage = Stage::Leaving;
                self.gone(client, None, String::new());
            }
            return;
        }
        self.send_frame(client, frame::CLOSE, &1000u16.to_be_bytes());
        if let Some(connection) = &mut self.clients[client] {
            connection.stage = Stage::Leaving;
        }
    }

    /// Drops the connection without a goodbye.
    pub(super) fn drop_connection(&mut self, client: usize) {
        self.clients[client] = None;
    }

    /// Ends all connections, with a goodbye and without waiting for one.
    pub(super) fn close_all(&mut self) {
        for client in 0..self.clients.len() {
            self.leave(client);
        }
        self.clients.clear();
        self.publishers.clear();
        self.senders.clear();
    }

    /// Waits until something happens, at most until `until`, and handles all of it.
    pub(super) fn turn(&mut self, until: Nanos, listener: &mut impl Listener) -> Result<(), BenchError> {
        let wait = if self.happenings.is_empty() { until.saturating_sub(self.now()) } else { 0 };
        self.alarm.set(until, wait).map_err(BenchError::Poll)?;
        match self.poll.poll(&mut self.events, Some(Duration::from_nanos(wait))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(BenchError::Poll(error)),
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != ALARM) {
            match event.token().0 {
                token @ SENDERS.. => self.advance_sender(token - SENDERS, event)?,
                token @ PUBLISHERS.. => self.answer(token - PUBLISHERS, event)?,
                client => self.advance(client, event, listener),
            }
        }
        self.events = events;
        self.failure.take().map_or(Ok(()), Err)
    }

    fn answer(&mut self, number: usize, event: &Event) -> Result<(), BenchError> {
        let Some(publisher) = self.publishers.get_mut(number) else { return Ok(()) };
        if let Some(Answer { status, text, sent_at }) = publisher.advance(event, self.poll.registry())? {
            if status != 200 {
                return Err(BenchError::TriggerRefused { status, text });
            }
            let took = self.now().saturating_sub(sent_at);
            self.happenings.push_back(Happening::Answered { publisher: number, took });
        }
        Ok(())
    }

    fn advance(&mut self, client: usize, event: &Event, listener: &mut impl Listener) {
        let Some(connection) = self.clients.get_mut(client).and_then(Option::as_mut) else { return };
        if event.is_writable() {
            if connection.stage == Stage::Connecting {
                let (address, upgrade) = &self.upgrades[client % self.upgrades.len()];
                if let Err(cause) = connected(connection) {
                    self.fail(BenchError::Connect { address: address.to_string(), cause });
                    return;
                }
                connection.stage = Stage::Upgrading;
                let target = &self.targets[client % self.targets.len()];
                let sent = match &connection.http {
                    Some(http) => {
                        let request = self.transport.receive(target, http);
                        connection.send_bytes(&request)
                    }
                    None => connection.send_bytes(upgrade),
                };
                self.check(client, sent);
            } else {
                let sent = connection.flush();
                self.check(client, sent);
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(client, event.is_read_closed() || event.is_error(), listener);
        }
    }

    fn send_frame(&mut self, client: usize, opcode: u8, payload: &[u8]) {
        if let Some(connection) = &mut self.clients[client] {
            let sent = connection.send(opcode, payload);
            self.check(client, sent);
        }
    }

    fn check(&mut self, client: usize, sent: io::Result<()>) {
        if let Err(error) = sent {
            self.gone(client, None, error.to_string());
        }
    }

    fn gone(&mut self, client: usize, code: Option<u16>, how: String) {
        if let Some(connection) = self.clients[client].take() {
            let left = connection.stage == Stage::Leaving;
            self.happenings.push_back(Happening::Closed { client, left, code, how });
        }
    }

    fn fail(&mut self, error: BenchError) {
        self.failure.get_or_insert(error);
    }
}

/// Whether the TCP connection is there.
fn connected(connection: &Connection) -> io::Result<()> {
    match connection.stream.take_error()? {
        Some(error) => Err(error),
        None => connection.stream.peer_addr().map(drop),
    }
}
