//! Events without end, and what became of them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::node::try_send;
use super::{PATIENCE, Recorder};
use crate::it::{APP_ID, Call};

/// Triggers one event after the other at one node, each with another text, until it is told to stop.
pub struct Traffic {
    stop: watch::Sender<bool>,
    answered: watch::Receiver<usize>,
    running: JoinHandle<Sent>,
}

/// What was triggered, in order, by how it was answered.
#[derive(Debug, Default)]
pub struct Sent {
    /// With 200.
    pub taken: Vec<String>,
    /// With 503, with `Retry-After`.
    pub refused: Vec<String>,
    /// Not at all: nobody knows.
    pub unanswered: Vec<String>,
}

impl Traffic {
    /// Begins with the texts `NAME-0`, `NAME-1` and so on, one in this time.
    pub fn start(name: &str, addr: SocketAddr, channel: &str, pace: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, answered) = watch::channel(0);
        let running = tokio::spawn(send(name.to_owned(), addr, channel.to_owned(), pace, stopped, count));
        Self { stop, answered, running }
    }

    /// Waits until so many more events have been answered.
    pub async fn flows(&self, more: usize) {
        let mut answered = self.answered.clone();
        let enough = *answered.borrow() + more;
        let waited = tokio::time::timeout(PATIENCE, answered.wait_for(|count| *count >= enough)).await;
        assert!(matches!(waited, Ok(Ok(_))), "not {more} further answers within {PATIENCE:?}");
    }

    /// Ends it after the answer to the event that is on its way.
    pub async fn stop(self) -> Sent {
        self.stop.send_replace(true);
        self.running.await.unwrap()
    }
}

async fn send(
    name: String,
    addr: SocketAddr,
    channel: String,
    pace: Duration,
    stopped: watch::Receiver<bool>,
    answered: watch::Sender<usize>,
) -> Sent {
    let mut sent = Sent::default();
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        if *stopped.borrow() {
            break;
        }
        let text = format!("{name}-{number}");
        let body = json!({ "name": "tick", "channel": channel, "data": text });
        let call = Call::post(&format!("/apps/{APP_ID}/events"), &body);
        match try_send(addr, &call.bytes(), PATIENCE).await {
            Some(response) if response.status == 200 => sent.taken.push(text),
            Some(response) if response.status == 503 => {
                assert!(response.header("retry-after").is_some(), "no Retry-After: {}", response.head);
                sent.refused.push(text);
            }
            Some(response) => panic!("{text} is answered with {}\n\n{}", response.head, response.body),
            None => sent.unanswered.push(text),
        }
        answered.send_modify(|count| *count += 1);
    }
    sent
}

impl Sent {
    /// Waits until this client has heard everything that was taken, once and in order; what was not taken may have come
    /// as well, but not twice.
    pub async fn reaches(&self, client: &Recorder, channel: &str) {
        assert!(!self.taken.is_empty(), "nothing was taken: {self:?}");
        let last = self.taken.last().unwrap();
        let is_last = |text: &str| text == last;
        let came = |messages: &[super::Message]| {
            messages.iter().rev().any(|message| message.event() == "tick" && is_last(message.text()))
        };
        client.expect(&format!("the last event {last:?}"), PATIENCE, came).await;
        // Nothing of what was replayed may come after its time: a pong proves that nothing is left.
        client.settle().await;
        let heard = self.own(client.data(channel));
        let mut seen = HashSet::new();
        if let Some(twice) = heard.iter().find(|text| !seen.insert(text.as_str())) {
            client.fail(&format!("{twice:?} came twice"));
        }
        let taken: HashSet<_> = self.taken.iter().collect();
        let heard: Vec<_> = heard.iter().filter(|text| taken.contains(text)).collect();
        let wrong = self.taken.iter().zip(&heard).find(|(sent, heard)| sent != *heard);
        if heard.len() != self.taken.len() || wrong.is_some() {
            let (heard, taken) = (heard.len(), self.taken.len());
            client.fail(&format!("{heard} of {taken} events came; first (expected, heard) that differ: {wrong:?}"));
        }
    }

    /// Of all texts, those of this traffic.
    fn own(&self, texts: Vec<String>) -> Vec<String> {
        let all: HashSet<_> = [&self.taken, &self.refused, &self.unanswered].into_iter().flatten().collect();
        texts.into_iter().filter(|text| all.contains(text)).collect()
    }

    /// How many of the events that were taken this client has not heard.
    pub fn missing(&self, client: &Recorder, channel: &str) -> usize {
        let heard: HashSet<_> = client.data(channel).into_iter().collect();
        self.taken.iter().filter(|text| !heard.contains(*text)).count()
    }
}
