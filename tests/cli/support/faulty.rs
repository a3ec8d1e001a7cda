//! A server that speaks just enough of the protocol to be measured, and makes one mistake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, though it spells messages unlike Fanfare, other keys in another order, and closes API connections after
    /// each answer without a word.
    None,
    /// The third event does not come.
    Loses,
    /// The third event comes twice.
    Repeats,
    /// The third event comes after the fourth.
    Swaps,
    /// The third event says something else.
    Garbles,
    /// The third event comes on another channel.
    Misdelivers,
    /// An event of no trigger comes with the third one.
    Invents,
    /// The first client is sent away at the third event.
    Disconnects,
    /// Triggers are answered with 413.
    Refuses,
    /// Triggers are not answered.
    Ignores,
    /// Upgrades are answered with 404.
    IsNoWebSocket,
    /// Subscriptions are not confirmed.
    ConfirmsNothing,
    /// Connections are accepted, and that is all.
    SaysNothing,
}

/// Starts one; it runs until the test process ends.
pub fn faulty(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        Arc::new(Server { fault, clients: Mutex::default(), held: Mutex::default(), events: Mutex::default() });
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(stream));
        }
    });
    address
}

struct Server {
    fault: Fault,
    clients: Mutex<Vec<TcpStream>>,
    /// A message that comes late.
    held: Mutex<Option<String>>,
    events: Mutex<u64>,
}

impl Server {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        if self.fault == Fault::SaysNothing {
            return std::iter::repeat_with(|| stream.read_exact(&mut [0]).ok()).take_while(Option::is_some).last()?;
        }
        loop {
            let head = head(&mut stream)?;
            if head.starts_with("GET ") {
                return self.talk(stream);
            }
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length?];
            stream.read_exact(&mut body).ok()?;
            let status = self.trigger(&serde_json::from_slice(&body).unwrap());
            if let Some(status) = status {
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").ok()?;
            }
            if self.fault == Fault::None {
                return None;
            }
        }
    }

    /// One client.
    fn talk(&self, mut stream: TcpStream) -> Option<()> {
        if self.fault == Fault::IsNoWebSocket {
            return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
        }
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").ok()?;
        let greeting = json!({ "socket_id": "1.2", "activity_timeout": 120 }).to_string();
        let greeting = json!({ "event": "pusher:connection_established", "data": greeting });
        stream.write_all(&frame(1, greeting.to_string().as_bytes())).ok()?;
        // Half of them are asked whether they are there, as some servers do.
        stream.write_all(&frame(9, b"there?")).ok()?;
        stream.write_all(&frame(1, br#"{"event":"pusher:ping","data":"{}"}"#)).ok()?;
        loop {
            let text = read_text(&mut stream)?;
            let message: Value = serde_json::from_slice(&text).unwrap();
            let answer = match message["event"].as_str()? {
                "pusher:subscribe" if self.fault == Fault::ConfirmsNothing => continue,
                "pusher:subscribe" => {
                    self.clients.lock().unwrap().push(stream.try_clone().unwrap());
                    json!({ "channel": message["data"]["channel"], "event": "pusher_internal:subscription_succeeded" })
                }
                "pusher:ping" => json!({ "event": "pusher:pong", "data": "{}" }),
                _ => continue,
            };
            stream.write_all(&frame(1, answer.to_string().as_bytes())).ok()?;
        }
    }

    /// Delivers an event, or not. Returns what to answer.
    fn trigger(&self, event: &Value) -> Option<&'static str> {
        let number = {
            let mut events = self.events.lock().unwrap();
            *events += 1;
            *events
        };
        let (channel, data) = (event["channels"][0].as_str().unwrap(), event["data"].as_str().unwrap());
        let message = |channel: &str, data: &str| {
            format!(r#"{{"data": "{data}", "user_id": "7", "channel": "{channel}", "event": "bench"}}"#)
        };
        let right = message(channel, data);
        let messages = match (self.fault, number) {
            (Fault::Refuses, _) => return Some("413 Too Large"),
            (Fault::Ignores, _) => return None,
            (Fault::Loses, 3) => vec![],
            (Fault::Repeats, 3) => vec![right.clone(), right],
            (Fault::Garbles, 3) => vec![message(channel, &data.replace("xx", "xy"))],
            (Fault::Misdelivers, 3) => vec![message("elsewhere", data)],
            (Fault::Invents, 3) => vec![right, message(channel, &data.replace(":", "9:").replacen('0', "", 1))],
            (Fault::Swaps, 3) => {
                *self.held.lock().unwrap() = Some(right);
                vec![]
            }
            _ => std::iter::once(right).chain(self.held.lock().unwrap().take()).collect(),
        };
        for (index, client) in self.clients.lock().unwrap().iter_mut().enumerate() {
            if self.fault == Fault::Disconnects && number == 3 && index == 0 {
                let _ = client.write_all(&frame(8, &[&4100u16.to_be_bytes(), &b"enough"[..]].concat()));
                continue;
            }
            for message in &messages {
                let _ = client.write_all(&frame(1, message.as_bytes()));
            }
        }
        Some("200 OK")
    }
}

/// A request's head.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A frame as a server sends it.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8),
        length => bytes.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
    }
    bytes.extend(payload);
    bytes
}

/// The next text of a client, which has to mask it. Pongs have to be right, too.
fn read_text(stream: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start).ok()?;
        assert_eq!(start[1] & 0x80, 0x80, "a client masks");
        let mut length = u16::from(start[1] & 0x7f);
        if length == 126 {
            let mut long = [0; 2];
            stream.read_exact(&mut long).ok()?;
            length = u16::from_be_bytes(long);
        }
        let (mut mask, mut payload) = ([0; 4], vec![0; usize::from(length)]);
        stream.read_exact(&mut mask).ok()?;
        stream.read_exact(&mut payload).ok()?;
        payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= mask[index % 4]);
        match start[0] {
            0x81 => return Some(payload),
            0x8a => assert_eq!(payload, b"there?"),
            _ => return None,
        }
    }
}
