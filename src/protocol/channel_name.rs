//! Channel names and what their prefixes mean (§2.2).

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The prefix of the invisible channels that carry events to one signed-in user (§2.9).
pub const SERVER_TO_USER: &str = "#server-to-user-";

/// A valid channel name. Cheap to clone; what its prefix means is known from here on.
#[derive(Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: Kind,
    cache: bool,
}

/// What a subscriber has to show, and what it gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anybody may subscribe.
    Public,
    /// Needs a signature.
    Private,
    /// Needs a signature; the data is encrypted end to end, which the server neither knows nor minds.
    PrivateEncrypted,
    /// Needs a signature, and its subscribers see each other.
    Presence,
}

/// The text is empty, too long, or holds a character outside `[A-Za-z0-9_\-=@,.;]`.
#[derive(Debug, thiserror::Error)]
#[error("Invalid channel name: {0}")]
pub struct InvalidChannelName(String);

/// Characters of a refused name that an error repeats.
const SHOWN: usize = 200;

/// Prefixes, longest match first. Case-sensitive, dash included: `privateer` is a public channel.
const PREFIXES: [(&str, Kind, bool); 7] = [
    ("private-encrypted-cache-", Kind::PrivateEncrypted, true),
    ("private-encrypted-", Kind::PrivateEncrypted, false),
    ("private-cache-", Kind::Private, true),
    ("private-", Kind::Private, false),
    ("presence-cache-", Kind::Presence, true),
    ("presence-", Kind::Presence, false),
    ("cache-", Kind::Public, true),
];

impl ChannelName {
    /// Understands a name of at most `max_length` characters.
    ///
    /// # Errors
    /// The name breaks §2.2. Names with `#` are never channels; see [`SERVER_TO_USER`].
    pub fn parse(text: &str, max_length: usize) -> Result<Self, InvalidChannelName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-=@,.;".contains(&b);
        if text.is_empty() || text.len() > max_length || !text.bytes().all(allowed) {
            return Err(InvalidChannelName(text.chars().take(SHOWN).collect()));
        }
        let (kind, cache) = PREFIXES
            .iter()
            .find(|(prefix, ..)| text.starts_with(prefix))
            .map_or((Kind::Public, false), |&(_, kind, cache)| (kind, cache));
        Ok(Self { text: text.into(), kind, cache })
    }

    /// The name as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the prefix says.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether subscribers see each other.
    pub fn is_presence(&self) -> bool {
        self.kind == Kind::Presence
    }

    /// Whether subscribing needs a signature.
    pub fn needs_auth(&self) -> bool {
        self.kind != Kind::Public
    }

    /// Whether the channel remembers its last event (§2.7).
    pub fn is_cache(&self) -> bool {
        self.cache
    }
}

// The prefix follows from the text, so the text alone decides equality, and maps can be asked by `&str`.
impl PartialEq for ChannelName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelName {}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_decides_the_kind() {
        let table = [
            ("room", Kind::Public, false),
            ("privateer", Kind::Public, false),
            ("private", Kind::Public, false),
            ("Private-room", Kind::Public, false),
            ("presence", Kind::Public, false),
            ("presences-room", Kind::Public, false),
            ("nocache-room", Kind::Public, false),
            ("cached", Kind::Public, false),
            ("cache-room", Kind::Public, true),
            ("private-room", Kind::Private, false),
            ("private-", Kind::Private, false),
            ("private-encrypted", Kind::Private, false),
            ("private-cache-room", Kind::Private, true),
            ("private-encrypted-room", Kind::PrivateEncrypted, false),
            ("private-encrypted-cache-room", Kind::PrivateEncrypted, true),
            ("presence-room", Kind::Presence, false),
            ("presence-cache-room", Kind::Presence, true),
        ];
        for (text, kind, cache) in table {
            let name = ChannelName::parse(text, 164).unwrap();
            assert_eq!((name.kind(), name.is_cache()), (kind, cache), "{text}");
            assert_eq!(name.needs_auth(), kind != Kind::Public, "{text}");
        }
    }

    #[test]
    fn the_alphabet_and_the_length_are_pushers() {
        assert!(ChannelName::parse("aZ09_-=@,.;", 164).is_ok());
        assert!(ChannelName::parse(&"a".repeat(164), 164).is_ok());
        let too_long = "a".repeat(165);
        for bad in ["", "a b", "a/b", "a:b", "#a", "#server-to-user-1", "é", "a\n", "a*", too_long.as_str()] {
            assert!(ChannelName::parse(bad, 164).is_err(), "{bad}");
        }
    }
}
