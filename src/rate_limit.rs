//! A token bucket that takes "now" as an argument.

use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// Allows so many actions a second, and so many at once.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// The nanoseconds that one action costs; zero for no limit. Every connection has some of these: they are small.
    cost: u64,
    /// The nanoseconds that the account may be ahead of the clock.
    burst: u64,
    /// The moment up to which time has been spent.
    spent_until: Option<Instant>,
}

impl RateLimit {
    /// A full bucket for `rate` actions a second, and as many at once; 0 allows everything.
    pub fn per_second(rate: u32) -> Self {
        Self::new(rate, rate)
    }

    /// A full bucket for `rate` actions a second, and `burst` at once; `rate` 0 allows everything.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self::of(SECOND, rate, burst)
    }

    /// A full bucket that allows `rate` actions a minute, and as many at once; 0 allows everything.
    pub fn per_minute(rate: u32) -> Self {
        Self::of(60 * SECOND, rate, rate)
    }

    fn of(period: u64, rate: u32, burst: u32) -> Self {
        let cost = period.checked_div(rate.into()).unwrap_or_default();
        Self { cost, burst: cost.saturating_mul(burst.into()), spent_until: None }
    }

    /// Whether nothing is left to refill, so that a new bucket would be the same.
    pub fn is_full(&self, now: Instant) -> bool {
        self.spent_until.is_none_or(|spent| spent <= now)
    }

    /// Takes one action. A refused one costs nothing.
    ///
    /// # Errors
    /// The time until the next action is free.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.cost == 0 {
            return Ok(());
        }
        let spent_until = self.spent_until.map_or(now, |spent| spent.max(now)) + Duration::from_nanos(self.cost);
        let (ahead, burst) = (spent_until - now, Duration::from_nanos(self.burst));
        if ahead > burst {
            return Err(ahead - burst);
        }
        self.spent_until = Some(spent_until);
        Ok(())
    }

    /// Takes one action that has happened already, on credit if the bucket is empty. Returns when the credit is paid back.
    pub fn charge(&mut self, now: Instant) -> Option<Instant> {
        if self.cost == 0 {
            return None;
        }
        let spent_until = self.spent_until.map_or(now, |spent| spent.max(now)) + Duration::from_nanos(self.cost);
        self.spent_until = Some(spent_until);
        spent_until.checked_sub(Duration::from_nanos(self.burst)).filter(|paid| *paid > now)
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
    fn an_action_on_credit_has_to_be_paid_back() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10, 3);
        assert!((0..3).all(|_| limit.charge(start).is_none()) && !limit.is_full(start));
        assert_eq!(limit.charge(start), Some(start + Duration::from_millis(100)));
        assert_eq!(limit.charge(start), Some(start + Duration::from_millis(200)));
        let later = start + Duration::from_secs(1);
        assert!(limit.is_full(later) && limit.charge(later).is_none());
        assert_eq!(RateLimit::new(0, 3).charge(start), None);
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
