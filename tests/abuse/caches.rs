//! Cache channels, which keep their last event.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::support::{MIB, Server, siege};

/// Triggers an event of 10 KB on each of so many cache channels.
pub async fn fill(server: &Server, channels: usize) {
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    for first in (0..channels).step_by(10) {
        let event = |n| json!({ "name": "kept", "channel": format!("cache-{n}"), "data": data });
        let batch: Vec<_> = (first..first + 10).map(event).collect();
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
        // An authentic tenant, but one that is in no hurry.
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn cached_events_of_an_app_stay_within_their_memory() {
    const CHANNELS: usize = 1500;
    let server = Server::with(&["app_defaults.limits.cache_size=1MiB"]).await;
    let siege = siege(&server, fill(&server, CHANNELS)).await;
    // 15 MB were offered.
    siege.cost_at_most(6 * MIB);
    // The newest are kept, the oldest are gone, and it is no more than fits.
    let mut client = server.connect().await;
    let mut kept = 0;
    for number in [0, 1, CHANNELS - 30, CHANNELS - 2, CHANNELS - 1] {
        let channel = format!("cache-{number}");
        client.subscribe(&channel).await;
        let next = client.next().await;
        let is_kept = next.event() == "kept";
        assert_eq!(is_kept, number >= CHANNELS - 30, "{channel}: {}", next.event());
        kept += usize::from(is_kept);
    }
    assert_eq!(kept, 3);
}
