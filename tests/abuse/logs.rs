//! Strangers who would fill the disk.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::it::Wire;
use crate::support::{KIB, MIB, PATIENCE, Server, eventually, siege};

#[tokio::test]
async fn strangers_cannot_fill_the_log() {
    const ATTEMPTS: usize = 2000;
    let server = Server::with(&[]).await;
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for number in 0..ATTEMPTS {
            // Every tenth has a path as long as a head can be.
            let padding =
                if number % 10 == 0 { "k".repeat(60_000) } else { "unknown-key-%7f%E2%80%AE%1B[2J".to_owned() };
            let dial = server.dial().path(&format!("/app/{padding}"));
            let addr = server.addr;
            attack.spawn(async move {
                let mut wire = Wire::connect(addr).await;
                let _ = wire.try_write(dial.request().as_bytes()).await;
                wire.rest().await;
            });
            if number % 20 == 19 {
                // 500 a second.
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
        attack.join_all().await;
    })
    .await;
    // Twenty lines of a kind, of which there may be three, and none is long.
    assert!(siege.lines <= 70, "{siege}");
    assert!(siege.logged <= 48 * KIB, "{siege}");
    // A client is told for seconds why it may not stay, and the long paths, 12 MB of them, are not kept for that.
    siege.cost_at_most(20 * MIB);
    // Nothing that a terminal would obey.
    assert!(!server.log().contains(['\u{202e}', '\x7f', '\x1b']));
    // In the end, all of them were told or counted.
    let told = async || {
        let log = server.log();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let message = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
        let single = lines.iter().filter(|line| message(line) == "client refused").count() as u64;
        let more = |line: &&Value| message(line).contains("more like this: client refused");
        let more: u64 = lines.iter().filter(more).map(|line| line["more"].as_u64().unwrap()).sum();
        let refused = server.metric("fanfare_connections_refused_total", "").await;
        if single + more == refused && refused > ATTEMPTS as u64 / 2 {
            Ok(())
        } else {
            Err(format!("{single} + {more} of {refused}"))
        }
    };
    eventually("the log tells how many there were", PATIENCE / 2, told).await;
}
