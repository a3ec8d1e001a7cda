//! Which node has which session of an HTTP transport. Redis remembers it for a while: whoever has one says so again before
//! that is over. What is lost at Redis is said again, too, and what a dead node had expires.

use redis::{Pipeline, Value, pipe};

use super::link::Line;
use super::topic::partition;
use super::{RedisCluster, Unavailable};

/// How long it is remembered who has a session, in seconds: a few times as long as until it is said again.
const MEMORY: u64 = 300;

impl RedisCluster {
    /// The address of the other node that has a session. If none has, it is this node's from now on.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn claim_session(&self, id: &str) -> Result<Option<String>, Unavailable> {
        self.ask_for_owner(id, true).await
    }

    /// The address of the other node that has a session.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn session_owner(&self, id: &str) -> Result<Option<String>, Unavailable> {
        self.ask_for_owner(id, false).await
    }

    async fn ask_for_owner(&self, id: &str, claim: bool) -> Result<Option<String>, Unavailable> {
        let address = &self.hub.address;
        let ask = |line: &Line| {
            let (mut questions, key) = (pipe(), key(line, id));
            if claim {
                questions.cmd("SET").arg(&key).arg(address).arg("NX").arg("EX").arg(MEMORY).ignore();
            }
            questions.cmd("GET").arg(&key);
            questions
        };
        let link = &self.links[partition(id, self.links.len())];
        let mut answers = link.ask(ask).await.map_err(Unavailable)?;
        let owner = match answers.pop() {
            Some(Value::BulkString(owner)) => String::from_utf8(owner).ok(),
            _ => None,
        };
        Ok(owner.filter(|owner| owner != address))
    }

    /// These sessions are this node's. If Redis cannot be told now, it is told again before anybody forgets.
    pub async fn take_sessions(&self, ids: &[&str]) {
        self.tell_all(ids, |line, id, pipeline| {
            pipeline.cmd("SET").arg(key(line, id)).arg(&self.hub.address).arg("EX").arg(MEMORY);
        })
        .await;
    }

    /// These sessions are over. If Redis cannot be told, it forgets them by itself.
    pub async fn release_sessions(&self, ids: &[&str]) {
        self.tell_all(ids, |line, id, pipeline| {
            // Another node may have taken it this very moment; it says so again before anybody misses it.
            pipeline.cmd("DEL").arg(key(line, id));
        })
        .await;
    }

    async fn tell_all(&self, ids: &[&str], tell: impl Fn(&Line, &str, &mut Pipeline)) {
        for (index, link) in self.links.iter().enumerate() {
            let here: Vec<&str> = ids.iter().copied().filter(|id| partition(id, self.links.len()) == index).collect();
            for batch in here.chunks(1000) {
                let commands = |line: &Line| {
                    let mut pipeline = pipe();
                    batch.iter().for_each(|id| tell(line, id, &mut pipeline));
                    pipeline
                };
                if link.obstacle().is_none() {
                    let _ = link.ask(commands).await;
                }
            }
        }
    }
}

fn key(line: &Line, id: &str) -> String {
    format!("{}s:{id}", line.keys)
}
