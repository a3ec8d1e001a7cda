//! The name of a connection.

use std::fmt;

/// The name of one connection, such as `131160.155806628` (§1.3). Every token a backend signs binds to it, so it is
/// unique across the cluster and cannot be guessed: 106 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    high: u64,
    low: u64,
}

/// The text is not two decimal numbers joined by a dot.
#[derive(Debug, thiserror::Error)]
#[error("Invalid socket_id: {0}")]
pub struct InvalidSocketId(String);

impl SocketId {
    /// A fresh id. Both halves stay below 2^53, so that no client loses digits.
    pub fn random() -> Self {
        let half = || rand::random_range(1..1u64 << 53);
        Self { high: half(), low: half() }
    }

    /// Reads an id that somebody else wrote down. A well-formed one that no server could have given out is `None`:
    /// naming it is not a mistake, but there is nobody behind it.
    ///
    /// # Errors
    /// The text does not match `^\d+\.\d+$`.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidSocketId> {
        let digits = |half: &str| !half.is_empty() && half.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('.') {
            Some((high, low)) if digits(high) && digits(low) => Ok(match (high.parse(), low.parse()) {
                (Ok(high), Ok(low)) => Some(Self { high, low }).filter(|id| id.to_string() == text),
                _ => None,
            }),
            _ => Err(InvalidSocketId(text.to_owned())),
        }
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself() {
        let id = SocketId::random();
        assert_eq!(SocketId::parse(&id.to_string()).unwrap(), Some(id));
    }

    #[test]
    fn only_two_numbers_and_a_dot_are_an_id() {
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "a.b", "1.2 ", "-1.2", "1.+2", "1.２"] {
            assert!(SocketId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_nobody_has_is_no_mistake() {
        for foreign in ["99999999999999999999999.1", "01.2", "1.02"] {
            assert_eq!(SocketId::parse(foreign).unwrap(), None, "{foreign}");
        }
    }
}
