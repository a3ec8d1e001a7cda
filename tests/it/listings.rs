//! Lists of very many channels, and what they cost everybody else.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

use crate::support::{Call, Client, DEADLINE, Opcode, TestServer, Wire, masked};

/// A list of this many takes a while, also on a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// Subscriptions that one write asks for.
const BATCH: usize = 500;

async fn server(listings: usize) -> TestServer {
    TestServer::with(|config| {
        config.server.request_timeout = Duration::from_secs(2);
        let limits = &mut config.apps[0].limits;
        limits.channels_per_connection = 0;
        limits.messages_per_second = 0;
        limits.channel_listings = listings;
    })
    .await
}

/// How many channels there are. Two nodes and a Redis need much more time for each.
fn many(alone: usize) -> usize {
    if std::env::var_os("FANFARE_IT_CLUSTER").is_some() { alone / 20 } else { alone }
}

/// A client that is subscribed to all of them. Nothing is parsed: there are too many.
async fn occupy(server: &TestServer, names: &[String]) -> Client {
    let mut client = server.connect().await;
    for names in names.chunks(BATCH) {
        let mut bytes = Vec::new();
        for name in names {
            let message = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"}}}}"#);
            bytes.extend(masked(true, Opcode::Text as u8, message.as_bytes()));
        }
        client.wire.write(&bytes).await;
        for _ in names {
            let frame = timeout(LONG, client.wire.frame()).await.expect("a success").expect("a success");
            let text = String::from_utf8(frame.payload).unwrap();
            assert!(text.contains("subscription_succeeded"), "{text}");
        }
    }
    client
}

/// Asks for the list, and reads the head of the answer.
async fn ask(mut wire: Wire) -> (Wire, String) {
    wire.write(&Call::get("/apps/42/channels").bytes()).await;
    let head = timeout(LONG, wire.head()).await.expect("an answer").expect("an answer");
    (wire, head)
}

async fn read_chunks(wire: &mut Wire) -> String {
    let mut text = Vec::new();
    loop {
        match timeout(LONG, wire.chunk()).await.expect("the list goes on") {
            chunk if chunk.is_empty() => return String::from_utf8(text).unwrap(),
            chunk => text.extend(chunk),
        }
    }
}

// One thread for server and clients: whoever holds it up holds up everybody.
#[tokio::test]
async fn while_a_long_list_is_made_everybody_else_is_served_and_it_has_exactly_what_is_occupied() {
    let server = server(4).await;
    let names: Vec<String> = (0..many(100_000)).map(|number| format!("room-{number}")).collect();
    let mut occupant = occupy(&server, &names).await;
    let (stayed, left) = names.split_at(names.len() - 100);
    for name in left {
        occupant.leave(name).await;
    }
    server.expect_metric("fanfare_channels", stayed.len() as u32).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut fresh = server.connect().await;
    let served = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                fresh.subscribe("cheerful").await;
                fresh.leave("cheerful").await;
                served += 1;
            }
            served
        }
    });
    let (mut wire, head) = ask(server.http().await.wire).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let text = read_chunks(&mut wire).await;
    over.store(true, Ordering::Relaxed);
    let served = served.await.unwrap();
    // Of some 400 slices, each is followed by a turn of everybody else.
    assert!(served > many(100_000) / 10_000, "a fresh client was served {served} times meanwhile");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let listed: HashSet<&str> = answer["channels"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected: HashSet<&str> = stayed.iter().map(String::as_str).collect();
    assert!(
        listed.is_superset(&expected),
        "{} of {} are missing",
        expected.difference(&listed).count(),
        expected.len()
    );
    let others: Vec<&str> = listed.difference(&expected).copied().collect();
    assert!(others.is_empty() || others == ["cheerful"], "{others:?}");
    assert_eq!(text.matches(":{}").count(), listed.len(), "a channel is in the list twice");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_loses_its_place_and_others_hear_why_they_have_to_wait() {
    let server = server(1).await;
    // More than the buffers of the system hold.
    let filling = "x".repeat(140);
    let names: Vec<String> = (0..many(40_000)).map(|number| format!("room-{number}-{filling}")).collect();
    let _occupant = occupy(&server, &names).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let (mut reader, _) = ask(Wire::over(socket.connect(server.addr).await.unwrap())).await;
    let mut api = server.api().await;
    if std::env::var_os("FANFARE_IT_CLUSTER").is_none() {
        let refused = timeout(LONG, api.get("/channels", &[])).await.unwrap();
        assert!(refused.error(429).contains("limits.channel_listings"), "{}", refused.body);
        assert_eq!(refused.header("retry-after"), Some("1"));
        server.expect_metric("fanfare_channel_listings_refused_total", 1).await;
    }
    // Anything else is answered, and short lists as soon as there is a place.
    assert_eq!(api.channel("room", "").await, json!({ "occupied": false }));
    let began = Instant::now();
    loop {
        let answer = api.get("/channels", &[("filter_by_prefix", "nothing")]).await;
        if answer.status == 200 {
            assert_eq!(answer.json(), json!({ "channels": {} }));
            assert!(answer.header("content-length").is_some() && answer.header("connection").is_none());
            break;
        }
        assert!(began.elapsed() < LONG, "the place is not free again");
    }
    if std::env::var_os("FANFARE_IT_CLUSTER").is_none() {
        let rest = timeout(DEADLINE, reader.rest()).await.expect("the end of the connection");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "the list has an end although nobody took it");
    }
}
