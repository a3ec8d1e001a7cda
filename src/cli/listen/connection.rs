//! One WebSocket connection to a Pusher server, from the greeting to the goodbye.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::protocol::SocketId;

use super::super::api_client::{escape, unreachable};
use super::super::target::Target;
use super::ListenError;
use super::message::Message;

/// How long connecting, and then the greeting, may take.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to a ping may take (protocol §8).
pub(super) const PONG_TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds of silence after which a client pings even if the server would allow more.
const MAX_ACTIVITY_TIMEOUT: u64 = 120;
/// How long the other side may take to say goodbye, too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An established connection.
pub(super) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    activity_timeout: Duration,
    /// When to ping or, after a ping, to give up.
    deadline: Instant,
    pinged: bool,
}

impl Connection {
    /// Connects and waits for the greeting, which names the connection.
    pub(super) async fn open(target: &Target) -> Result<(Self, SocketId), ListenError> {
        let url = target.url.to_string();
        let path = format!(
            "/app/{}?protocol=7&client=fanfare-cli&version={}&flash=false",
            escape(&target.key),
            env!("CARGO_PKG_VERSION")
        );
        let socket = match timeout(GREETING_TIMEOUT, connect_async(target.url.websocket(&path))).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(error)) => return Err(refusal(url, error)),
            Err(_) => return Err(ListenError::NoGreeting { url }),
        };
        let activity_timeout = Duration::from_secs(MAX_ACTIVITY_TIMEOUT);
        let deadline = Instant::now() + activity_timeout;
        let mut connection = Self { socket, activity_timeout, deadline, pinged: false };
        let Ok(greeting) = timeout(GREETING_TIMEOUT, connection.next()).await else {
            return Err(ListenError::NoGreeting { url });
        };
        let greeting = greeting?;
        let message = Message::parse(&greeting);
        if let Some((socket_id, activity_timeout)) = message.as_ref().and_then(Message::greeting) {
            connection.activity_timeout = Duration::from_secs(activity_timeout.clamp(1, MAX_ACTIVITY_TIMEOUT));
            connection.alive();
            return Ok((connection, socket_id));
        }
        // A server may announce its close as an event instead of the greeting; that counts like the close frame.
        Err(match message.as_ref().and_then(Message::close) {
            Some((code, reason)) => ListenError::Closed { code, reason },
            None => ListenError::NoGreeting { url },
        })
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, text: String) -> Result<(), ListenError> {
        self.socket.send(tungstenite::Message::text(text)).await.map_err(broken)
    }

    /// Waits for the next message. Pings when it is quiet and answers pings meanwhile.
    ///
    /// # Cancel safety
    /// No event is lost; a ping that is being written may be.
    pub(super) async fn next(&mut self) -> Result<Utf8Bytes, ListenError> {
        loop {
            let message = match timeout_at(self.deadline, self.socket.next()).await {
                Ok(Some(message)) => message.map_err(broken)?,
                Ok(None) => return Err(ListenError::Broken("the server ended it without a goodbye".to_owned())),
                Err(_) if self.pinged => return Err(ListenError::Silent),
                Err(_) => {
                    self.pinged = true;
                    self.deadline = Instant::now() + PONG_TIMEOUT;
                    self.send(r#"{"event":"pusher:ping","data":{}}"#.to_owned()).await?;
                    continue;
                }
            };
            match message {
                tungstenite::Message::Text(text) => {
                    self.alive();
                    if Message::parse(&text).is_some_and(|message| message.event == "pusher:ping") {
                        self.send(r#"{"event":"pusher:pong","data":{}}"#.to_owned()).await?;
                    }
                    return Ok(text);
                }
                tungstenite::Message::Close(frame) => {
                    self.drain().await;
                    let no_code = || (1005, "(no close code)".to_owned());
                    let (code, reason) =
                        frame.map_or_else(no_code, |frame| (frame.code.into(), frame.reason.to_string()));
                    return Err(ListenError::Closed { code, reason });
                }
                // Control frames are answered below us and are no activity: like pusher-js, we count messages.
                _ => {}
            }
        }
    }

    /// Says goodbye and waits a moment for the other side to do so.
    pub(super) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        // A connection that broke meanwhile is as closed as it can be.
        if self.socket.close(Some(frame)).await.is_ok() {
            self.drain().await;
        }
    }

    /// Lets the closing handshake finish.
    async fn drain(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // Whoever does not finish it in time is left behind.
        let _ = timeout(CLOSE_TIMEOUT, rest).await;
    }

    fn alive(&mut self) {
        self.pinged = false;
        self.deadline = Instant::now() + self.activity_timeout;
    }
}

fn broken(error: tungstenite::Error) -> ListenError {
    ListenError::Broken(error.to_string())
}

fn refusal(url: String, error: tungstenite::Error) -> ListenError {
    match error {
        tungstenite::Error::Http(response) => ListenError::NoWebSocket { url, status: response.status().to_string() },
        error => unreachable(&url, &error).into(),
    }
}
