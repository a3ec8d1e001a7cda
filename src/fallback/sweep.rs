//! The task that looks at all sessions: what is due, who is gone, and what the other nodes should know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use crate::session::time_to_leave;

use super::Fallbacks;
use super::http_session::{HttpSession, Verdict};

/// How often all sessions are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often the other nodes are told what sessions this one has, so that Redis need not keep what is over for long.
const REFRESH: Duration = Duration::from_secs(60);

/// Looks after all sessions until the server stops and they are gone.
pub async fn sweep(fallbacks: Arc<Fallbacks>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refreshed_at = Instant::now();
    loop {
        let stopping = fallbacks.shutdown.is_requested();
        if stopping && fallbacks.registry.len() == 0 {
            return;
        }
        let (sessions, gone) = look(&fallbacks, stopping);
        let refresh = refreshed_at.elapsed() >= REFRESH;
        if refresh {
            refreshed_at = Instant::now();
            fallbacks.registry.tidy();
            fallbacks.relay.tidy();
        }
        if let Some(redis) = fallbacks.node.cluster().redis() {
            if !gone.is_empty() {
                let gone: Vec<&str> = gone.iter().map(|session| session.id.as_str()).collect();
                redis.release_sessions(&gone).await;
            }
            if refresh {
                let ids: Vec<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
                redis.keep_sessions(&ids).await;
            }
        }
        select! {
            _ = ticks.tick() => {}
            () = fallbacks.shutdown.requested(), if !stopping => {}
        }
    }
}

/// Those that stay, and those that are gone.
fn look(fallbacks: &Fallbacks, stopping: bool) -> (Vec<Arc<HttpSession>>, Vec<Arc<HttpSession>>) {
    let now = Instant::now();
    let leave = || time_to_leave(&fallbacks.node, fallbacks.limits.drain);
    let (gone, there): (Vec<_>, Vec<_>) =
        fallbacks.registry.all().into_iter().partition(|session| {
            session.look(now, stopping.then_some(&leave as &dyn Fn() -> Duration)) == Verdict::Remove
        });
    gone.iter().for_each(|session| fallbacks.registry.remove(&session.id));
    (there, gone)
}
