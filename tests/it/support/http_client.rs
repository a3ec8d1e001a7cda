//! A client like [`super::Client`], over HTTP.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{DEADLINE, HttpSession, Message, Packet, Receiving, requests};

/// What pusher-js parses of one response before it asks for the next, in UTF-16 units.
pub const LIMIT: usize = 262_144;

/// A client that does not care how it receives.
pub struct HttpClient {
    /// What it sends its requests to.
    pub session: HttpSession,
    /// The name of this connection, once greeted.
    pub socket_id: String,
    /// Answer heartbeats, as pusher-js does on streams.
    pub answers_heartbeats: bool,
    streams: bool,
    receiving: Option<Receiving>,
    inbox: VecDeque<Packet>,
    arrived: Vec<String>,
}

impl HttpClient {
    /// One that has not begun to receive.
    pub fn new(session: HttpSession, streams: bool) -> Self {
        Self {
            answers_heartbeats: streams && !session.is_sockjs(),
            session,
            socket_id: String::new(),
            streams,
            receiving: None,
            inbox: VecDeque::new(),
            arrived: Vec::new(),
        }
    }

    /// The same after its greeting.
    pub async fn greeted(mut self) -> Self {
        match self.packet().await {
            Packet::Open(_) => {}
            _ => self.fail("expected o"),
        }
        if self.session.is_sockjs() {
            self.session.ask_for_app().await;
        }
        let greeting = self.expect("pusher:connection_established").await;
        greeting.data()["socket_id"].as_str().expect("the greeting names the socket").clone_into(&mut self.socket_id);
        self
    }

    /// Fails, and prints everything that has arrived.
    pub fn fail(&self, what: &str) -> ! {
        let skipped = self.arrived.len().saturating_sub(50);
        panic!("{what}; what arrived on {}:\n  {}\n", self.socket_id, self.arrived[skipped..].join("\n  "));
    }

    /// Stops receiving: the connection of the response ends.
    pub fn hang_up(&mut self) {
        self.receiving = None;
    }

    /// Sends a message.
    pub async fn send(&self, message: Value) {
        self.session.send(&[message]).await;
    }

    /// The next packet, with whatever requests that takes.
    pub async fn packet(&mut self) -> Packet {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.inbox.is_empty() {
            let Ok(lines) = tokio::time::timeout_at(deadline, self.receive()).await else {
                self.fail(&format!("nothing more within {DEADLINE:?}"));
            };
            for line in lines {
                self.inbox.extend(Packet::parse(&line));
                self.arrived.push(line.chars().take(2000).collect());
            }
        }
        self.inbox.pop_front().expect("not empty")
    }

    /// The next lines.
    async fn receive(&mut self) -> Vec<String> {
        if !self.streams {
            let response = self.session.poll().await;
            assert_eq!(response.status, 200, "{}\n\n{}", response.head, response.body);
            assert!(response.body.ends_with('\n'), "no line: {:?}", response.body);
            return response.body.lines().map(str::to_owned).collect();
        }
        let receiving = match &mut self.receiving {
            Some(receiving) if receiving.units <= LIMIT => receiving,
            other => other.insert(self.session.stream().await),
        };
        match receiving.line().await {
            Some(line) => vec![line],
            // SockJS ends responses, and its client asks anew.
            None if self.session.is_sockjs() => {
                self.receiving = None;
                Vec::new()
            }
            None => self.fail("the response has ended"),
        }
    }

    /// The next message. Heartbeats are answered and passed over.
    pub async fn next(&mut self) -> Message {
        loop {
            match self.packet().await {
                Packet::Message(message) => return message,
                Packet::Heartbeat if self.answers_heartbeats => self.session.send(&[]).await,
                Packet::Heartbeat => {}
                other => self.fail(&format!("expected a message, not {other:?}")),
            }
        }
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

    /// The end by this code; returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        match self.packet().await {
            Packet::Close(actual, reason) if actual == code => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.expect_end().await;
                }
                reason
            }
            _ => self.fail(&format!("expected c[{code}]")),
        }
    }

    /// Proves that nothing is on its way to this client: a ping is answered and nothing stands in between.
    pub async fn expect_silence(&mut self) {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        self.expect_json(json!({ "event": "pusher:pong", "data": "{}" })).await;
    }

    /// Subscribes to a channel of any kind but presence.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send(requests::subscription(&self.socket_id, channel)).await;
        let success = json!({ "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}" });
        self.expect_json(success).await;
    }

    /// Becomes a member of a presence channel; returns the success message.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Message {
        let data = json!({ "user_id": user_id }).to_string();
        self.send(requests::membership(&self.socket_id, channel, &data)).await;
        self.expect_on(channel, "pusher_internal:subscription_succeeded").await
    }

    /// Signs in with this user data.
    pub async fn sign_in_as(&mut self, user_data: &str) {
        self.send(requests::sign_in(&self.socket_id, user_data)).await;
        let success = self.expect("pusher:signin_success").await;
        assert_eq!(success.data(), json!({ "user_data": user_data }));
    }
}
