//! A client that takes down everything it hears, while the test does something else.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Client, Message, PATIENCE};
use crate::it::{Item, KEY, Opcode, SECRET, masked, sign};

/// A connection with a task of its own that reads it. Dropping it ends the connection without a word.
pub struct Recorder {
    /// The name of the connection.
    pub socket_id: String,
    heard: watch::Receiver<Heard>,
    requests: mpsc::UnboundedSender<Value>,
    running: JoinHandle<()>,
}

/// What arrived so far.
#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Message>,
    /// The end of the connection, with the code of its close frame if there was one.
    end: Option<Option<u16>>,
}

impl Recorder {
    /// Takes the client over.
    pub fn start(client: Client) -> Self {
        let socket_id = client.socket_id.clone();
        let (sender, heard) = watch::channel(Heard::default());
        let (requests, receiver) = mpsc::unbounded_channel();
        Self { socket_id, heard, requests, running: tokio::spawn(record(client, sender, receiver)) }
    }

    /// Sends a message, if the connection is still there.
    pub fn send(&self, message: Value) {
        let _ = self.requests.send(message);
    }

    /// Asks to become a member of a presence channel.
    pub fn join(&self, channel: &str, user_id: &str) {
        let channel_data = json!({ "user_id": user_id }).to_string();
        let signature = sign::hmac(SECRET, &format!("{}:{channel}:{channel_data}", self.socket_id));
        let data = json!({ "auth": format!("{KEY}:{signature}"), "channel_data": channel_data, "channel": channel });
        self.send(json!({ "event": "pusher:subscribe", "data": data }));
    }

    /// Leaves a channel.
    pub fn leave(&self, channel: &str) {
        self.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }));
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.heard.borrow().messages.clone()
    }

    /// The data of all events of the application on this channel so far.
    pub fn data(&self, channel: &str) -> Vec<String> {
        let heard = self.heard.borrow();
        let own = heard
            .messages
            .iter()
            .filter(|message| message.channel() == Some(channel) && !message.event().starts_with("pusher"));
        own.map(|message| message.text().to_owned()).collect()
    }

    /// Waits until what arrived is enough.
    pub async fn expect(&self, what: &str, time: Duration, enough: impl Fn(&[Message]) -> bool) {
        let mut heard = self.heard.clone();
        let result = tokio::time::timeout(time, heard.wait_for(|heard| enough(&heard.messages))).await;
        if !matches!(result, Ok(Ok(_))) {
            drop(result);
            self.fail(&format!("not within {time:?}: {what}"));
        }
    }

    /// Waits until everything that is on its way has arrived: a ping is answered behind all else.
    pub async fn settle(&self) {
        let pongs = |messages: &[Message]| messages.iter().filter(|message| message.event() == "pusher:pong").count();
        let before = pongs(&self.heard.borrow().messages);
        self.send(json!({ "event": "pusher:ping", "data": {} }));
        self.expect("a pong", PATIENCE, |messages| pongs(messages) > before).await;
    }

    /// Waits until the connection has been closed with this code.
    pub async fn expect_close(&self, code: u16, time: Duration) {
        let mut heard = self.heard.clone();
        let result = tokio::time::timeout(time, heard.wait_for(|heard| heard.end.is_some())).await;
        drop(result);
        if self.end() != Some(Some(code)) {
            self.fail(&format!("not closed with {code} within {time:?}, but {:?}", self.end()));
        }
    }

    /// The end of the connection, with the code of the close frame if there was one.
    pub fn end(&self) -> Option<Option<u16>> {
        self.heard.borrow().end
    }

    /// Fails if the connection has ended.
    pub fn is_connected(&self) {
        if let Some(code) = self.end() {
            self.fail(&format!("closed with {code:?}"));
        }
    }

    /// Fails, and prints what has arrived.
    pub fn fail(&self, what: &str) -> ! {
        let messages = self.messages();
        let skipped = messages.len().saturating_sub(50);
        let last: Vec<_> = messages[skipped..].iter().map(|message| message.json.to_string()).collect();
        let last = last.join("\n  ");
        panic!("{what}; what arrived on {} ({skipped} earlier ones not shown):\n  {last}\n", self.socket_id);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn record(mut client: Client, heard: watch::Sender<Heard>, mut requests: mpsc::UnboundedReceiver<Value>) {
    loop {
        let item = tokio::select! {
            item = client.wire.item() => item,
            Some(request) = requests.recv() => {
                // A connection that is gone says so when it is read.
                let _ = client.wire.try_write(&masked(true, Opcode::Text as u8, request.to_string().as_bytes())).await;
                continue;
            }
        };
        match item {
            Item::Text(text) => heard.send_modify(|heard| heard.messages.push(Message::parse(&text))),
            Item::Ping(payload) => {
                let _ = client.wire.try_write(&masked(true, Opcode::Pong as u8, &payload)).await;
            }
            Item::Pong(_) => {}
            Item::Close(code, _) => {
                let _ = client.wire.try_write(&masked(true, Opcode::Close as u8, &1000_u16.to_be_bytes())).await;
                heard.send_modify(|heard| heard.end = Some(code));
                return;
            }
            Item::End => {
                heard.send_modify(|heard| heard.end = Some(None));
                return;
            }
        }
    }
}
