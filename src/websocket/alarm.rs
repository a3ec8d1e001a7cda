//! What a connection has to do at a certain time besides what its session asks for. Nearly always that is nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::config::ServerConfig;
use crate::outbox::Outbox;
use crate::protocol::CloseReason;

use super::inbound::{Inbound, Silence};

/// How long a client may take. Shared by all connections, each of which has it for life.
#[derive(Debug)]
pub struct TimeLimits {
    /// For a message, from its first byte to its last: `server.request_timeout`.
    pub message: Duration,
    /// To accept some of what waits for it: `server.write_timeout`.
    pub write: Duration,
    /// To go when the server stops: `server.drain_period`.
    pub drain: Duration,
}

impl TimeLimits {
    /// The limits of a server.
    pub fn of(config: &ServerConfig) -> Arc<Self> {
        let ServerConfig { request_timeout, write_timeout, drain_period, .. } = *config;
        Arc::new(Self { message: request_timeout, write: write_timeout, drain: drain_period })
    }
}

/// A timer that takes no memory while it is not needed.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Passes on what was heard of a client. While that is nothing, watches over what it has to do in time, and closes its
    /// outbox if it does not; `None` asks to poll again.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        inbound: &Inbound,
        outbox: &Outbox,
        limits: &TimeLimits,
        silence: Poll<Silence>,
    ) -> Poll<Option<Silence>> {
        if let Poll::Ready(silence) = silence {
            return Poll::Ready(Some(silence));
        }
        let stalled = outbox.stalled_since().map(|since| since + limits.write);
        let unfinished = inbound.unfinished_since().map(|since| since + limits.message);
        let Some(at) = [stalled, unfinished, inbound.paused_until()].into_iter().flatten().min() else {
            self.0 = None;
            return Poll::Pending;
        };
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        if timer.deadline() != at.into() {
            timer.as_mut().reset(at.into());
        }
        std::task::ready!(timer.as_mut().poll(cx));
        self.0 = None;
        let now = Instant::now();
        if stalled.is_some_and(|at| at <= now) {
            outbox.give_up();
        } else if unfinished.is_some_and(|at| at <= now) {
            outbox.close(CloseReason::UnfinishedMessage);
        }
        Poll::Ready(None)
    }
}
