//! Why listening ended, and whether a client comes back after that.

use std::time::Duration;

use super::super::api_client::CallError;
use super::connection::{GREETING_TIMEOUT, PONG_TIMEOUT};

/// The end of one connection, or of the whole command.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ListenError {
    /// No connection came about.
    #[error(transparent)]
    Unreachable(#[from] CallError),
    /// Something answered, but not with a WebSocket.
    #[error("{url} answered {status} instead of opening a WebSocket; is --url right, path prefix included?")]
    NoWebSocket {
        /// Where it was looked for.
        url: String,
        /// The HTTP status.
        status: String,
    },
    /// The server accepted the connection and then said nothing, or something else.
    #[error("no greeting within {} s; does {url} speak the Pusher protocol?", GREETING_TIMEOUT.as_secs())]
    NoGreeting {
        /// Where it was waited for.
        url: String,
    },
    /// The server said goodbye.
    #[error("the server closed the connection: {code} {reason}{}", hint(*.code))]
    Closed {
        /// The close code; 1005 if there was none.
        code: u16,
        /// The reason, as text.
        reason: String,
    },
    /// The connection ended without a goodbye.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server is gone, and nobody told us.
    #[error("the server did not answer a ping within {} s", PONG_TIMEOUT.as_secs())]
    Silent,
    /// The server does not take us for this user.
    #[error("the server refused to sign us in: {0}")]
    SignInRefused(String),
    /// There is nothing left to listen to.
    #[error("every subscription was refused; for a wrong signature, check --key and --secret")]
    AllRefused,
}

/// How long most disconnects keep a client away.
const BACK_OFF: Duration = Duration::from_secs(1);

impl ListenError {
    /// How long to wait before connecting again; `None`: never. `greeted` tells whether this connection was
    /// established, `greeted_once` whether any was: a server that was never there is a wrong address.
    pub(super) fn pause(&self, greeted: bool, greeted_once: bool) -> Option<Duration> {
        match self {
            Self::Closed { code, .. } => match code {
                // At 4000 other clients switch to TLS on another port; which one, only the user knows.
                4000..=4099 | 4300.. => None,
                // At once, but not round and round against a server that closes before it greets.
                4200..=4299 if greeted => Some(Duration::ZERO),
                _ => Some(BACK_OFF),
            },
            Self::Silent => Some(Duration::ZERO),
            Self::Broken(_) => Some(BACK_OFF),
            Self::Unreachable(_) | Self::NoWebSocket { .. } | Self::NoGreeting { .. } => {
                greeted_once.then_some(BACK_OFF)
            }
            Self::SignInRefused(_) | Self::AllRefused => None,
        }
    }
}

/// What to do about a close code that ends it all.
fn hint(code: u16) -> &'static str {
    match code {
        4000 => "\n(give an https:// address with --url)",
        4001 => "\n(check --key)",
        4005 => "\n(check the path prefix of --url)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_decides_whether_and_when_a_client_comes_back() {
        let pause = |code| ListenError::Closed { code, reason: String::new() }.pause(true, true);
        for never in [4000, 4001, 4009, 4099, 4300, 4999] {
            assert_eq!(pause(never), None, "{never}");
        }
        for later in [1000, 1001, 1005, 1006, 1011, 3999, 4100, 4199] {
            assert_eq!(pause(later), Some(BACK_OFF), "{later}");
        }
        for at_once in [4200, 4201, 4299] {
            assert_eq!(pause(at_once), Some(Duration::ZERO), "{at_once}");
        }
    }

    #[test]
    fn a_server_that_closes_before_it_greets_is_not_besieged() {
        let draining = ListenError::Closed { code: 4200, reason: String::new() };
        assert_eq!(draining.pause(false, true), Some(BACK_OFF));
    }

    #[test]
    fn only_a_server_that_was_there_is_waited_for() {
        let unreachable = ListenError::from(CallError::Refused("http://127.0.0.1:6001".to_owned()));
        assert_eq!(unreachable.pause(false, false), None);
        assert_eq!(unreachable.pause(false, true), Some(BACK_OFF));
    }
}
