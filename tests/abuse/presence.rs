//! A member that joins and leaves as fast as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::it::requests;
use crate::support::{Attacker, MIB, PATIENCE, Server, eventually, lasting, siege};

const MEMBERS: usize = 45;
const CHANNEL: &str = "presence-room";

fn join(attacker: &Attacker, user: &str) -> serde_json::Value {
    requests::membership(&attacker.socket_id, CHANNEL, &json!({ "user_id": user }).to_string())
}

#[tokio::test]
async fn a_member_that_flaps_is_told_to_the_others_a_bounded_number_of_times() {
    let server = Server::with(&[]).await;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let mut member = Attacker::connect(&server.dial(), server.addr).await.unwrap();
        member.message(&join(&member, &format!("member-{number}"))).await.unwrap();
        members.push(member);
    }
    let all_in = async || match members.iter().filter(|member| member.answers() > 0).count() {
        MEMBERS => Ok(()),
        count => Err(format!("{count} members")),
    };
    eventually("all members are in", PATIENCE, all_in).await;
    let mut flapping = Attacker::connect(&server.dial(), server.addr).await.unwrap();
    let (enter, leave) =
        (join(&flapping, "flapping"), json!({ "event": "pusher:unsubscribe", "data": { "channel": CHANNEL } }));
    let heard = || members.iter().map(|member| member.heard.messages.load(Ordering::Relaxed)).sum::<u64>();
    let before = heard();
    let sent = Arc::<AtomicU64>::default();
    let siege = siege(&server, async {
        let attack = async {
            loop {
                flapping.message(&enter).await.unwrap();
                flapping.message(&leave).await.unwrap();
                sent.fetch_add(2, Ordering::Relaxed);
                // About ten times as often as the worst that was ever seen.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        lasting(Duration::from_secs(3), attack).await;
    })
    .await;
    let (heard, sent) = (heard() - before, sent.load(Ordering::Relaxed));
    let each = heard as f64 / MEMBERS as f64;
    eprintln!(
        "   {sent} messages sent, {heard} events heard: {each:.0} by each member, {:.1} per message",
        heard as f64 / sent as f64
    );
    // `presence_joins_per_minute`: 30, each with its end, and at most two more that became free meanwhile.
    assert!(each <= 64.0, "{each} events for each member");
    siege.cost_at_most(16 * MIB);
}
