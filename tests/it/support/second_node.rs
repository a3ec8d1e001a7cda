//! `FANFARE_IT_CLUSTER=1` runs every test against two nodes instead of one server: clients connect to the first, and the HTTP
//! API is that of the second. Whatever holds for one server must hold for them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use fanfare::config::{ClusterConfig, ClusterDriver};

use super::Redis;

/// Tests about one process, which have nothing to do with the others, by how their names begin.
const ALONE: &[(&str, &str)] = &[
    ("shutdown::", "stops a process and watches it"),
    (
        "subscriptions::messages_of_one_connection_are_handled_in_their_order",
        "a cluster answers a subscription when it is in place, and a ping at once",
    ),
    ("webhook_bounds::", "fills the memory and the disk of one process with webhooks, and counts them there"),
    ("webhook_endpoints::", "looks at the connections of one process to its endpoints"),
    ("webhook_failures::", "looks at what one process still has to deliver"),
    (
        "webhooks::counts_are_told_as_often_as_clients_hear_them",
        "who comes at the same time is one change to a cluster",
    ),
    ("webhooks::every_kind_of_event_has_pushers_form", "what a node tells by itself is faster than what all decide"),
    ("webhooks::who_asks_hears_of_connections_and_users", "the same"),
    ("webhooks::without_a_delay_everything_is_told_at_once", "who leaves and joins at once never left, to a cluster"),
    ("webhook_restarts::", "starts a process with what another one has left on disk"),
];

/// What makes two nodes of the servers of this test, if that is wanted.
pub fn wanted() -> Option<ClusterConfig> {
    match std::env::var("FANFARE_IT_CLUSTER").as_deref() {
        Err(_) | Ok("") | Ok("0") => return None,
        Ok("1") => {}
        Ok(other) => panic!("FANFARE_IT_CLUSTER is {other:?}, and must be 0 or 1"),
    }
    let thread = std::thread::current();
    // A test's thread has its name, unless all tests have one thread.
    let test = thread.name().filter(|name| name.contains("::")).expect("no --test-threads=1 with FANFARE_IT_CLUSTER");
    if ALONE.iter().any(|(prefix, _)| test.starts_with(prefix)) {
        return None;
    }
    static REDIS: OnceLock<Redis> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Some(ClusterConfig {
        driver: ClusterDriver::Redis,
        id: format!("it-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        urls: vec![REDIS.get_or_init(Redis::shared).url()],
        ..ClusterConfig::default()
    })
}
