//! One address, or one network, that would take all there is.

use std::time::Duration;

use crate::it::HttpSession;
use crate::support::{Attacker, MIB, Server, siege};

/// Tries to connect so often from this address, or from those that `address` makes of the number; those that were let in.
async fn connect(server: &Server, attempts: usize, address: impl Fn(usize) -> String) -> Vec<Attacker> {
    let mut connected = Vec::new();
    for number in 0..attempts {
        let dial = server.dial().header("X-Forwarded-For", &address(number));
        connected.extend(Attacker::connect(&dial, server.addr).await);
    }
    connected
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_its_limit() {
    let settings = ["server.trust_forwarded_headers=true", "server.connections_per_address=50"];
    let server = Server::with(&settings).await;
    let siege = siege(&server, async {
        let one = connect(&server, 150, |_| "203.0.113.9".to_owned()).await;
        // A household has one of these networks, and any number of addresses in it.
        let network = connect(&server, 150, |n| format!("2001:db8:0:1:{n:x}::1")).await;
        // Networks beside it are somebody else's.
        let others = connect(&server, 60, |n| format!("2001:db8:0:{:x}::1", n + 2)).await;
        let counts = [one.len(), network.len(), others.len()];
        drop((one, network, others));
        counts
    })
    .await;
    assert_eq!(siege.outcome, [50, 50, 60], "one address, one network, many networks");
    assert!(siege.lines <= 60, "{siege}");
    siege.cost_at_most(32 * MIB);
}

#[tokio::test]
async fn the_limit_of_an_address_counts_all_transports_together() {
    let settings = ["server.trust_forwarded_headers=true", "server.connections_per_address=20"];
    let server = Server::with(&settings).await;
    let siege = siege(&server, async {
        let address = "203.0.113.9";
        let sockets = connect(&server, 10, |_| address.to_owned()).await;
        let mut streams = Vec::new();
        for number in 0..30 {
            let session =
                if number % 2 == 0 { HttpSession::of_pusher(server.addr) } else { HttpSession::of_sockjs(server.addr) };
            let session = session.header("X-Forwarded-For", address);
            // Refused as a whole, or with a packet that says so; a session that is let in is greeted.
            for _ in 0..3 {
                let poll = tokio::time::timeout(Duration::from_secs(5), session.poll()).await.expect("an answer");
                if session.is_sockjs() && poll.body == "o\n" {
                    session.ask_for_app().await;
                }
                if poll.status != 200 || poll.body.contains("c[") {
                    break;
                }
                if poll.body.contains("pusher:connection_established") {
                    streams.push(session);
                    break;
                }
            }
        }
        (sockets.len(), streams.len())
    })
    .await;
    let (sockets, streams) = siege.outcome;
    assert_eq!((sockets, streams), (10, 10), "WebSockets, and sessions of HTTP transports");
    siege.cost_at_most(32 * MIB);
}

#[tokio::test]
async fn one_address_does_not_connect_more_often_than_its_limit() {
    let settings = ["server.trust_forwarded_headers=true", "server.new_connections_per_address=5"];
    let server = Server::with(&settings).await;
    let siege = siege(&server, async {
        let start = tokio::time::Instant::now();
        // Each of them leaves again at once.
        let mut connected = 0;
        for _ in 0..300 {
            connected += connect(&server, 1, |_| "203.0.113.9".to_owned()).await.len();
        }
        (connected, start.elapsed().as_secs_f64())
    })
    .await;
    let (connected, seconds) = siege.outcome;
    // Ten seconds' worth at once, and then five a second.
    let allowed = 50.0 + 5.0 * (seconds + 1.0);
    assert!((50.0..=allowed).contains(&f64::from(u32::try_from(connected).unwrap())), "{connected} in {seconds} s");
    siege.cost_at_most(32 * MIB);
}

#[tokio::test]
async fn private_addresses_are_warned_about_and_not_refused() {
    let settings = ["server.connections_per_address=20", "server.new_connections_per_address=2"];
    let server = Server::with(&settings).await;
    let siege = siege(&server, async {
        let mut connected = Vec::new();
        for _ in 0..60 {
            connected.push(Attacker::connect(&server.dial(), server.addr).await.unwrap());
        }
        // A claim that nobody asked for changes nothing.
        (connected, connect(&server, 60, |_| "203.0.113.9".to_owned()).await.len())
    })
    .await;
    let log = server.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("127.0.0.1")), "no warning in {log}");
    assert_eq!(siege.outcome.1, 60);
    siege.cost_at_most(32 * MIB);
}
