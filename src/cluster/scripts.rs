//! The scripts that decide at Redis. See `scripts/common.lua` for what they keep there.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};

use super::servers::{Reason, query};

macro_rules! sources {
    ($($name:literal),*) => {
        [$(concat!(include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $name, ".lua")))),*]
    };
}

/// In the order of [`Script`].
const SOURCES: [&str; 7] = sources!["beat", "sync", "publish", "duty", "drop", "seat", "session"];

/// A script.
#[derive(Debug, Clone, Copy)]
pub(super) enum Script {
    Beat,
    Sync,
    Publish,
    Duty,
    Drop,
    Seat,
    Session,
}

/// The scripts as one server knows them.
#[derive(Debug, Clone)]
pub(super) struct Scripts([String; 7]);

impl Scripts {
    /// Hands them to a server.
    ///
    /// # Errors
    /// The server does not take them.
    pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<Self, Reason> {
        let mut hashes: [String; 7] = Default::default();
        for (source, hash) in SOURCES.iter().zip(&mut hashes) {
            let Value::BulkString(text) = query(connection, cmd("SCRIPT").arg("LOAD").arg(source)).await? else {
                return Err(super::answer::nonsense());
            };
            *hash = String::from_utf8_lossy(&text).into_owned();
        }
        Ok(Self(hashes))
    }

    /// A call, to which arguments have to be added.
    pub(super) fn call(&self, script: Script, prefix: &str) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.0[script as usize]).arg(1).arg(prefix);
        call
    }
}
