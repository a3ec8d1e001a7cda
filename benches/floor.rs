//! The floor that the kernel sets: the least a server can do for the clients of a benchmark.
//!
//! One thread, one epoll loop, and one `write()` for every delivery. It speaks as much of the Pusher Channels protocol as
//! `fanfare bench` needs, and verifies, limits, counts and remembers nothing beyond that: no signatures, no names, no
//! second subscription to the same channel, no second connection of the same member, no fragmented messages, and whatever
//! a peer cannot take now waits in memory without bound. So it is no server to use, only one to compare with: what it
//! costs is what the machine takes for reading and writing sockets, and what Fanfare costs more is Fanfare's.
//!
//! `floor [--listen 127.0.0.1:0]` prints where it listens.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(usize::MAX);
/// Handshakes that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// Bytes of one read. A read that returns less has emptied the socket.
const READ: usize = 64 * 1024;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address: SocketAddr = match &arguments[..] {
        [] => "127.0.0.1:0".parse().ok(),
        [flag, address] if flag == "--listen" => address.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "usage: floor [--listen ADDRESS:PORT]"))?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    Floor::new(Poll::new()?, listener)?.run()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(StdListener::from(socket)))
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Connections,
    channels: HashMap<Rc<[u8]>, Channel>,
    /// The frame that is being sent, so that none needs an allocation.
    frame: Vec<u8>,
}

/// Connections at the index that is their token.
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    registry: Registry,
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    /// Whether epoll tells when the socket takes more: from the first time on that it did not.
    awaits_room: bool,
    /// The beginning of a request or a message.
    unread: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    channel: Rc<[u8]>,
    /// Where it is in the channel, so that ending it costs the same in any channel.
    position: usize,
}

#[derive(Default)]
struct Channel {
    subscribers: Vec<Subscriber>,
    /// Of a presence channel, one for each subscriber, at the same position.
    members: Vec<Member>,
}

#[derive(Clone, Copy)]
struct Subscriber {
    connection: usize,
    /// Where it is among the subscriptions of the connection.
    position: usize,
}

/// Both as JSON, escaped for the string that the data of an event is.
struct Member {
    user_id: Vec<u8>,
    user_info: Vec<u8>,
}

impl Floor {
    fn new(poll: Poll, mut listener: TcpListener) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let registry = poll.registry().try_clone()?;
        let connections = Connections { slots: Vec::new(), free: Vec::new(), registry };
        Ok(Self { poll, listener, connections, channels: HashMap::new(), frame: Vec::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let Token(index) = event.token();
                if event.is_writable() {
                    self.connections.flush(index);
                }
                // The end of the stream is told once, perhaps together with the last bytes.
                self.read(index, &mut buffer, event.is_read_closed() || event.is_error());
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.connections.add(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads until the socket is empty, or to its end if it has one.
    fn read(&mut self, index: usize, buffer: &mut [u8], ended: bool) {
        while let Some(connection) = self.connections.get(index) {
            let read = match connection.stream.read(buffer) {
                Ok(read) if read > 0 => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => return self.disconnect(index),
            };
            let mut unread = std::mem::take(&mut connection.unread);
            let bytes = if unread.is_empty() {
                &mut buffer[..read]
            } else {
                unread.extend_from_slice(&buffer[..read]);
                &mut unread[..]
            };
            let Some(taken) = self.take(index, bytes) else { return self.disconnect(index) };
            if taken < bytes.len()
                && let Some(connection) = self.connections.get(index)
            {
                connection.unread = bytes[taken..].to_vec();
            }
            if read < buffer.len() && !ended {
                return;
            }
        }
    }

    /// Answers what is complete and tells how many bytes that was, or nothing if the connection is over.
    fn take(&mut self, index: usize, bytes: &mut [u8]) -> Option<usize> {
        let mut taken = 0;
        loop {
            let rest = &mut bytes[taken..];
            let upgraded = self.connections.get(index)?.upgraded;
            match if upgraded { self.message(index, rest)? } else { self.request(index, rest) } {
                0 => return Some(taken),
                length => taken += length,
            }
        }
    }

    /// Answers one HTTP request and tells its length, 0 if it is not complete.
    fn request(&mut self, index: usize, bytes: &[u8]) -> usize {
        let Some(head) = find(bytes, b"\r\n\r\n").map(|end| end + 4) else { return 0 };
        let (head, rest) = bytes.split_at(head);
        let path = head.split(|&byte| byte == b' ' || byte == b'?').nth(1).unwrap_or_default();
        if head.starts_with(b"GET /app/") {
            self.upgrade(index, header(head, b"sec-websocket-key"));
            return head.len();
        }
        let length = std::str::from_utf8(header(head, b"content-length")).ok().and_then(|text| text.parse().ok());
        let Some(body) = rest.get(..length.unwrap_or(0)) else { return 0 };
        if path.ends_with(b"/batch_events") {
            let [batch] = fields(body, ["batch"]);
            let mut batch = inside(batch);
            while let Some(event) = next_value(&mut batch) {
                self.trigger(event);
            }
        } else if path.ends_with(b"/events") {
            self.trigger(body);
        }
        self.connections.send(index, OK);
        head.len() + body.len()
    }

    /// Makes the connection a WebSocket, and greets in the same write.
    fn upgrade(&mut self, index: usize, key: &[u8]) {
        let data = format!(r#"{{\"socket_id\":\"{}.1\",\"activity_timeout\":120}}"#, index + 1);
        encode(&mut self.frame, &[br#"{"event":"pusher:connection_established","data":""#, data.as_bytes(), br#""}"#]);
        let accept = derive_accept_key(key);
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
        let mut answer = format!("{head}sec-websocket-accept: {accept}\r\n\r\n").into_bytes();
        answer.extend_from_slice(&self.frame);
        self.connections.send(index, &answer);
        if let Some(connection) = self.connections.get(index) {
            connection.upgraded = true;
        }
    }

    /// Delivers one event of the HTTP API.
    fn trigger(&mut self, event: &[u8]) {
        let [name, data, channel, channels] = fields(event, ["name", "data", "channel", "channels"]);
        let channel = next_value(&mut inside(channels)).unwrap_or(channel);
        let parts = [br#"{"event":"#, name, br#","channel":"#, channel, br#","data":"#, data, b"}"];
        encode(&mut self.frame, &parts);
        self.deliver(unquoted(channel), None);
    }

    /// Sends the frame to everybody in a channel: one write each.
    fn deliver(&mut self, channel: &[u8], except: Option<usize>) {
        let Some(channel) = self.channels.get(channel) else { return };
        for subscriber in &channel.subscribers {
            if Some(subscriber.connection) != except {
                self.connections.send(subscriber.connection, &self.frame);
            }
        }
    }

    /// Answers one WebSocket frame and tells its length, 0 if it is not complete, nothing if it is the last one.
    fn message(&mut self, index: usize, bytes: &mut [u8]) -> Option<usize> {
        let Some((opcode, payload)) = unmask(bytes) else { return Some(0) };
        let end = payload.end;
        let payload = &bytes[payload];
        match opcode {
            1 => self.text(index, payload),
            8 => {
                self.connections.send(index, &[&[0x88, payload.len() as u8], payload].concat());
                return None;
            }
            9 => self.connections.send(index, &[&[0x8A, payload.len() as u8], payload].concat()),
            _ => {}
        }
        Some(end)
    }

    fn text(&mut self, index: usize, text: &[u8]) {
        let [event, channel, data] = fields(text, ["event", "channel", "data"]);
        match unquoted(event) {
            b"pusher:subscribe" => {
                let [channel, channel_data] = fields(data, ["channel", "channel_data"]);
                self.subscribe(index, unquoted(channel), unquoted(channel_data));
            }
            b"pusher:unsubscribe" => {
                let [channel] = fields(data, ["channel"]);
                self.unsubscribe(index, unquoted(channel));
            }
            b"pusher:ping" => {
                encode(&mut self.frame, &[br#"{"event":"pusher:pong","data":"{}"}"#]);
                self.connections.send(index, &self.frame);
            }
            name if name.starts_with(b"client-") => {
                encode(&mut self.frame, &[text]);
                self.deliver(unquoted(channel), Some(index));
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, index: usize, name: &[u8], channel_data: &[u8]) {
        let Some(connection) = self.connections.get(index) else { return };
        let key = match self.channels.get_key_value(name) {
            Some((key, _)) => key.clone(),
            None => Rc::from(name),
        };
        let channel = self.channels.entry(key.clone()).or_default();
        let position = connection.subscriptions.len();
        connection.subscriptions.push(Subscription { channel: key, position: channel.subscribers.len() });
        channel.subscribers.push(Subscriber { connection: index, position });
        if !name.starts_with(b"presence-") {
            succeeded(&mut self.frame, name, b"{}");
            return self.connections.send(index, &self.frame);
        }
        let channel_data = unescaped(channel_data);
        let [user_id, user_info] = fields(&channel_data, ["user_id", "user_info"]);
        let user_info = if user_info.is_empty() { b"null" } else { user_info };
        channel.members.push(Member { user_id: escaped(user_id), user_info: escaped(user_info) });
        succeeded(&mut self.frame, name, &list(&channel.members));
        self.connections.send(index, &self.frame);
        if let Some(Member { user_id, user_info }) = channel.members.last() {
            let data = [br#"{\"user_id\":"#, &user_id[..], br#",\"user_info\":"#, user_info, b"}"].concat();
            internal(&mut self.frame, b"member_added", name, &data);
        }
        self.deliver(name, Some(index));
    }

    fn unsubscribe(&mut self, index: usize, name: &[u8]) {
        let Some(connection) = self.connections.get(index) else { return };
        if let Some(place) = connection.subscriptions.iter().position(|one| *one.channel == *name) {
            let subscription = connection.subscriptions.swap_remove(place);
            // What was last among the connection's subscriptions is here now.
            if let Some(moved) = connection.subscriptions.get(place)
                && let Some(channel) = self.channels.get_mut(&moved.channel)
            {
                channel.subscribers[moved.position].position = place;
            }
            self.leave(&subscription);
        }
    }

    fn disconnect(&mut self, index: usize) {
        while let Some(connection) = self.connections.get(index) {
            match connection.subscriptions.pop() {
                Some(subscription) => self.leave(&subscription),
                None => self.connections.remove(index),
            }
        }
    }

    /// Takes a subscription out of its channel, whose last subscriber takes its place.
    fn leave(&mut self, Subscription { channel: name, position }: &Subscription) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.subscribers.swap_remove(*position);
        if let Some(moved) = channel.subscribers.get(*position)
            && let Some(connection) = self.connections.get(moved.connection)
        {
            connection.subscriptions[moved.position].position = *position;
        }
        if channel.subscribers.is_empty() {
            self.channels.remove(name);
        } else if !channel.members.is_empty() {
            let member = channel.members.swap_remove(*position);
            let data = [br#"{\"user_id\":"#, &member.user_id[..], b"}"].concat();
            internal(&mut self.frame, b"member_removed", name, &data);
            self.deliver(name, None);
        }
    }
}

impl Connections {
    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let index = self.free.pop().unwrap_or(self.slots.len());
        self.registry.register(&mut stream, Token(index), Interest::READABLE)?;
        let (unread, unsent, subscriptions) = Default::default();
        let connection = Connection { stream, upgraded: false, awaits_room: false, unread, unsent, subscriptions };
        match self.slots.get_mut(index) {
            Some(slot) => *slot = Some(connection),
            None => self.slots.push(Some(connection)),
        }
        Ok(())
    }

    fn get(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Closes its socket, too.
    fn remove(&mut self, index: usize) {
        self.slots[index] = None;
        self.free.push(index);
    }

    /// One write, if the socket has room; what it does not take follows when it has.
    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(connection) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        let mut sent = 0;
        if connection.unsent.is_empty() {
            sent = match connection.stream.write(bytes) {
                Ok(sent) if sent == bytes.len() => return,
                Ok(sent) => sent,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                // Reading will find the end.
                Err(_) => return,
            };
        }
        connection.unsent.extend_from_slice(&bytes[sent..]);
        if !connection.awaits_room {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.registry.reregister(&mut connection.stream, Token(index), interest);
            connection.awaits_room = registered.is_ok();
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(connection) = self.get(index) else { return };
        let mut sent = 0;
        while sent < connection.unsent.len() {
            match connection.stream.write(&connection.unsent[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        connection.unsent.drain(..sent);
    }
}

/// Writes a text frame as servers send them, without a mask, in place of what `frame` was.
fn encode(frame: &mut Vec<u8>, parts: &[&[u8]]) {
    frame.clear();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    frame.push(0x81);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < 126 => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    for part in parts {
        frame.extend_from_slice(part);
    }
}

/// `data` is escaped already.
fn internal(frame: &mut Vec<u8>, event: &[u8], channel: &[u8], data: &[u8]) {
    let parts =
        [br#"{"event":"pusher_internal:"#, event, br#"","channel":""#, channel, br#"","data":""#, data, br#""}"#];
    encode(frame, &parts);
}

fn succeeded(frame: &mut Vec<u8>, channel: &[u8], data: &[u8]) {
    internal(frame, b"subscription_succeeded", channel, data);
}

/// What a newcomer hears of the members, escaped.
fn list(members: &[Member]) -> Vec<u8> {
    let mut list = format!(r#"{{\"presence\":{{\"count\":{},\"ids\":["#, members.len()).into_bytes();
    for (place, member) in members.iter().enumerate() {
        list.extend_from_slice(if place == 0 { b"" } else { b"," });
        list.extend_from_slice(&member.user_id);
    }
    list.extend_from_slice(br#"],\"hash\":{"#);
    for (place, member) in members.iter().enumerate() {
        list.extend_from_slice(if place == 0 { b"" } else { b"," });
        list.extend_from_slice(&member.user_id);
        list.push(b':');
        list.extend_from_slice(&member.user_info);
    }
    list.extend_from_slice(b"}}}");
    list
}

/// The opcode of the first frame and where its payload is, by now without its mask; nothing if it is not complete.
fn unmask(bytes: &mut [u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let opcode = bytes.first()? & 0x0F;
    let (length, start) = match bytes.get(1)? & 0x7F {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        length => (u64::from(length), 2),
    };
    let payload = start + 4..start + 4 + length as usize;
    let mask: [u8; 4] = bytes.get(start..start + 4)?.try_into().ok()?;
    for chunk in bytes.get_mut(payload.clone())?.chunks_mut(4) {
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    Some((opcode, payload))
}

/// The value of a header, whose name is given in lower case.
fn header<'a>(head: &'a [u8], name: &[u8]) -> &'a [u8] {
    let value = |line: &'a [u8]| {
        let (field, value) = line.split_at_checked(name.len())?;
        (field.eq_ignore_ascii_case(name) && value.starts_with(b":")).then(|| value[1..].trim_ascii())
    };
    head.split(|&byte| byte == b'\n').find_map(value).unwrap_or_default()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// The values of some members of a JSON object, as they stand there. Nothing for those that it has not.
fn fields<'a, const N: usize>(object: &'a [u8], names: [&str; N]) -> [&'a [u8]; N] {
    let mut values = [&b""[..]; N];
    let mut rest = inside(object);
    while let Some(key) = next_value(&mut rest)
        && let Some(value) = next_value(&mut rest)
    {
        if let Some(place) = names.iter().position(|name| name.as_bytes() == unquoted(key)) {
            values[place] = value;
        }
    }
    values
}

/// What follows the bracket that an object or array begins with.
fn inside(value: &[u8]) -> &[u8] {
    value.get(1..).unwrap_or_default()
}

/// Takes the next value inside of an object or array; a key is one, too. Believes that it is valid JSON.
fn next_value<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let start = rest.iter().position(|byte| !b" \t\r\n,:".contains(byte))?;
    let text = &rest[start..];
    let length = match text[0] {
        b'"' => string_length(text)?,
        b'{' | b'[' => {
            let (mut depth, mut at) = (0, 0);
            loop {
                match text.get(at)? {
                    b'"' => at += string_length(&text[at..])? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break at;
                }
            }
        }
        b'}' | b']' => return None,
        _ => text.iter().position(|byte| b",}] \t\r\n".contains(byte)).unwrap_or(text.len()),
    };
    let (value, after) = text.split_at(length);
    *rest = after;
    Some(value)
}

/// Of the string literal that the text begins with, quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The inside of a string literal.
fn unquoted(literal: &[u8]) -> &[u8] {
    literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default()
}

/// The text of a string literal that holds JSON. Other escapes than these stay, and are right there as well.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\\' if matches!(rest.as_slice(), [b'"' | b'\\', ..]) => plain.extend(rest.next()),
            byte => plain.push(byte),
        }
    }
    plain
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut literal = Vec::with_capacity(text.len() + 8);
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    literal
}
