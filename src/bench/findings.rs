//! What a run found wrong.

use serde_json::{Value, json};

use super::engine::Happening;

/// How many deliveries were not as they should be. All zero is what a correct server gets.
#[derive(Debug, Default, Clone)]
pub(crate) struct Findings {
    /// Deliveries that never came.
    pub(super) lost: u64,
    /// Deliveries that came again.
    pub(super) repeated: u64,
    /// Deliveries that came after a later one of the same publisher.
    pub(super) out_of_order: u64,
    /// Messages whose content is not what was sent, or that were never sent to this client.
    pub(super) malformed: u64,
    /// Anything else: closed connections, error events, wrong member lists.
    pub(super) unexpected: u64,
    /// The first of each kind, in words.
    examples: Vec<(Kind, String)>,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// See [`Findings::lost`].
    Lost,
    /// See [`Findings::repeated`].
    Repeated,
    /// See [`Findings::out_of_order`].
    OutOfOrder,
    /// See [`Findings::malformed`].
    Malformed,
    /// See [`Findings::unexpected`].
    Unexpected,
}

impl Findings {
    /// Counts `count` more of a kind. The example is only written out for the first one.
    pub(super) fn add(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        *self.count_mut(kind) += count;
        if self.examples.iter().all(|(known, _)| *known != kind) {
            self.examples.push((kind, example()));
        }
    }

    /// Counts a happening that should not be: a client that was closed, or that got an error.
    pub(super) fn note(&mut self, happening: &Happening) {
        match happening {
            Happening::Closed { client, how, left: false, .. } => {
                self.add(Kind::Unexpected, 1, || format!("the server closed client {client} {how}"));
            }
            Happening::Refused { client, text } => {
                self.add(Kind::Unexpected, 1, || format!("client {client} got {text}"));
            }
            _ => {}
        }
    }

    /// Adds what another part of the run found.
    pub(super) fn merge(&mut self, other: Self) {
        let counts = [Kind::Lost, Kind::Repeated, Kind::OutOfOrder, Kind::Malformed, Kind::Unexpected];
        for kind in counts {
            let example = other.examples.iter().find(|(known, _)| *known == kind).map(|(_, text)| text.clone());
            let mut counted = other.clone();
            self.add(kind, *counted.count_mut(kind), || example.unwrap_or_default());
        }
    }

    /// Whether nothing was wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.lost + self.repeated + self.out_of_order + self.malformed + self.unexpected == 0
    }

    /// All of it on one line: counts, and the first of each kind.
    pub(crate) fn summary(&self) -> String {
        let named = [
            (self.lost, "lost"),
            (self.repeated, "repeated"),
            (self.out_of_order, "out of order"),
            (self.malformed, "malformed"),
            (self.unexpected, "unexpected"),
        ];
        let counts = named.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
        let examples = self.examples.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>();
        format!("{} (first: {})", counts.collect::<Vec<_>>().join(", "), examples.join("; "))
    }

    /// The counts, under their names.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "lost": self.lost,
            "repeated": self.repeated,
            "out_of_order": self.out_of_order,
            "malformed": self.malformed,
            "unexpected": self.unexpected,
            "examples": self.examples.iter().map(|(_, text)| text).collect::<Vec<_>>(),
        })
    }

    fn count_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Lost => &mut self.lost,
            Kind::Repeated => &mut self.repeated,
            Kind::OutOfOrder => &mut self.out_of_order,
            Kind::Malformed => &mut self.malformed,
            Kind::Unexpected => &mut self.unexpected,
        }
    }
}
