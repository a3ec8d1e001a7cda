//! A client over a blocking WebSocket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::DEADLINE;

/// One connection to a server.
pub struct Client {
    socket: WebSocket<Patient>,
    /// The name of this connection, once greeted.
    pub socket_id: String,
    arrived: Vec<String>,
}

/// What a server has to say.
#[derive(Debug)]
pub enum Heard {
    Event(Value),
    Close(u16, String),
}

impl Client {
    /// Upgrades a new connection.
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str) -> Self {
        Self::try_open(address, path, &[]).unwrap_or_else(|error| panic!("no WebSocket on {address}{path}: {error}"))
    }

    /// The same with headers of one's own, and for a server that may have no time for us.
    pub fn try_open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let request = Request::builder()
            .uri(format!("ws://{address}{path}"))
            .header("Host", address.to_string())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (socket, _) =
            tungstenite::client::client(request.body(()).unwrap(), Patient(stream)).map_err(io::Error::other)?;
        Ok(Self { socket, socket_id: String::new(), arrived: Vec::new() })
    }

    /// Takes the greeting.
    #[track_caller]
    pub fn greeted(&mut self) -> Value {
        let greeting = self.event("pusher:connection_established");
        let data: Value = serde_json::from_str(greeting["data"].as_str().unwrap()).unwrap();
        self.socket_id = data["socket_id"].as_str().unwrap().to_owned();
        data
    }

    /// Sends a message.
    #[track_caller]
    pub fn send(&mut self, event: &str, data: Value) {
        self.send_text(&json!({ "event": event, "data": data }).to_string());
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Subscribes to a public channel.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.send("pusher:subscribe", json!({ "channel": channel }));
        self.event("pusher_internal:subscription_succeeded");
    }

    /// The next thing that happens.
    #[track_caller]
    pub fn hear(&mut self) -> Heard {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    self.arrived.push(text.to_string());
                    return Heard::Event(serde_json::from_str(&text).unwrap());
                }
                Ok(Message::Close(frame)) => {
                    let frame =
                        frame.unwrap_or_else(|| panic!("a close without a code; before it: {:#?}", self.arrived));
                    return Heard::Close(frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(error) => panic!("{error}; what arrived before: {:#?}", self.arrived),
            }
        }
    }

    /// The next event, which must be this one.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        match self.hear() {
            Heard::Event(event) if event["event"] == name => event,
            other => panic!("{other:?} instead of {name}; before it: {:#?}", self.arrived),
        }
    }

    /// The close code, which must come next.
    #[track_caller]
    pub fn closed(&mut self) -> u16 {
        match self.hear() {
            Heard::Close(code, _) => code,
            Heard::Event(event) => panic!("{event} instead of a close; before it: {:#?}", self.arrived),
        }
    }

    /// Whether the server still listens to this client.
    #[track_caller]
    pub fn is_answered(&mut self) {
        self.send("pusher:ping", json!({}));
        self.event("pusher:pong");
    }

    /// Leaves, and waits until the server has taken note.
    #[track_caller]
    pub fn leave(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
    }
}

/// A socket with a deadline. Such a one ends its waiting early when a machine is paused and goes on, which is no error.
struct Patient(TcpStream);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
