//! A walk over the occupied channels of an app, slice by slice, between which everybody else has a turn.

use std::sync::Arc;
use std::vec;

use crate::protocol::ChannelName;

use super::channel::Channel;
use super::registry::SHARDS;
use super::{Channels, Occupancy};

/// Channels that one slice looks at, about: some tens of microseconds.
const SLICE: usize = 256;

/// What such a walk has still to do. It shows every channel that is occupied all the while, and no channel twice.
#[derive(Debug)]
pub struct Walk {
    channels: Arc<Channels>,
    prefix: String,
    /// The next shard.
    shard: usize,
    /// Of the one before it.
    rest: vec::IntoIter<(ChannelName, Arc<Channel>)>,
}

impl Walk {
    /// Begins with the channels whose name begins with `prefix`.
    pub fn new(channels: Arc<Channels>, prefix: &str) -> Self {
        Self { channels, prefix: prefix.to_owned(), shard: 0, rest: Vec::new().into_iter() }
    }

    /// The next slice, which may be empty; `None` at the end.
    pub fn slice(&mut self) -> Option<Vec<(ChannelName, Occupancy)>> {
        if self.shard == SHARDS && self.rest.len() == 0 {
            return None;
        }
        let (mut found, mut seen) = (Vec::new(), 0);
        while seen < SLICE {
            if let Some((name, channel)) = self.rest.next() {
                seen += 1;
                let occupancy = channel.lock().occupancy();
                if occupancy.subscriptions > 0 {
                    found.push((name, occupancy));
                }
            } else if self.shard < SHARDS {
                // Copied: a shard must not stay locked while a channel's fan-out is waited for.
                self.rest = self.channels.registry.copy_shard(self.shard, &self.prefix).into_iter();
                self.shard += 1;
                seen += self.rest.len() / 16;
            } else {
                break;
            }
        }
        Some(found)
    }
}
