//! Why a run ended without a result.

use std::io;
use std::time::Duration;

/// A run that could not be carried out. What a finished run found wrong is not here but in [`super::Findings`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The flags contradict each other, or ask for what no server allows; the text says what to write instead.
    #[error("{0}")]
    Unfit(String),
    /// The operating system allows fewer sockets than the run needs.
    #[error(
        "{needed} open files are needed and {allowed} allowed; raise the hard limit (`ulimit -Hn`) or use fewer clients"
    )]
    OpenFiles {
        /// One per socket, and a few more.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The host has no address.
    #[error("cannot find the host of {url}: {cause}")]
    Resolve {
        /// Where the server was looked for.
        url: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// A TCP connection could not be made.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// The server's address.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The server answered an upgrade with something else than 101.
    #[error("the server answered the WebSocket upgrade with {0:?}")]
    NoWebSocket(String),
    /// The server closed a connection that had to stay.
    #[error("the server closed client {client} {while_doing}: {how}")]
    Closed {
        /// Its number.
        client: usize,
        /// What the client was there for.
        while_doing: &'static str,
        /// Close code and reason, or what happened to the connection.
        how: String,
    },
    /// The server sent an error event instead of what was asked for.
    #[error("the server refused client {client}: {text}")]
    ClientRefused {
        /// Its number.
        client: usize,
        /// The server's message.
        text: String,
    },
    /// A request to the HTTP API was not answered with 200.
    #[error("the server answered a trigger with {status}: {text}")]
    TriggerRefused {
        /// The HTTP status.
        status: u16,
        /// The body.
        text: String,
    },
    /// A connection of the backend broke, or what came was no HTTP.
    #[error("a backend connection failed: {0}")]
    Backend(String),
    /// Nothing happened any more.
    #[error("nothing happened for {} s while waiting for {what}", .timeout.as_secs_f64())]
    Timeout {
        /// `--timeout`.
        timeout: Duration,
        /// What did not come, and how much of it did.
        what: String,
    },
    /// There is no such process, or it ended.
    #[error("cannot read /proc/{pid}: {cause}")]
    Process {
        /// `--pid`.
        pid: u32,
        /// What the system said.
        cause: io::Error,
    },
    /// The operating system refused readiness events.
    #[error("cannot wait for sockets: {0}")]
    Poll(#[source] io::Error),
}
