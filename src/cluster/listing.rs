//! All occupied channels of an app, as Redis knows them, page by page.

use std::collections::HashSet;
use std::sync::Arc;

use redis::pipe;

use crate::channels::Occupancy;
use crate::protocol::ChannelName;

use super::link::{Line, Link};
use super::{Unavailable, answer, occupancy, topic};

/// Channel names that are read in one go.
const PAGE: usize = 1000;

/// Names in one half of [`Recent`].
const RECENT: usize = 4 * PAGE;

/// A listing that has begun.
pub struct Pages {
    /// Partitions that are still to be read, the present one last.
    links: Vec<Arc<Link>>,
    app: String,
    pattern: String,
    cursor: String,
    /// What the keys of the present partition began with at the first page: cursors mean nothing to another server.
    server: Option<(String, String)>,
    recent: Recent,
}

/// Names of the last few pages. A scan shows what is there all the while, and may show it twice when the set shrinks
/// meanwhile: then it reads a bucket again of which it has read a part just before. So it is enough to remember a few pages,
/// however many channels there are.
#[derive(Default)]
struct Recent {
    newer: HashSet<ChannelName>,
    older: HashSet<ChannelName>,
}

impl Recent {
    /// True if the name is new.
    fn insert(&mut self, name: &ChannelName) -> bool {
        if self.older.contains(name) || !self.newer.insert(name.clone()) {
            return false;
        }
        if self.newer.len() >= RECENT {
            self.older = std::mem::take(&mut self.newer);
        }
        true
    }
}

impl Pages {
    /// Begins with the channels of an app whose name begins with `prefix`.
    pub(super) fn new(links: &[Arc<Link>], app: &str, prefix: &str) -> Self {
        // A channel's name has nothing in it that patterns give a meaning to, but who asks is free to write anything.
        let escaped: String =
            prefix.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect();
        Self {
            links: links.iter().rev().cloned().collect(),
            app: app.to_owned(),
            pattern: format!("c:{app}:{escaped}*"),
            cursor: "0".to_owned(),
            server: None,
            recent: Recent::default(),
        }
    }

    /// The next page, which may be empty; `None` at the end.
    ///
    /// # Errors
    /// Redis cannot be asked in time, or it is another one meanwhile.
    pub async fn next(&mut self) -> Result<Option<Vec<(ChannelName, Occupancy)>>, Unavailable> {
        let Some(link) = self.links.last() else { return Ok(None) };
        let mut server = None;
        let scan = |line: &Line| {
            server = Some((line.run.clone(), line.keys.clone()));
            let (key, pattern) = (format!("{}a:{}", line.keys, self.app), &self.pattern);
            pipe().cmd("SSCAN").arg(key).arg(&self.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE).clone()
        };
        let mut page = link.ask(scan).await.map_err(Unavailable)?;
        if self.server.is_some() && self.server != server {
            return Err(Unavailable("Redis has changed while channels were listed".to_owned()));
        }
        self.server = server;
        let page = page.pop().map(redis::from_redis_value::<(String, Vec<String>)>);
        let Some(Ok((next, keys))) = page else { return Err(Unavailable(answer::nonsense())) };
        let ask = |line: &Line| {
            let mut questions = pipe();
            for key in &keys {
                questions.cmd("HGET").arg(format!("{}t:{key}", line.keys)).arg("total");
                questions.cmd("HLEN").arg(format!("{}m:{key}", line.keys));
            }
            questions
        };
        let answers = link.ask(ask).await.map_err(Unavailable)?;
        let mut found = Vec::with_capacity(keys.len());
        for (key, answers) in keys.iter().zip(answers.chunks(2)) {
            let name = topic::parse_key(key).and_then(|(_, _, name)| ChannelName::parse(name, usize::MAX).ok());
            let occupancy = occupancy(answers);
            if let Some(name) = name.filter(|name| occupancy.subscriptions > 0 && self.recent.insert(name)) {
                found.push((name, occupancy));
            }
        }
        if next == "0" {
            self.links.pop();
            self.server = None;
        }
        self.cursor = next;
        Ok(Some(found))
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("pattern", &self.pattern).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_again_soon_are_left_out_and_few_are_remembered() {
        let name = |number: usize| ChannelName::parse(&format!("room-{number}"), 200).unwrap();
        let mut recent = Recent::default();
        for number in 0..10 * RECENT {
            assert!(recent.insert(&name(number)));
            let again = number.saturating_sub(RECENT / 2);
            assert!(!recent.insert(&name(again)), "{again} after {number}");
            assert!(recent.newer.len() + recent.older.len() <= 2 * RECENT);
        }
    }
}
