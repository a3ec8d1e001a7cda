//! An attack, and everything that is measured while it goes on.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::server::{descriptors, unsent};
use super::visitor::Visitor;
use super::{MIB, Server, Visits, visit};

const SAMPLING: Duration = Duration::from_millis(100);

/// What an attack cost.
pub struct Siege<T> {
    /// What the attackers say.
    pub outcome: T,
    /// Bytes by which the process grew at most.
    pub grown: u64,
    /// Descriptors that it had at most.
    pub descriptors: usize,
    /// Bytes that the kernel held for its clients at most.
    pub unsent: u64,
    /// Bytes of log.
    pub logged: u64,
    /// Lines of log.
    pub lines: usize,
    /// How fresh clients fared meanwhile.
    pub visits: Visits,
}

/// Attacks, and measures.
pub async fn siege<T>(server: &Server, attack: impl Future<Output = T>) -> Siege<T> {
    visit(server).await;
    let log = server.log();
    server.forget_peak();
    let before = server.memory();
    let samples = Samples::start(server.pid(), server.addr);
    let visitor = Visitor::start(server.addr, server.admin);
    let outcome = attack.await;
    let visits = visitor.stop().await;
    let (descriptors, unsent) = samples.stop();
    let grown = server.peak_memory().saturating_sub(before);
    let new = server.log().split_off(log.len());
    let siege =
        Siege { outcome, grown, descriptors, unsent, logged: new.len() as u64, lines: new.lines().count(), visits };
    let test = thread::current().name().unwrap_or_default().to_owned();
    eprintln!("== {test}\n   {siege}");
    siege
}

impl<T> Siege<T> {
    /// Fresh clients were served in time, and the process did not grow by more than this.
    #[track_caller]
    pub fn cost_at_most(&self, bytes: u64) {
        assert!(self.grown <= bytes, "more than {} MiB: {self}", bytes / MIB);
        self.visits.all_served();
    }
}

impl<T> fmt::Display for Siege<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        write!(
            f,
            "+{:.1} MiB, {} descriptors, {:.1} MiB in the kernel, {} lines of log with {} bytes; {}",
            mib(self.grown),
            self.descriptors,
            mib(self.unsent),
            self.lines,
            self.logged,
            self.visits
        )
    }
}

/// What has no peak of its own in `/proc`.
struct Samples {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    enough: AtomicBool,
    descriptors: AtomicUsize,
    unsent: AtomicU64,
}

impl Samples {
    fn start(pid: u32, addr: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let samples = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !samples.enough.load(Ordering::Relaxed) {
                samples.descriptors.fetch_max(descriptors(pid), Ordering::Relaxed);
                samples.unsent.fetch_max(unsent(addr), Ordering::Relaxed);
                thread::sleep(SAMPLING);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn stop(mut self) -> (usize, u64) {
        self.shared.enough.store(true, Ordering::Relaxed);
        self.thread.take().expect("not stopped before").join().unwrap();
        (self.shared.descriptors.load(Ordering::Relaxed), self.shared.unsent.load(Ordering::Relaxed))
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        self.shared.enough.store(true, Ordering::Relaxed);
    }
}
