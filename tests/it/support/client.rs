//! A Pusher client that takes nothing for granted: every message is asked for by the test, in the order it arrives.

use serde_json::{Value, json};

use super::wire::{Item, Opcode, Wire, masked};
use super::{DEADLINE, Message, requests};

/// One connection to the server.
pub struct Client {
    /// The bytes below.
    pub wire: Wire,
    /// The server's answer to the handshake.
    pub head: String,
    /// The name of this connection, once greeted.
    pub socket_id: String,
    /// Answer the server's control pings, as every real client does.
    pub answers_pings: bool,
    label: String,
    arrived: Vec<String>,
}

impl Client {
    /// A client over an upgraded connection.
    pub fn new(wire: Wire, head: String) -> Self {
        Self { wire, head, socket_id: String::new(), answers_pings: true, label: String::new(), arrived: Vec::new() }
    }

    /// A name for failures: the row of a table, for example.
    pub fn label(&mut self, label: &str) {
        label.clone_into(&mut self.label);
    }

    /// Fails, and prints everything that has arrived on this connection.
    pub fn fail(&self, what: &str) -> ! {
        let skipped = self.arrived.len().saturating_sub(50);
        let last = self.arrived[skipped..].join("\n  ");
        panic!(
            "{}{what}; what arrived on {} ({skipped} earlier ones not shown):\n  {last}\n",
            if self.label.is_empty() { String::new() } else { format!("[{}] ", self.label) },
            self.socket_id
        );
    }

    // Sending.

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) {
        self.wire.write(&masked(true, Opcode::Text as u8, text.as_bytes())).await;
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends several messages in one write.
    pub async fn send_all(&mut self, messages: &[Value]) {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(masked(true, Opcode::Text as u8, message.to_string().as_bytes()));
        }
        self.wire.write(&bytes).await;
    }

    /// Sends a control frame.
    pub async fn send_control(&mut self, opcode: Opcode, payload: &[u8]) {
        self.wire.write(&masked(true, opcode as u8, payload)).await;
    }

    /// Sends a client event.
    pub async fn send_event(&mut self, channel: &str, event: &str, data: Value) {
        self.send(json!({ "event": event, "channel": channel, "data": data })).await;
    }

    /// Closes in good order, up to the end of the TCP connection.
    pub async fn disconnect(mut self) {
        self.send_control(Opcode::Close, &1000_u16.to_be_bytes()).await;
        loop {
            match self.item().await {
                Item::End => break,
                _ => continue,
            }
        }
    }

    // Receiving.

    /// The next frame, control frames included, or a failure after the deadline.
    pub async fn item(&mut self) -> Item {
        let Ok(item) = tokio::time::timeout(DEADLINE, self.wire.item()).await else {
            self.fail(&format!("nothing more within {DEADLINE:?}"));
        };
        self.arrived.push(match &item {
            Item::Text(text) if text.len() > 2000 => {
                format!("{}… ({} bytes)", text.chars().take(1000).collect::<String>(), text.len())
            }
            Item::Text(text) => text.clone(),
            other => format!("{other:?}"),
        });
        item
    }

    /// The next message.
    pub async fn next(&mut self) -> Message {
        loop {
            match self.item().await {
                Item::Text(text) => return Message::parse(&text),
                Item::Ping(payload) if self.answers_pings => self.send_control(Opcode::Pong, &payload).await,
                other => self.fail(&format!("expected a message, not {other:?}")),
            }
        }
    }

    /// The greeting; remembers the socket id.
    pub async fn greeting(&mut self) -> Message {
        let greeting = self.expect("pusher:connection_established").await;
        greeting.data()["socket_id"].as_str().expect("the greeting names the socket").clone_into(&mut self.socket_id);
        greeting
    }

    /// The next message, which must be this event.
    pub async fn expect(&mut self, event: &str) -> Message {
        let message = self.next().await;
        if message.event() != event {
            self.fail(&format!("expected {event}"));
        }
        message
    }

    /// The next message, which must be this event on this channel.
    pub async fn expect_on(&mut self, channel: &str, event: &str) -> Message {
        let message = self.expect(event).await;
        if message.channel() != Some(channel) {
            self.fail(&format!("expected {event} on {channel}"));
        }
        message
    }

    /// The next message, which must be exactly this.
    pub async fn expect_json(&mut self, expected: Value) {
        let message = self.next().await;
        if message.json != expected {
            self.fail(&format!("expected {expected}"));
        }
    }

    /// The next message, which must be this event of the application with this data.
    pub async fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        self.expect_json(json!({ "event": event, "channel": channel, "data": data })).await;
    }

    /// The next message, which must be an error without a code, with exactly this text.
    pub async fn expect_error(&mut self, text: &str) {
        self.expect_json(json!({ "event": "pusher:error", "data": { "code": null, "message": text } })).await;
    }

    /// The next message, which must be an error without a code; returns its text.
    pub async fn expect_some_error(&mut self) -> String {
        let message = self.expect("pusher:error").await;
        if !message.json["data"]["code"].is_null() {
            self.fail("expected an error without a code");
        }
        message.error().to_owned()
    }

    /// The three messages about a refused subscription (protocol §2.6); returns the error's text.
    pub async fn expect_rejection(&mut self, channel: &str, kind: &str, status: u16) -> String {
        let text = self.expect_some_error().await;
        let second = self.expect_on(channel, "pusher:subscription_error").await;
        if second.data() != json!({ "type": kind, "error": text, "status": status }) {
            self.fail(&format!("expected {kind}, {status} and the same text"));
        }
        self.expect_json(json!({ "event": "pusher_internal:subscription_error", "channel": channel, "data": "{}" }))
            .await;
        text
    }

    /// Proves that nothing is on its way to this connection: a ping is answered and nothing stands in between.
    pub async fn expect_silence(&mut self) {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        self.expect_json(json!({ "event": "pusher:pong", "data": "{}" })).await;
    }

    /// Proves that nothing is on its way but what may follow the error about a refused subscription.
    pub async fn expect_only_rejections(&mut self) {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        loop {
            let message = self.next().await;
            match message.event() {
                "pusher:pong" => return,
                "pusher:subscription_error" | "pusher_internal:subscription_error" => {}
                _ => self.fail("expected nothing but the events of a refused subscription"),
            }
        }
    }

    /// Waits until the server has worked off everything this connection has sent.
    pub async fn settle(&mut self) {
        self.expect_silence().await;
    }

    /// The next frame, which must be a close frame with this code; returns the reason.
    pub async fn expect_unanswered_close(&mut self, code: u16) -> String {
        match self.item().await {
            Item::Close(Some(actual), reason) if actual == code => reason,
            _ => self.fail(&format!("expected close {code}")),
        }
    }

    /// The next frame, which must be a close frame with this code; answers it and returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        let reason = self.expect_unanswered_close(code).await;
        let _ = self.wire.try_write(&masked(true, Opcode::Close as u8, &code.to_be_bytes())).await;
        reason
    }

    /// Lets the server stop: whatever comes before the close frame of a server that leaves, which is answered.
    pub async fn expect_farewell(&mut self) {
        loop {
            match self.item().await {
                Item::Close(Some(4200), _) => break,
                Item::Text(_) | Item::Ping(_) => {}
                other => self.fail(&format!("expected close 4200, not {other:?}")),
            }
        }
        let _ = self.wire.try_write(&masked(true, Opcode::Close as u8, &4200_u16.to_be_bytes())).await;
    }

    /// An end of the connection by this code: announced by an error event to the old protocols.
    pub async fn expect_fatal(&mut self, code: u16, announced: bool) -> String {
        if announced {
            let error = self.expect("pusher:error").await;
            if error.json["data"]["code"] != code {
                self.fail(&format!("expected error {code}"));
            }
            let reason = self.expect_close(code).await;
            if error.error() != reason {
                self.fail("expected the same text in the event and in the close frame");
            }
            return reason;
        }
        self.expect_close(code).await
    }

    /// The end of the TCP connection, and nothing before it.
    pub async fn expect_end(&mut self) {
        if !matches!(self.item().await, Item::End) {
            self.fail("expected the end of the connection");
        }
    }

    // Subscribing and signing in.

    /// The token for a channel.
    pub fn auth(&self, channel: &str) -> String {
        requests::auth(&self.socket_id, channel)
    }

    /// The request for a channel of any kind without channel data, signed.
    pub fn subscription(&self, channel: &str) -> Value {
        requests::subscription(&self.socket_id, channel)
    }

    /// The request for a presence channel, signed.
    pub fn membership(&self, channel: &str, channel_data: &str) -> Value {
        requests::membership(&self.socket_id, channel, channel_data)
    }

    /// Subscribes to a public channel.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send(json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": channel } })).await;
        self.expect_success(channel).await;
    }

    /// Subscribes to a private channel.
    pub async fn subscribe_private(&mut self, channel: &str) {
        self.send(self.subscription(channel)).await;
        self.expect_success(channel).await;
    }

    /// The success message of anything but a presence channel.
    pub async fn expect_success(&mut self, channel: &str) {
        self.expect_json(
            json!({ "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}" }),
        )
        .await;
    }

    /// Becomes a member of a presence channel; returns the success message.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Message {
        self.join_as(channel, &json!({ "user_id": user_id }).to_string()).await
    }

    /// Becomes a member with this channel data; returns the success message.
    pub async fn join_as(&mut self, channel: &str, channel_data: &str) -> Message {
        self.send(self.membership(channel, channel_data)).await;
        self.expect_on(channel, "pusher_internal:subscription_succeeded").await
    }

    /// Leaves a channel.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })).await;
    }

    /// Leaves a channel and waits until that is done.
    pub async fn leave(&mut self, channel: &str) {
        self.unsubscribe(channel).await;
        self.settle().await;
    }

    /// The request of a sign-in, signed.
    pub fn sign_in_request(&self, user_data: &str) -> Value {
        requests::sign_in(&self.socket_id, user_data)
    }

    /// Signs in under this id.
    pub async fn sign_in(&mut self, user_id: &str) {
        self.sign_in_as(&json!({ "id": user_id }).to_string()).await;
    }

    /// Signs in with this user data.
    pub async fn sign_in_as(&mut self, user_data: &str) {
        self.send(self.sign_in_request(user_data)).await;
        let data = json!({ "user_data": user_data });
        let message = self.expect("pusher:signin_success").await;
        if message.data() != data || message.channel().is_some() {
            self.fail(&format!("expected the user data {user_data:?}"));
        }
    }
}
