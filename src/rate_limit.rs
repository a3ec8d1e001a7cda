//! Token buckets that take "now" as an argument.

use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// So many actions a second, and so many at once: the rule, which all that it holds for have in common.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// The nanoseconds that one action costs; zero for no limit.
    cost: u64,
    /// The nanoseconds that an account may be ahead of the clock.
    burst: u64,
}

/// The part of a rate limit that one party has used: nothing at first. Every connection has some of these: they are small.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The moment up to which time has been spent.
    spent_until: Option<Instant>,
}

impl RateLimit {
    /// `rate` actions a second, and as many at once; 0 allows everything.
    pub fn per_second(rate: u32) -> Self {
        Self::new(rate, rate)
    }

    /// `rate` actions a second, and `burst` at once; `rate` 0 allows everything.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self::of(SECOND, rate, burst)
    }

    /// `rate` actions a minute, and as many at once; 0 allows everything.
    pub fn per_minute(rate: u32) -> Self {
        Self::of(60 * SECOND, rate, rate)
    }

    /// How long it takes until so many more actions are free.
    pub fn time_for(&self, actions: usize) -> Duration {
        Duration::from_nanos(self.cost.saturating_mul(actions as u64))
    }

    fn of(period: u64, rate: u32, burst: u32) -> Self {
        let cost = period.checked_div(rate.into()).unwrap_or_default();
        Self { cost, burst: cost.saturating_mul(burst.into()) }
    }
}

impl Bucket {
    /// Whether nothing is left to refill, so that a new bucket would be the same.
    pub fn is_full(&self, now: Instant) -> bool {
        self.spent_until.is_none_or(|spent| spent <= now)
    }

    /// Takes one action. A refused one costs nothing.
    ///
    /// # Errors
    /// The time until the next action is free.
    pub fn take(&mut self, limit: &RateLimit, now: Instant) -> Result<(), Duration> {
        if limit.cost == 0 {
            return Ok(());
        }
        let spent_until = self.after_one_more(limit, now);
        let (ahead, burst) = (spent_until - now, Duration::from_nanos(limit.burst));
        if ahead > burst {
            return Err(ahead - burst);
        }
        self.spent_until = Some(spent_until);
        Ok(())
    }

    /// Takes one action that has happened already, on credit if the bucket is empty. Returns when the credit is paid back.
    pub fn charge(&mut self, limit: &RateLimit, now: Instant) -> Option<Instant> {
        if limit.cost == 0 {
            return None;
        }
        let spent_until = self.after_one_more(limit, now);
        self.spent_until = Some(spent_until);
        spent_until.checked_sub(Duration::from_nanos(limit.burst)).filter(|paid| *paid > now)
    }

    fn after_one_more(&self, limit: &RateLimit, now: Instant) -> Instant {
        self.spent_until.map_or(now, |spent| spent.max(now)) + Duration::from_nanos(limit.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_empties_the_bucket_and_time_refills_it() {
        let start = Instant::now();
        let (limit, mut bucket) = (RateLimit::per_second(10), Bucket::default());
        for _ in 0..10 {
            assert!(bucket.take(&limit, start).is_ok());
        }
        assert_eq!(bucket.take(&limit, start), Err(Duration::from_millis(100)));
        assert!(bucket.take(&limit, start + Duration::from_millis(99)).is_err());
        assert!(bucket.take(&limit, start + Duration::from_millis(100)).is_ok());
        assert!(bucket.take(&limit, start + Duration::from_millis(100)).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| bucket.take(&limit, later).is_ok()).count(), 10);
    }

    #[test]
    fn an_action_on_credit_has_to_be_paid_back() {
        let start = Instant::now();
        let (limit, mut bucket) = (RateLimit::new(10, 3), Bucket::default());
        assert!((0..3).all(|_| bucket.charge(&limit, start).is_none()) && !bucket.is_full(start));
        assert_eq!(bucket.charge(&limit, start), Some(start + Duration::from_millis(100)));
        assert_eq!(bucket.charge(&limit, start), Some(start + Duration::from_millis(200)));
        let later = start + Duration::from_secs(1);
        assert!(bucket.is_full(later) && bucket.charge(&limit, later).is_none());
        assert_eq!(bucket.charge(&RateLimit::new(0, 3), start), None);
    }

    #[test]
    fn zero_is_no_limit() {
        let (limit, mut bucket) = (RateLimit::per_second(0), Bucket::default());
        let now = Instant::now();
        assert!((0..1000).all(|_| bucket.take(&limit, now).is_ok()));
        // Threads that share a limit may read their clocks in another order than they come here.
        let earlier = now - Duration::from_millis(1);
        assert!(bucket.take(&limit, earlier).is_ok());
    }
}
