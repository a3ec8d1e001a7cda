//! What most scenarios begin and end with: clients that are connected, subscribed, and quiet.

use std::ops::Range;

use serde_json::json;

use super::engine::{Happening, Listener, Nanos};
use super::findings::{Findings, Kind};
use super::{Bench, BenchError};
use crate::auth;

/// Handshakes under way at once. More would only wait in the server's accept queue.
pub(super) const OPENING: usize = 256;
/// Subscriptions sent before the answers are looked at.
const BURST: usize = 64;
/// A server that used less than this much of a processor is idle.
const IDLE_SHARE: u64 = 20;
/// How often that is looked at, and how often at most.
const SETTLING: (Nanos, u32) = (100_000_000, 30);

impl Bench<'_> {
    /// Opens these clients and waits until all are greeted.
    pub(super) fn open(
        &mut self,
        clients: Range<usize>,
        small_buffer: impl Fn(usize) -> bool,
        listener: &mut impl Listener,
    ) -> Result<(), BenchError> {
        let total = clients.len();
        let (mut waiting, mut greeted) = (clients, 0);
        let mut patience = self.patience();
        while greeted < total {
            while total - waiting.len() - greeted < OPENING
                && let Some(client) = waiting.next()
            {
                self.engine.open(client, small_buffer(client))?;
            }
            self.engine.turn(patience.deadline().min(self.meter.due()), listener)?;
            self.meter.sample_if_due(self.engine.now(), greeted as u64)?;
            while let Some(happening) = self.engine.next_happening() {
                match happening {
                    Happening::Greeted(_) => greeted += 1,
                    other => fatal(other, "before it was greeted")?,
                }
            }
            self.progress.show(|| format!("{greeted} of {total} clients connected"));
            if patience.is_over(self.engine.now(), greeted as u64) {
                return Err(patience.error(format!("the greetings of {total} clients; {greeted} came")));
            }
        }
        Ok(())
    }

    /// Subscribes each of these clients to the channel it is told, and waits until all are confirmed.
    pub(super) fn subscribe(
        &mut self,
        clients: impl ExactSizeIterator<Item = usize>,
        channel: impl Fn(usize) -> String,
        listener: &mut impl Listener,
    ) -> Result<(), BenchError> {
        let total = clients.len();
        let (mut waiting, mut confirmed) = (clients.peekable(), 0);
        let mut patience = self.patience();
        while confirmed < total {
            for client in waiting.by_ref().take(BURST) {
                let message = self.subscription(client, &channel(client), None);
                self.engine.subscribe(client, &message);
            }
            let until = if waiting.peek().is_some() { 0 } else { patience.deadline().min(self.meter.due()) };
            self.engine.turn(until, listener)?;
            self.meter.sample_if_due(self.engine.now(), confirmed as u64)?;
            while let Some(happening) = self.engine.next_happening() {
                match happening {
                    Happening::Subscribed(_) => confirmed += 1,
                    other => fatal(other, "before it was subscribed")?,
                }
            }
            self.progress.show(|| format!("{confirmed} of {total} clients subscribed"));
            if patience.is_over(self.engine.now(), confirmed as u64) {
                return Err(patience.error(format!("the confirmations of {total} subscriptions; {confirmed} came")));
            }
        }
        Ok(())
    }

    /// The message that subscribes a client, signed if the channel asks for it.
    pub(super) fn subscription(&self, client: usize, channel: &str, channel_data: Option<&str>) -> String {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            let target = &self.settings.targets[client % self.settings.targets.len()];
            let socket_id = self.engine.socket_id(client);
            let text = match channel_data {
                Some(channel_data) => format!("{socket_id}:{channel}:{channel_data}"),
                None => format!("{socket_id}:{channel}"),
            };
            data["auth"] = format!("{}:{}", target.key, auth::sign(target.secret.expose(), &text)).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    /// Waits until the measured processes have nothing left to do from before, if there are any to look at.
    pub(super) fn settle(&mut self, listener: &mut impl Listener) -> Result<(), BenchError> {
        let (pause, times) = SETTLING;
        let mut before = self.meter.usage()?;
        for _ in 0..times {
            let Some(last) = before else { break };
            let until = self.engine.now() + pause;
            while self.engine.now() < until {
                self.engine.turn(until, listener)?;
            }
            before = self.meter.usage()?;
            if before.is_some_and(|now| now.cpu_ns.saturating_sub(last.cpu_ns) < pause / IDLE_SHARE) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until each of these clients had a ping answered: whatever was sent to it before has come by then. Returns
    /// what was wrong: clients that were closed, got an error, or had no answer in time.
    pub(super) fn hear_out(
        &mut self,
        clients: impl Iterator<Item = usize>,
        listener: &mut impl Listener,
    ) -> Result<Findings, BenchError> {
        let mut found = Findings::default();
        let mut awaited = 0;
        for client in clients {
            if self.engine.is_open(client) {
                self.engine.send(client, r#"{"event":"pusher:ping","data":{}}"#);
                awaited += 1;
            }
        }
        let mut patience = self.patience();
        let mut heard = 0;
        while heard < awaited {
            self.engine.turn(patience.deadline(), listener)?;
            while let Some(happening) = self.engine.next_happening() {
                heard += u64::from(matches!(happening, Happening::Ponged | Happening::Closed { .. }));
                found.note(&happening);
            }
            if patience.is_over(self.engine.now(), heard) {
                let missing = awaited - heard;
                let example = || format!("{missing} of {awaited} clients had no answer to a pusher:ping after the run");
                found.add(Kind::Unexpected, missing, example);
                break;
            }
        }
        Ok(found)
    }
}

/// Whether something that happened while clients are made ready forbids to go on.
pub(super) fn fatal(happening: Happening, while_doing: &'static str) -> Result<(), BenchError> {
    match happening {
        Happening::Closed { client, how, left: false, .. } => Err(BenchError::Closed { client, while_doing, how }),
        Happening::Refused { client, text } => Err(BenchError::ClientRefused { client, text }),
        _ => Ok(()),
    }
}
