//! Fresh clients: each connects, subscribes, and hears an event that its backend triggers, while an operator looks at the
//! metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{NEIGHBOUR, Server};
use crate::it::server::Dial;
use crate::it::{APP_ID, Api, Call, Http, KEY, SECRET, Wire};

/// Within this, everybody is served, whatever anybody else does.
const PROMISE: Duration = Duration::from_secs(1);

/// Visits before an attack may be over.
const ENOUGH: usize = 8;

const PAUSE: Duration = Duration::from_millis(100);

/// Visitors, one after the other, on a thread of their own: an attacker that is busy must not make the server look slow.
pub struct Visitor {
    until: Arc<Until>,
    thread: Option<JoinHandle<Visits>>,
}

#[derive(Default)]
struct Until {
    /// The attack is over.
    over: AtomicBool,
    /// Nobody wants to know.
    abandoned: AtomicBool,
}

/// How the visitors fared.
#[derive(Debug, Default)]
pub struct Visits {
    count: usize,
    failures: usize,
    /// From the connection to the success of the subscription.
    subscribed: Duration,
    /// Of the API request that triggers an event.
    triggered: Duration,
    /// From the connection to the event.
    heard: Duration,
    /// Of the admin listener's metrics.
    scraped: Duration,
}

impl Visitor {
    /// Begins.
    pub fn start(addr: SocketAddr, admin: SocketAddr) -> Self {
        let until = Arc::<Until>::default();
        let stop = Arc::clone(&until);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut visits = Visits::default();
                while (visits.count < ENOUGH || !stop.over.load(Ordering::Relaxed))
                    && !stop.abandoned.load(Ordering::Relaxed)
                {
                    // A task of its own, so that one that fails does not end the others.
                    match tokio::spawn(pay_visit(addr, admin, visits.count)).await {
                        Ok(visit) => visits.add(&visit),
                        Err(_) => visits.failures += 1,
                    }
                    visits.count += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                visits
            })
        });
        Self { until, thread: Some(thread) }
    }

    /// Waits for the last visitor.
    pub async fn stop(mut self) -> Visits {
        self.until.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("not stopped before");
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.until.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Visits {
    fn add(&mut self, visit: &Self) {
        self.subscribed = self.subscribed.max(visit.subscribed);
        self.triggered = self.triggered.max(visit.triggered);
        self.heard = self.heard.max(visit.heard);
        self.scraped = self.scraped.max(visit.scraped);
    }

    /// All of them were served, sooner or later.
    #[track_caller]
    pub fn none_failed(&self) {
        assert_eq!(self.failures, 0, "fresh clients were not served: {self}");
    }

    /// All of them were served in time.
    #[track_caller]
    pub fn all_served(&self) {
        self.none_failed();
        assert!(self.heard < PROMISE && self.scraped < PROMISE, "fresh clients waited too long: {self}");
    }
}

impl std::fmt::Display for Visits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, failures, subscribed, triggered, heard, scraped } = self;
        write!(
            f,
            "{count} visits, {failures} failed; at worst: subscribed {subscribed:?}, triggered {triggered:?}, \
             heard {heard:?}, scraped {scraped:?}"
        )
    }
}

/// One visit, before an attack begins: whatever the server makes once is made then.
pub async fn visit(server: &Server) {
    pay_visit(server.addr, server.admin, 0).await;
    pay_visit(server.addr, server.admin, 1).await;
}

/// The times of one visitor: of the app under attack, or of its neighbour.
async fn pay_visit(addr: SocketAddr, admin: SocketAddr, number: usize) -> Visits {
    let (id, key, secret) = if number.is_multiple_of(2) { (APP_ID, KEY, SECRET) } else { NEIGHBOUR };
    let channel = format!("visitors-{number}");
    let address = format!("198.51.100.{}", number % 250 + 1);
    let start = Instant::now();
    let dial = Dial::new(addr).path(&format!("/app/{key}")).header("X-Forwarded-For", &address);
    let mut client = dial.connect().await;
    client.label(&format!("visitor {number} of app {id}"));
    client.subscribe(&channel).await;
    let subscribed = start.elapsed();

    let before = Instant::now();
    let body = json!({ "name": "greet", "channels": [channel], "data": "{}" });
    let mut call = Call::post(&format!("/apps/{id}/events"), &body).credentials(key, secret);
    call.headers = format!("X-Forwarded-For: {address}\r\n");
    Api::new(Http::new(Wire::connect(addr).await)).call(&call).await.ok();
    let triggered = before.elapsed();
    client.expect_event(&channel, "greet", "{}").await;
    let heard = start.elapsed();

    let before = Instant::now();
    let page = Http::new(Wire::connect(admin).await).get("/metrics").await;
    assert_eq!(page.status, 200, "{}", page.head);
    let scraped = before.elapsed();
    Visits { subscribed, triggered, heard, scraped, ..Visits::default() }
}
