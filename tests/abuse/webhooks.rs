//! Events of one client that would push everybody else's out of the queue of a webhook endpoint.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::it::wire_masked;
use crate::support::{Attacker, Endpoint, MIB, PATIENCE, Server, eventually, siege};

/// Events that were dropped, as the log tells it.
fn dropped(log: &str) -> u64 {
    let lines = log.lines().filter(|line| line.contains("\"message\":\"webhook events dropped\""));
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["count"].as_u64().unwrap()).sum()
}

/// One client subscribes to more channels than the queue of a slow endpoint holds, while members of presence channels come
/// and backends trigger: nothing of theirs is lost.
async fn flood(prefix: &str, durable: Option<&str>) -> Server {
    const HONEST: usize = 30;
    let endpoint = Endpoint::taking(Duration::from_millis(50)).await;
    let (url, data_dir) = (format!("apps.0.webhooks.0.url={}", endpoint.url()), durable.unwrap_or_default());
    let server = Server::with(&[
        &url,
        &format!("webhooks.data_dir={data_dir}"),
        "webhooks.max_pending=128KiB",
        "apps.0.webhook_delay=100ms",
        // The queue has to be fair by itself, whatever else keeps floods away.
        "apps.0.limits.messages_per_second=0",
        "apps.0.limits.channels_per_connection=100000",
    ])
    .await;
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for number in 0..2 {
            let mut attacker = Attacker::connect(&server.dial(), server.addr).await.unwrap();
            let prefix = prefix.to_owned();
            attack.spawn(async move {
                // 1,000 a second from each of them.
                for first in (0..3000).step_by(100) {
                    let message = |n| json!({ "event": "pusher:subscribe", "data": { "channel": format!("{prefix}flood-{number}-{n}") } });
                    let many: Vec<u8> = (first..first + 100).flat_map(|n| wire_masked(&message(n).to_string())).collect();
                    attacker.send(&many).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                attacker
            });
        }
        let mut honest = Vec::new();
        for number in 0..HONEST {
            let mut client = server.connect().await;
            client.join(&format!("presence-honest-{number}"), &format!("user-{number}")).await;
            honest.push(client);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (attack.join_all().await, honest)
    })
    .await;
    let told = async || {
        let missing: Vec<_> =
            (0..HONEST).filter(|n| endpoint.count("member_added", &format!("presence-honest-{n}")) == 0).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing: {missing:?} of {HONEST}; {siege}")) }
    };
    eventually("the backend knows all honest members", Duration::from_secs(8), told).await;
    let dropped = server.metric("fanfare_webhook_events_dropped_total", "").await;
    eprintln!("   {dropped} events dropped, {} told", endpoint.total());
    assert!(dropped > 0, "the flood fits into the queue");
    siege.cost_at_most(32 * MIB);
    server
}

#[tokio::test]
async fn a_flood_of_public_channels_pushes_out_no_event_of_honest_members() {
    let server = flood("", None).await;
    let counted = async || {
        let metric = server.metric("fanfare_webhook_events_dropped_total", "").await;
        let logged = dropped(&server.log());
        if metric == logged { Ok(()) } else { Err(format!("{metric} in the metric, {logged} in the log")) }
    };
    // The last line may wait until its interval is over.
    eventually("the log tells the count of the metric", PATIENCE / 2, counted).await;
}

#[tokio::test]
async fn a_flood_of_cache_misses_pushes_out_no_event_of_honest_members() {
    let directory = crate::it::TempDir::new();
    flood("cache-", Some(directory.path().join("webhooks").to_str().unwrap())).await;
}

#[tokio::test]
async fn a_channel_that_is_occupied_and_vacated_again_and_again_is_told_a_bounded_number_of_times() {
    const SWITCHES: u64 = 1000;
    let endpoint = Endpoint::taking(Duration::from_millis(50)).await;
    let url = format!("apps.0.webhooks.0.url={}", endpoint.url());
    // Without a delay, each of them is an event at once. Those that wait take a sixteenth of this soon.
    let flapping = ["apps.0.webhook_delay=0s", "apps.0.limits.messages_per_second=0", "webhooks.max_pending=64KiB"];
    let settings = [&[url.as_str()][..], &flapping].concat();
    let server = Server::with(&settings).await;
    let mut attacker = Attacker::connect(&server.dial(), server.addr).await.unwrap();
    let of = |verb: &str| wire_masked(&json!({ "event": verb, "data": { "channel": "flapping" } }).to_string());
    let pair = [of("pusher:subscribe"), of("pusher:unsubscribe")].concat();
    let siege = siege(&server, async {
        for _ in 0..SWITCHES / 10 {
            attacker.send(&pair.repeat(10)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    })
    .await;
    let settled = async || match server.metric("fanfare_webhook_events_pending", "").await {
        0 => Ok(()),
        count => Err(format!("{count} pending")),
    };
    eventually("everything is told", Duration::from_secs(12), settled).await;
    let (occupied, vacated) =
        (endpoint.count("channel_occupied", "flapping"), endpoint.count("channel_vacated", "flapping"));
    eprintln!("   {SWITCHES} times on and off: {occupied} occupied, {vacated} vacated");
    assert_eq!(occupied, vacated, "what was occupied was vacated");
    // One pair for each request at most: it takes 50 ms, and 3 seconds are over.
    assert!(occupied <= SWITCHES / 5, "{occupied} of {SWITCHES} were told");
    siege.cost_at_most(32 * MIB);
}
