//! A token bucket that takes "now" as an argument.

use std::time::{Duration, Instant};

/// Allows `rate` actions a second, and as many at once.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// The time one action costs; zero for no limit.
    cost: Duration,
    /// How far the account may be ahead of the clock.
    burst: Duration,
    /// The moment up to which time has been spent.
    spent_until: Option<Instant>,
}

impl RateLimit {
    /// A full bucket; `rate` 0 allows everything.
    pub fn per_second(rate: u32) -> Self {
        let cost = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        Self { cost, burst: cost * rate, spent_until: None }
    }

    /// A full bucket that allows `rate` actions a minute, and as many at once; 0 allows everything.
    pub fn per_minute(rate: u32) -> Self {
        let cost = Duration::from_secs(60).checked_div(rate).unwrap_or_default();
        Self { cost, burst: cost * rate, spent_until: None }
    }

    /// Whether it is as it was at the beginning.
    pub fn is_full(&self, now: Instant) -> bool {
        self.spent_until.is_none_or(|spent| spent <= now)
    }

    /// Takes one action. A refused one costs nothing.
    ///
    /// # Errors
    /// The time until the next action is free.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.cost.is_zero() {
            return Ok(());
        }
        let spent_until = self.spent_until.map_or(now, |spent| spent.max(now)) + self.cost;
        let ahead = spent_until - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        self.spent_until = Some(spent_until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_empties_the_bucket_and_time_refills_it() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(10);
        for _ in 0..10 {
            assert!(limit.take(start).is_ok());
        }
        assert_eq!(limit.take(start), Err(Duration::from_millis(100)));
        assert!(limit.take(start + Duration::from_millis(99)).is_err());
        assert!(limit.take(start + Duration::from_millis(100)).is_ok());
        assert!(limit.take(start + Duration::from_millis(100)).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| limit.take(later).is_ok()).count(), 10);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut limit = RateLimit::per_second(0);
        let now = Instant::now();
        assert!((0..1000).all(|_| limit.take(now).is_ok()));
        // Threads that share a limit may read their clocks in another order than they come here.
        let earlier = now - Duration::from_millis(1);
        assert!(limit.take(earlier).is_ok());
    }
}
