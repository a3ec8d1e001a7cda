//! Which node has which session of an HTTP transport. Redis remembers it for a while: whoever has one says so again before
//! that is over. What is lost at Redis is said again, too, and what a dead node had expires.

use redis::{Cmd, Pipeline, pipe};
use tracing::info;

use crate::untrusted::Untrusted;

use super::answer::{Reader, nonsense};
use super::link::{Line, Link};
use super::scripts::Script;
use super::topic::partition;
use super::{RedisCluster, Unavailable};

/// How long it is remembered who has a session, in seconds: a few times as long as until it is said again.
const MEMORY: u64 = 300;

/// Sessions that are told in one go.
const BATCH: usize = 500;

impl RedisCluster {
    /// The address of the other node that has a session, which is registered and not `gone`: an address that has it no more.
    /// If it `begins`, and none has it, it is this node's from now on.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn session_owner(
        &self,
        id: &str,
        begins: bool,
        gone: Option<&str>,
    ) -> Result<Option<String>, Unavailable> {
        let link = &self.links[partition(id, self.links.len())];
        let wish = if begins { "claim" } else { "ask" };
        let ask = |line: &Line| {
            let mut pipeline = pipe();
            pipeline.add_command(self.session(link, line, id, wish, gone.unwrap_or_default()));
            pipeline
        };
        let answer = link.ask(ask).await.map_err(Unavailable)?.pop().ok_or_else(|| Unavailable(nonsense()))?;
        let mut answer = Reader::open(answer).map_err(Unavailable)?;
        let (owner, stranger) = answer.text().zip(answer.text()).ok_or_else(|| Unavailable(nonsense()))?;
        if !stranger.is_empty() {
            // A node that died some time ago, or somebody who writes to Redis.
            info!(session = %Untrusted(id), address = %Untrusted(&stranger), "the owner of a session is no registered node");
        }
        Ok(Some(owner).filter(|owner| !owner.is_empty() && *owner != self.hub.address))
    }

    /// These sessions are still this node's. If Redis cannot be told now, it is told again before it forgets.
    pub async fn keep_sessions(&self, ids: &[&str]) {
        self.tell_all(ids, "claim").await;
    }

    /// These sessions are over. If Redis cannot be told, it forgets them by itself.
    pub async fn release_sessions(&self, ids: &[&str]) {
        self.tell_all(ids, "release").await;
    }

    async fn tell_all(&self, ids: &[&str], wish: &str) {
        for (index, link) in self.links.iter().enumerate() {
            let here: Vec<&str> = ids.iter().copied().filter(|id| partition(id, self.links.len()) == index).collect();
            for batch in here.chunks(BATCH) {
                let commands = |line: &Line| {
                    let mut pipeline = Pipeline::new();
                    for id in batch {
                        pipeline.add_command(self.session(link, line, id, wish, ""));
                    }
                    pipeline
                };
                if link.obstacle().is_none() {
                    // Nothing depends on it.
                    let _ = link.ask(commands).await;
                }
            }
        }
    }

    fn session(&self, link: &Link, line: &Line, id: &str, wish: &str, gone: &str) -> Cmd {
        let mut call = link.script(line, Script::Session);
        call.arg(id).arg(&self.hub.address).arg(wish).arg(gone).arg(MEMORY);
        call
    }
}
