//! What can be measured, one scenario per file. A scenario's struct is what its flags are parsed into; its fields'
//! documentation is their help, and its serialised form the `parameters` of the result.

pub(super) mod burst;
pub(super) mod churn;
pub(super) mod client_events;
pub(super) mod cluster;
pub(super) mod fanout;
pub(super) mod idle;
pub(super) mod many;
pub(super) mod presence;
pub(super) mod publish;
pub(super) mod slow;
pub(super) mod storm;

use super::{Bench, BenchError, Report, Transport};

/// Something to do to a server, and what to learn from it.
pub(crate) trait Scenario: serde::Serialize {
    /// Sockets it has open at once, at most.
    fn sockets(&self) -> usize;

    /// URLs of further nodes of the same cluster.
    fn nodes(&self) -> &[String] {
        &[]
    }

    /// How its clients are connected.
    fn transport(&self) -> Transport {
        Transport::Websocket
    }

    /// Does it.
    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError>;
}

/// At least one.
fn positive(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|&number| number > 0).ok_or("expected a whole number from 1 on")
}

/// A number above zero.
fn rate(text: &str) -> Result<f64, &'static str> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or("expected a number above 0")
}
