//! Tells who waits in front of a terminal how far the run is.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line on standard error: rewritten on a terminal, else written every few seconds.
pub(super) struct Progress {
    terminal: bool,
    last: Instant,
    shown: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: Instant::now(), shown: false }
    }

    /// Shows the text, unless something was shown a moment ago.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let pause = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        // If nobody reads it, nobody needs it.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{}", text()),
            false => writeln!(io::stderr(), "fanfare: {}", text()),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
