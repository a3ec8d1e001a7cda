//! The channels of an app by name: a hash map in shards, each with a lock of its own.
//!
//! There are many small shards rather than a few for each core, so that whatever holds one of the locks for its whole
//! length, a walk's copy or the growth of a table, is over in a fraction of a millisecond with a million channels.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;

use crate::protocol::ChannelName;

use super::channel::Channel;

/// Shards of one app: 16 KiB of memory if all of them are empty.
pub(super) const SHARDS: usize = 256;

/// The table of a shard with room for less than this is never made smaller.
const MIN_CAPACITY: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Registry {
    shards: Box<[Shard]>,
    hasher: RandomState,
}

/// A cache line of its own, so that the locks of different channels do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<Table>);

type Table = HashTable<(ChannelName, Arc<Channel>)>;

impl Default for Registry {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self { shards, hasher: RandomState::default() }
    }
}

impl Registry {
    /// The channel of this name, and the name as the others share it.
    pub(super) fn get_entry(&self, name: &str) -> Option<(ChannelName, Arc<Channel>)> {
        let hash = self.hash(name);
        let table = self.shard(hash).read();
        table.find(hash, |(other, _)| other.as_str() == name).cloned()
    }

    /// The channel of this name.
    pub(super) fn get(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        let hash = self.hash(name.as_str());
        let table = self.shard(hash).read();
        table.find(hash, |(other, _)| other == name).map(|(_, channel)| Arc::clone(channel))
    }

    /// The channel of this name, which comes into being if it must.
    pub(super) fn get_or_create(&self, name: &ChannelName) -> Arc<Channel> {
        // Most channels exist, and need no exclusive access.
        self.get(name).unwrap_or_else(|| {
            let hash = self.hash(name.as_str());
            let mut table = self.shard(hash).write();
            let entry = table.entry(hash, |(other, _)| other == name, |(other, _)| self.hash(other.as_str()));
            match entry {
                Entry::Occupied(entry) => Arc::clone(&entry.get().1),
                Entry::Vacant(entry) => {
                    let channel = Arc::new(Channel::new());
                    entry.insert((name.clone(), Arc::clone(&channel)));
                    channel
                }
            }
        })
    }

    /// Removes the channel of this name if it may go, which is asked while nobody else can get at it. True if it did.
    pub(super) fn remove_if(&self, name: &ChannelName, may_go: impl FnOnce(&Channel) -> bool) -> bool {
        let hash = self.hash(name.as_str());
        let mut table = self.shard(hash).write();
        let Ok(entry) = table.find_entry(hash, |(other, _)| other == name) else { return false };
        if !may_go(&entry.get().1) {
            return false;
        }
        let removed = entry.remove().0;
        // What a flood of channels has taken is given back when they are gone.
        if table.capacity() > MIN_CAPACITY && table.len() < table.capacity() / 8 {
            let capacity = 2 * table.len();
            table.shrink_to(capacity, |(other, _)| self.hash(other.as_str()));
        }
        drop(table);
        drop(removed);
        true
    }

    /// A copy of one shard, as far as the names begin with `prefix`. Every channel is in the same shard all its life.
    pub(super) fn copy_shard(&self, index: usize, prefix: &str) -> Vec<(ChannelName, Arc<Channel>)> {
        let table = self.shards[index].0.read();
        table.iter().filter(|(name, _)| name.as_str().starts_with(prefix)).cloned().collect()
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<ChannelName> {
        let mut names = Vec::new();
        for Shard(table) in &self.shards {
            names.extend(table.read().iter().map(|(name, _)| name.clone()));
        }
        names
    }

    fn hash(&self, name: &str) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(name)
    }

    fn shard(&self, hash: u64) -> &RwLock<Table> {
        // The table takes the lowest bits and the seven highest ones.
        &self.shards[(hash >> 40) as usize % SHARDS].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ChannelName {
        ChannelName::parse(&format!("room-{number}"), 200).unwrap()
    }

    #[test]
    fn what_comes_in_is_found_until_it_goes_and_the_memory_goes_with_it() {
        const CHANNELS: usize = 50_000;
        let registry = Registry::default();
        for number in 0..CHANNELS {
            let channel = registry.get_or_create(&name(number));
            assert!(Arc::ptr_eq(&channel, &registry.get_or_create(&name(number))));
        }
        let walked: usize = (0..SHARDS).map(|shard| registry.copy_shard(shard, "room-").len()).sum();
        assert_eq!((walked, registry.names().len()), (CHANNELS, CHANNELS));
        let largest = (0..SHARDS).map(|shard| registry.copy_shard(shard, "").len()).max().unwrap();
        assert!(largest < 2 * CHANNELS / SHARDS, "{largest} channels in one shard");
        assert!(registry.get_entry("room-7").is_some_and(|(found, _)| found == name(7)));
        assert!(!registry.remove_if(&name(7), |_| false) && registry.get(&name(7)).is_some());
        for number in 0..CHANNELS {
            assert!(registry.remove_if(&name(number), |_| true) && registry.get(&name(number)).is_none());
        }
        assert!(!registry.remove_if(&name(7), |_| true) && registry.get_entry("room-7").is_none());
        let capacity: usize = registry.shards.iter().map(|Shard(table)| table.read().capacity()).sum();
        assert!(capacity <= MIN_CAPACITY * 2 * SHARDS, "room for {capacity} is kept");
    }
}
