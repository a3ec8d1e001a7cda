//! Reads what the scripts answer.

use std::vec;

use bytes::Bytes;
use redis::Value;

use crate::channels::{Answer, Everything, Position};
use crate::protocol::{Member, UserId};

use super::message;
use super::servers::Reason;

/// The values of an answer, one after the other.
pub(super) struct Reader(vec::IntoIter<Value>);

impl Reader {
    /// Opens the answer of a script.
    ///
    /// # Errors
    /// The script has found that this node is not registered any more.
    pub(super) fn open(answer: Value) -> Result<Self, Reason> {
        let mut reader = Self::list_of(answer).ok_or_else(nonsense)?;
        match reader.text().as_deref() {
            Some("ok") => Ok(reader),
            Some("lost") => Err("the lease of this node was over, or Redis has lost its data".to_owned()),
            _ => Err(nonsense()),
        }
    }

    fn list_of(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) | Value::Set(values) => Some(Self(values.into_iter())),
            _ => None,
        }
    }

    /// The next value as bytes.
    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            Value::Int(number) => Some(number.to_string().into_bytes()),
            _ => None,
        }
    }

    /// The next value as text.
    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// The next value as a number.
    pub(super) fn number(&mut self) -> Option<u64> {
        match self.0.next()? {
            Value::Int(number) => u64::try_from(number).ok(),
            Value::BulkString(bytes) => std::str::from_utf8(&bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The next value as a list.
    pub(super) fn list(&mut self) -> Option<Self> {
        Self::list_of(self.0.next()?)
    }

    /// The rest as texts.
    pub(super) fn texts(mut self) -> Vec<String> {
        std::iter::from_fn(|| self.text()).collect()
    }

    /// The rest as bytes.
    fn all_bytes(mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.bytes()).collect()
    }
}

/// The answer to a contribution.
///
/// # Errors
/// This node is not registered any more, or the answer makes no sense.
pub(super) fn contribution(answer: Value) -> Result<Answer, Reason> {
    let mut reader = Reader::open(answer)?;
    parse(&mut reader).ok_or_else(nonsense)
}

fn parse(reader: &mut Reader) -> Option<Answer> {
    let position = Position { stream: reader.number()?, seq: reader.number()?, ms: reader.number()? };
    let connections = reader.number()? as usize;
    let refused = reader.list()?.texts().iter().map(|id| UserId::new(id)).collect();
    let everything = reader.list().map(|mut everything| parse_everything(&mut everything));
    let everything = match everything {
        Some(everything) => Some(everything?),
        None => None,
    };
    Some(Answer { position, connections, refused, everything })
}

fn parse_everything(reader: &mut Reader) -> Option<Everything> {
    let gap = reader.number()? == 1;
    let members = reader.list()?.texts();
    let (members, _) = members.as_chunks::<2>();
    let member = |[id, info]: &[String; 2]| Member { user_id: UserId::new(id), user_info: info.as_str().into() };
    let members = members.iter().map(member).collect();
    let online = reader.number()? == 1;
    let cached = Bytes::from(reader.bytes()?);
    // Below zero: there is none.
    let left = reader.0.next();
    let cached = match left {
        Some(Value::Int(left)) if left > 0 && !cached.is_empty() => Some((cached, left as u64)),
        _ => None,
    };
    let missed = reader.list()?.all_bytes();
    let missed = missed.into_iter().filter_map(|body| message::parse_body(body, 0)).collect();
    Some(Everything { gap, members, online, cached, missed })
}

/// An answer that no script gives.
pub(super) fn nonsense() -> Reason {
    "Redis gave an answer that makes no sense; are all nodes of the same version?".to_owned()
}
