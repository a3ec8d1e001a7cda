//! What honest clients do that looks like an attack: all of them come back at once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::it::requests;
use crate::support::{Attacker, Server, eventually, siege};

const CLIENTS: usize = 1000;
const CHANNELS: u64 = 20;

/// What a page of some application subscribes to, all in one go.
fn subscriptions(client: usize, socket_id: &str) -> Vec<Value> {
    let public = (0..16).map(|n| format!("news-{n}"));
    let others = [format!("private-user-{client}"), format!("private-cache-user-{client}"), "cache-weather".to_owned()];
    // Rooms of fifty members.
    let member = json!({ "user_id": format!("user-{client}"), "user_info": { "name": "Somebody" } }).to_string();
    let room = requests::membership(socket_id, &format!("presence-room-{}", client / 50), &member);
    let channels = public.chain(others).map(|channel| requests::subscription(socket_id, &channel));
    channels.chain([room]).collect()
}

#[tokio::test]
async fn a_thousand_clients_that_reconnect_at_once_are_all_back_without_one_refusal() {
    let server = Server::with(&["server.trust_forwarded_headers=true"]).await;
    let mut clients = back(&server).await;
    let siege = siege(&server, async {
        // A proxy in front has restarted: all are gone and all are back.
        drop(std::mem::take(&mut clients));
        back(&server).await
    })
    .await;
    // One more who comes among a thousand is served like them.
    siege.visits.none_failed();
    clients = siege.outcome;
    assert_eq!(server.metric("fanfare_connections_refused_total", "").await, 0);
    assert_eq!(server.metric("fanfare_client_errors_total", "").await, 0);
    assert!(clients.iter().all(|client| !client.is_closed()));
    // The configuration of the test has a short secret.
    let warning = |line: &&str| line.contains("WARN") && !line.contains("fanfare::cli::serve");
    assert_eq!(server.log().lines().find(warning), None);
}

/// All of them, connected and subscribed. They share the address of their office.
async fn back(server: &Server) -> Vec<Attacker> {
    let dial = server.dial().header("X-Forwarded-For", "203.0.113.9");
    let mut coming = JoinSet::new();
    for client in 0..CLIENTS {
        let (dial, addr) = (dial.clone(), server.addr);
        coming.spawn(async move {
            let mut attacker =
                Attacker::connect(&dial, addr).await.unwrap_or_else(|refusal| panic!("refused: {refusal}"));
            for message in subscriptions(client, &attacker.socket_id.clone()) {
                attacker.message(&message).await.unwrap();
            }
            attacker
        });
    }
    let clients = coming.join_all().await;
    let complete = async || match clients.iter().filter(|client| client.answers() >= CHANNELS).count() {
        CLIENTS => Ok(()),
        count => Err(format!("{count} of {CLIENTS}")),
    };
    eventually("all have all their channels", Duration::from_secs(30), complete).await;
    clients
}
