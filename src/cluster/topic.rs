//! What nodes have in common, and what it is called at Redis.

use crate::protocol::{ChannelName, UserId};

/// A channel or a user of an app.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    /// The app, by its place in the configuration.
    pub(super) app: usize,
    /// Of that app.
    pub(super) subject: Subject,
}

/// A channel or a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A channel.
    Channel(ChannelName),
    /// A user.
    User(UserId),
}

impl Subject {
    /// Its name in keys, channels and scripts. An app's id has no colon in it.
    pub(super) fn key(&self, app: &str) -> String {
        match self {
            Self::Channel(name) => format!("c:{app}:{name}"),
            Self::User(user_id) => format!("u:{app}:{user_id}"),
        }
    }
}

/// The app in such a name, whether it is a channel's, and the channel's or user's own name.
pub(super) fn parse_key(key: &str) -> Option<(&str, bool, &str)> {
    let (kind, rest) = key.split_once(':')?;
    let (app, name) = rest.split_once(':')?;
    match kind {
        "c" => Some((app, true, name)),
        "u" => Some((app, false, name)),
        _ => None,
    }
}

/// Where a topic belongs: the same on every node. Everything about it is in one partition, and so in one hash slot.
pub(super) fn partition(key: &str, partitions: usize) -> usize {
    // FNV-1a: short, and not going to change with the standard library.
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits are the good ones; there are few partitions.
    (hash % partitions as u64) as usize
}

/// What all keys and channels of a partition begin with.
pub(super) fn prefix(cluster: &str, partition: usize) -> String {
    format!("fanfare:{{{cluster}:{partition}}}:")
}

/// The hash slot of a partition at a Redis Cluster: CRC-16/XMODEM of what stands in braces.
pub(super) fn slot(cluster: &str, partition: usize) -> u16 {
    let crc = format!("{cluster}:{partition}").bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back() {
        let subject = Subject::User(UserId::new("a:b c"));
        assert_eq!(parse_key(&subject.key("42")), Some(("42", false, "a:b c")));
        assert_eq!(parse_key("x:1:2"), None);
    }

    /// `CLUSTER KEYSLOT` of a Redis 7 said so.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot("fanfare", 0), 2_987);
        assert_eq!(slot("prod", 15), 14_221);
    }
}
