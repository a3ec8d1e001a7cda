//! Answers that are good for a while, so that clients that all reconnect at once ask each question once. Who asks what is
//! being asked already waits for the same answer.
//!
//! A question must be admitted before it is asked, and only one that is being asked is shared: nobody waits for the admission
//! of somebody else.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::select;
use tokio::sync::watch;

use crate::shutdown::Shutdown;

/// Answers that are kept; above it the oldest is forgotten.
const MAX_ENTRIES: usize = 4096;

/// A digest of everything that decides.
pub(super) type Key = [u8; 32];

/// Answers by question.
#[derive(Debug)]
pub(super) struct Cache<A> {
    time: Duration,
    shutdown: Shutdown,
    entries: Arc<Mutex<Entries<A>>>,
}

#[derive(Debug)]
struct Entries<A> {
    by_key: HashMap<Key, Entry<A>>,
    /// The keys with the entries' numbers, oldest first.
    order: VecDeque<(Key, u64)>,
    count: u64,
}

#[derive(Debug)]
struct Entry<A> {
    number: u64,
    asked: Instant,
    /// Each client that waits for the answer has a receiver.
    answer: Arc<watch::Sender<Option<A>>>,
}

impl<A: Clone + Send + Sync + 'static> Cache<A> {
    /// An empty cache whose answers are good for this long.
    pub(super) fn new(time: Duration, shutdown: Shutdown) -> Self {
        let entries = Entries { by_key: HashMap::new(), order: VecDeque::new(), count: 0 };
        Self { time, shutdown, entries: Arc::new(Mutex::new(entries)) }
    }

    /// The answer that is known or on its way, or else that of `ask`, which gets what `admit` ends with. One that `keep`
    /// does not want is given to all who wait for it, and to nobody after. `None` if the server stops.
    ///
    /// # Errors
    /// That of `admit`. It is this caller's alone.
    ///
    /// # Cancel safety
    /// Safe if `admit` is: a question is asked as long as somebody waits for its answer.
    pub(super) async fn get<T, E, F>(
        &self,
        key: Key,
        admit: impl Future<Output = Result<T, E>>,
        ask: impl FnOnce(T) -> F,
        keep: fn(&A) -> bool,
    ) -> Result<Option<A>, E>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let answer = async {
            let mut answer = match self.known(&key) {
                Some(answer) => answer,
                None => {
                    let admitted = admit.await?;
                    // Somebody else may have asked meanwhile.
                    self.known(&key).unwrap_or_else(|| self.begin(key, ask(admitted), keep))
                }
            };
            let answer = answer.wait_for(Option::is_some).await;
            Ok(answer.ok().and_then(|answer| answer.clone()))
        };
        select! {
            answer = answer => answer,
            () = self.shutdown.requested() => Ok(None),
        }
    }

    fn known(&self, key: &Key) -> Option<watch::Receiver<Option<A>>> {
        self.entries.lock().get(key, self.time)
    }

    fn begin<F>(&self, key: Key, ask: F, keep: fn(&A) -> bool) -> watch::Receiver<Option<A>>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        let number = self.entries.lock().insert(key, Arc::clone(&sender));
        let (entries, shutdown) = (Arc::clone(&self.entries), self.shutdown.clone());
        self.shutdown.spawn(async move {
            let mut ask = pin!(ask);
            let answer = loop {
                select! {
                    answer = &mut ask => break answer,
                    // Questions of those who have gone must not keep others from asking theirs.
                    () = sender.closed() => {
                        let mut entries = entries.lock();
                        if sender.receiver_count() == 0 {
                            return entries.remove(&key, number);
                        }
                    }
                    () = shutdown.requested() => return,
                }
            };
            if !keep(&answer) {
                entries.lock().remove(&key, number);
            }
            sender.send_replace(Some(answer));
        });
        receiver
    }
}

impl<A> Entries<A> {
    fn get(&self, key: &Key, time: Duration) -> Option<watch::Receiver<Option<A>>> {
        let entry = self.by_key.get(key)?;
        // One that is on its way is as good as new.
        let useful = entry.answer.borrow().is_none() || entry.asked.elapsed() < time;
        useful.then(|| entry.answer.subscribe())
    }

    fn insert(&mut self, key: Key, answer: Arc<watch::Sender<Option<A>>>) -> u64 {
        self.count += 1;
        let number = self.count;
        self.by_key.insert(key, Entry { number, asked: Instant::now(), answer });
        self.order.push_back((key, number));
        while self.by_key.len() > MAX_ENTRIES || self.order.len() > 2 * MAX_ENTRIES {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            self.remove(&oldest, number);
        }
        number
    }

    /// Forgets this entry, but not one that has taken its place.
    fn remove(&mut self, key: &Key, number: u64) {
        if self.by_key.get(key).is_some_and(|entry| entry.number == number) {
            self.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::{Notify, oneshot};

    async fn ask(cache: &Cache<u32>, key: u8, asked: &Arc<AtomicU32>, keep: fn(&u32) -> bool) -> Option<u32> {
        let asked = Arc::clone(asked);
        get(cache, key, async move { asked.fetch_add(1, Ordering::Relaxed) + 1 }, keep).await
    }

    /// Asks what is admitted at once.
    async fn get(
        cache: &Cache<u32>,
        key: u8,
        ask: impl Future<Output = u32> + Send + 'static,
        keep: fn(&u32) -> bool,
    ) -> Option<u32> {
        cache.get([key; 32], async { Ok::<_, Infallible>(()) }, |()| ask, keep).await.unwrap()
    }

    #[tokio::test]
    async fn a_question_is_asked_once_and_its_answer_given_to_all() {
        let cache = Cache::new(Duration::from_secs(60), Shutdown::default());
        let asked = Arc::default();
        let both = tokio::join!(ask(&cache, 1, &asked, |_| true), ask(&cache, 1, &asked, |_| true));
        assert_eq!(both, (Some(1), Some(1)));
        assert_eq!(ask(&cache, 1, &asked, |_| true).await, Some(1));
        assert_eq!(ask(&cache, 2, &asked, |_| true).await, Some(2));
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_any_more_is_given_up() {
        let cache: Cache<u32> = Cache::new(Duration::from_secs(60), Shutdown::default());
        let (started, (guard, gone)) = (Arc::new(Notify::new()), oneshot::channel::<()>());
        let ask = {
            let started = Arc::clone(&started);
            async move {
                let _guard = guard;
                started.notify_one();
                std::future::pending().await
            }
        };
        let waiting = get(&cache, 0, ask, |_| true);
        select! {
            _ = waiting => unreachable!("nobody answers"),
            () = started.notified() => {}
        }
        assert!(gone.await.is_err());
        assert_eq!(get(&cache, 0, async { 7 }, |_| true).await, Some(7));
    }

    #[tokio::test]
    async fn nobody_waits_for_the_admission_of_somebody_else() {
        let cache: Cache<u32> = Cache::new(Duration::from_secs(60), Shutdown::default());
        let (admit, admission) = oneshot::channel();
        let late = cache.get([0; 32], admission, |()| async { unreachable!("the answer is known by then") }, |_| true);
        let refused = cache.get([0; 32], async { Err::<(), _>("refused") }, |()| async { 0 }, |_| true);
        let (late, ()) = tokio::join!(late, async {
            assert_eq!(refused.await, Err("refused"));
            assert_eq!(get(&cache, 0, async { 7 }, |_| true).await, Some(7));
            admit.send(()).unwrap();
        });
        assert_eq!(late, Ok(Some(7)));
        // What is known needs no admission.
        let known = cache.get([0; 32], async { Err::<(), _>("refused") }, |()| async { 0 }, |_| true);
        assert_eq!(known.await, Ok(Some(7)));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_kept_or_too_old_is_asked_for_again() {
        let asked = Arc::default();
        let cache = Cache::new(Duration::from_secs(60), Shutdown::default());
        assert_eq!(ask(&cache, 1, &asked, |_| false).await, Some(1));
        assert_eq!(ask(&cache, 1, &asked, |_| true).await, Some(2));
        let cache = Cache::new(Duration::ZERO, Shutdown::default());
        assert_eq!(ask(&cache, 1, &asked, |_| true).await, Some(3));
        assert_eq!(ask(&cache, 1, &asked, |_| true).await, Some(4));
    }

    #[tokio::test]
    async fn the_number_of_answers_is_bounded() {
        let cache: Cache<u32> = Cache::new(Duration::from_secs(60), Shutdown::default());
        for n in 0..3 * MAX_ENTRIES as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            cache.entries.lock().insert(key, Arc::new(watch::channel(None).0));
        }
        let entries = cache.entries.lock();
        assert_eq!(entries.by_key.len(), MAX_ENTRIES);
        assert!(entries.order.len() <= 2 * MAX_ENTRIES);
    }

    #[tokio::test]
    async fn whoever_waits_is_released_when_the_server_stops() {
        let shutdown = Shutdown::default();
        let cache: Cache<u32> = Cache::new(Duration::from_secs(60), shutdown.clone());
        let waiting = get(&cache, 0, std::future::pending(), |_| true);
        let (answer, ()) = tokio::join!(waiting, async { shutdown.request() });
        assert_eq!(answer, None);
    }
}
