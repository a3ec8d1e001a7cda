//! Messages that are too long, or never finished. The server throws away what is above the limit while it comes.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::it::{Opcode, head, masked};
use crate::support::{Attacker, KIB, MIB, Server, siege};

const CONNECTIONS: usize = 200;

async fn connections(server: &Server) -> Vec<Attacker> {
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        attackers.push(Attacker::connect(&server.dial(), server.addr).await.unwrap());
    }
    attackers
}

/// All but the last byte of a frame of this length.
fn unfinished(fin: bool, opcode: Opcode, length: usize) -> Vec<u8> {
    let mut frame = head(fin, opcode as u8, length, true);
    frame.resize(frame.len() + 4 + length - 1, b'x');
    frame
}

/// Waits until the server has closed all of them; says how many it has.
async fn closed(attackers: &[Attacker], time: Duration) -> usize {
    let deadline = tokio::time::Instant::now() + time;
    loop {
        let closed = attackers.iter().filter(|attacker| attacker.is_closed()).count();
        if closed == attackers.len() || tokio::time::Instant::now() > deadline {
            return closed;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_frame_above_the_limit_takes_no_memory_and_ends_in_time() {
    let server = Server::with(&["app_defaults.limits.message=64KiB", "server.request_timeout=2s"]).await;
    let mut attackers = connections(&server).await;
    let siege = siege(&server, async {
        let frame = unfinished(true, Opcode::Text, MIB as usize);
        for attacker in &mut attackers {
            // It may be closed in the middle of this.
            let _ = tokio::time::timeout(Duration::from_millis(500), attacker.send(&frame)).await;
        }
        closed(&attackers, Duration::from_secs(8)).await
    })
    .await;
    assert_eq!(siege.outcome, CONNECTIONS, "closed: {siege}");
    siege.cost_at_most(CONNECTIONS as u64 * 64 * KIB);
}

#[tokio::test]
async fn pieces_above_the_limit_take_no_memory_and_end_in_time() {
    let server = Server::with(&["app_defaults.limits.message=64KiB", "server.request_timeout=2s"]).await;
    let mut attackers = connections(&server).await;
    let siege = siege(&server, async {
        let first = masked(false, Opcode::Text as u8, &[b'x'; 60_000]);
        let next = masked(false, Opcode::Continuation as u8, &[b'x'; 60_000]);
        for piece in std::iter::once(&first).chain(std::iter::repeat_n(&next, 15)) {
            for attacker in attackers.iter_mut().filter(|attacker| !attacker.is_closed()) {
                let _ = tokio::time::timeout(Duration::from_millis(500), attacker.send(piece)).await;
            }
        }
        closed(&attackers, Duration::from_secs(8)).await
    })
    .await;
    assert_eq!(siege.outcome, CONNECTIONS, "closed: {siege}");
    siege.cost_at_most(2 * CONNECTIONS as u64 * 64 * KIB);
}

#[tokio::test]
async fn a_message_that_is_not_finished_in_time_ends_its_connection_whatever_comes_between() {
    let settings =
        ["server.request_timeout=2s", "app_defaults.limits.activity_timeout=2s", "app_defaults.limits.pong_timeout=2s"];
    let server = Server::with(&settings).await;
    let attackers = connections(&server).await;
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for (number, mut attacker) in attackers.into_iter().enumerate() {
            attack.spawn(async move {
                // Half of them stop within a frame, where nothing can come between; half of them between two frames.
                let begin = match number % 2 {
                    0 => unfinished(true, Opcode::Text, 60_000),
                    _ => masked(false, Opcode::Text as u8, &[b'x'; 60_000]),
                };
                let _ = attacker.send(&begin).await;
                let pong = masked(true, Opcode::Pong as u8, b"");
                for _ in 0..60 {
                    if attacker.is_closed() {
                        break;
                    }
                    if number % 2 == 1 {
                        let _ = attacker.send(&pong).await;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                attacker
            });
        }
        attack.join_all().await.iter().filter(|attacker| attacker.is_closed()).count()
    })
    .await;
    assert_eq!(siege.outcome, CONNECTIONS, "closed: {siege}");
    siege.cost_at_most(2 * CONNECTIONS as u64 * 64 * KIB);
    let closed = server.metric("fanfare_connections_closed_total", "unfinished_message").await;
    assert_eq!(closed, CONNECTIONS as u64, "closed for that reason");
}
