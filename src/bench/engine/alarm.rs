//! Waking to the microsecond. What `epoll_wait` is told to wait for is rounded up to whole milliseconds, and events that
//! should be evenly spaced would come in little bursts.

use std::io;

use mio::{Registry, Token};

use super::Nanos;

/// Waits from here on need no alarm, in nanoseconds: a millisecond is nothing to them.
const LONG: Nanos = 1_000_000_000;

/// Ends the waiting for sockets at a point in time.
pub(super) struct Alarm {
    clock: clock::Clock,
    /// When it goes off, or has gone off.
    at: Nanos,
}

impl Alarm {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { clock: clock::Clock::new(registry, token)?, at: 0 })
    }

    /// Goes off at `until`, which is `wait` from now.
    pub(super) fn set(&mut self, until: Nanos, wait: Nanos) -> io::Result<()> {
        if wait == 0 || wait >= LONG || self.at == until {
            return Ok(());
        }
        self.at = until;
        self.clock.set(wait)
    }
}

#[cfg(target_os = "linux")]
mod clock {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    use rustix::time::{timerfd_create, timerfd_settime};

    use super::Nanos;

    pub(super) struct Clock(OwnedFd);

    impl Clock {
        pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Self(timer))
        }

        /// Goes off once, after so long. Nobody has to read it: setting it again is enough.
        pub(super) fn set(&self, wait: Nanos) -> io::Result<()> {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let first = Timespec { tv_sec: (wait / 1_000_000_000) as _, tv_nsec: (wait % 1_000_000_000) as _ };
            let when = Itimerspec { it_interval: once, it_value: first };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &when)?;
            Ok(())
        }
    }
}

/// Elsewhere a millisecond has to do.
#[cfg(not(target_os = "linux"))]
mod clock {
    use std::io;

    use mio::{Registry, Token};

    use super::Nanos;

    pub(super) struct Clock;

    impl Clock {
        pub(super) fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn set(&self, _wait: Nanos) -> io::Result<()> {
            Ok(())
        }
    }
}
