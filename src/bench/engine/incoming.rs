//! What arrives at clients: frames out of bytes, and the messages that the engine understands itself.

use std::io::{self, Read};

use serde::Deserialize;

use super::{BUFFER, Engine, Happening, Listener, Nanos, Transport};
use crate::bench::connection::Stage;
use crate::bench::error::BenchError;
use crate::bench::frame::{self, Frame};

impl Engine {
    /// Reads all there is, and handles every complete frame.
    pub(super) fn read(&mut self, client: usize, ends: bool, listener: &mut impl Listener) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(connection) = &mut self.clients[client] {
            if connection.stalled {
                break;
            }
            let kept = connection.remainder.len();
            if buffer.len() < kept + BUFFER / 2 {
                buffer.resize(kept + BUFFER, 0);
            }
            let space = buffer.len() - kept;
            match connection.stream.read(&mut buffer[kept..]) {
                Ok(0) => {
                    self.gone(client, None, "the connection ended without a close frame".to_owned());
                    break;
                }
                Ok(count) => {
                    buffer[..kept].copy_from_slice(&connection.remainder);
                    let used = match self.transport.has_frames() {
                        true => self.consume(client, &buffer[..kept + count], listener),
                        false => self.consume_http(client, &buffer[..kept + count], listener),
                    };
                    if let Some(connection) = &mut self.clients[client] {
                        keep(&mut connection.remainder, &buffer[used..kept + count]);
                    }
                    // A short read has emptied the socket: asking again would only cost time.
                    if count < space && !ends {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.gone(client, None, error.to_string());
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Handles the complete messages at the beginning of `bytes`; returns how many bytes they were.
    fn consume(&mut self, client: usize, bytes: &[u8], listener: &mut impl Listener) -> usize {
        let now = self.now();
        let mut used = 0;
        while let Some(connection) = &mut self.clients[client] {
            let rest = &bytes[used..];
            if matches!(connection.stage, Stage::Connecting | Stage::Upgrading) {
                let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else { break };
                let head = String::from_utf8_lossy(&rest[..end]);
                let status = head.lines().next().unwrap_or_default();
                if status.split(' ').nth(1) != Some("101") {
                    self.fail(BenchError::NoWebSocket(status.to_owned()));
                    return bytes.len();
                }
                connection.stage = Stage::Greeting;
                used += end + 4;
                continue;
            }
            let Some(frame) = frame::parse(rest) else { break };
            used += frame.length;
            let Frame { opcode, last, payload, .. } = frame;
            match opcode {
                frame::TEXT if last => match self.transport {
                    Transport::Sockjs => self.hear_packet(client, payload, now, listener),
                    _ => self.hear(client, payload, now, listener),
                },
                frame::PING => self.send_frame(client, frame::PONG, payload),
                frame::PONG => {}
                frame::CLOSE => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    let how = match code {
                        Some(code) => format!("with {code} {reason:?}"),
                        None => "with an empty close frame".to_owned(),
                    };
                    self.gone(client, code, how);
                    return bytes.len();
                }
                _ => {
                    self.gone(client, None, format!("it sent a frame of kind {opcode}, or a part of a message"));
                    return bytes.len();
                }
            }
        }
        used
    }

    /// Handles a message.
    pub(super) fn hear(&mut self, client: usize, text: &[u8], now: Nanos, listener: &mut impl Listener) {
        let Some(connection) = &self.clients[client] else { return };
        if connection.stage == Stage::Greeting {
            self.greet(client, text);
        } else if !listener.hear(client, text, now) {
            self.understand(client, text);
        }
    }

    fn greet(&mut self, client: usize, text: &[u8]) {
        let message: Option<Message> = serde_json::from_slice(text).ok();
        let greeting = message.filter(|message| message.event == "pusher:connection_established");
        let data = greeting.and_then(|message| message.data.as_str().map(str::to_owned));
        let greeting: Option<Greeting> = data.and_then(|data| serde_json::from_str(&data).ok());
        let Some(greeting) = greeting else {
            let text = String::from_utf8_lossy(text).into_owned();
            self.happenings.push_back(Happening::Refused { client, text });
            return;
        };
        if let Some(connection) = &mut self.clients[client] {
            connection.socket_id = greeting.socket_id.into();
            connection.stage = Stage::Open;
            self.happenings.push_back(Happening::Greeted(client));
        }
    }

    /// Looks at a message that the listener does not know: the protocol's own ones.
    fn understand(&mut self, client: usize, text: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Message>(text) else {
            let text = format!("not JSON: {}", String::from_utf8_lossy(text));
            self.happenings.push_back(Happening::Refused { client, text });
            return;
        };
        match &*message.event {
            "pusher_internal:subscription_succeeded" => {
                if let Some(connection) = &mut self.clients[client] {
                    connection.awaited = connection.awaited.saturating_sub(1);
                    self.happenings.push_back(Happening::Subscribed(client));
                }
            }
            "pusher:pong" => self.happenings.push_back(Happening::Ponged),
            "pusher:ping" => self.send(client, r#"{"event":"pusher:pong","data":{}}"#),
            "pusher:error" | "pusher:subscription_error" => {
                let text = String::from_utf8_lossy(text).into_owned();
                self.happenings.push_back(Happening::Refused { client, text });
            }
            _ => {}
        }
    }
}

/// Keeps what is left, without holding on to memory that is rarely needed.
fn keep(remainder: &mut Vec<u8>, left: &[u8]) {
    remainder.clear();
    if left.is_empty() && remainder.capacity() > 0 {
        *remainder = Vec::new();
    }
    remainder.extend_from_slice(left);
}

/// Any message of the protocol, as far as the engine looks at it.
#[derive(Deserialize)]
struct Message {
    event: String,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
struct Greeting {
    socket_id: String,
}
