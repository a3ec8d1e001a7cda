//! Protocol §7.4: how the client of a session receives, in one response after the other, and when it is gone.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::select;

use crate::support::{LIMIT, Message, Packet, TestServer};

const SECOND: Duration = Duration::from_secs(1);
const ROOM: &str = "presence-room";
const ADDED: &str = "pusher_internal:member_added";
const REMOVED: &str = "pusher_internal:member_removed";

async fn with_grace(grace: Duration) -> TestServer {
    TestServer::with(|config| config.fallbacks.grace = grace).await
}

/// What the events in some lines say.
fn texts(lines: &str) -> Vec<String> {
    Packet::messages(lines).iter().map(|message| message.text().to_owned()).collect()
}

#[tokio::test]
async fn an_open_session_is_never_opened_again() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut first = session.open_stream().await;
    // As a stream, as a poll, and as a stream again.
    let mut second = session.stream().await;
    first.expect_end().await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    second.expect_message("pusher:pong").await;
    drop(second);
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    let pong = Packet::messages(&session.poll().await.body);
    assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
    let mut third = session.stream().await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    third.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn what_has_come_since_the_last_poll_comes_in_one_array() {
    let server = TestServer::start().await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    // Who hears of the last event is on the same node.
    let mut other = server.connect().await;
    other.subscribe("room").await;
    for n in 0..5 {
        api.trigger("room", "tick", &n.to_string()).await;
        other.expect_event("room", "tick", &n.to_string()).await;
    }
    let response = client.session.poll().await;
    assert_eq!(response.body.lines().count(), 1, "{}", response.body);
    assert_eq!(texts(&response.body), ["0", "1", "2", "3", "4"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_poll_is_held_until_something_comes() {
    let server = TestServer::start().await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    for n in 0..5 {
        let mut poll = client.session.begin_poll().await;
        // Answered by the same server, and later.
        client.session.send(&[]).await;
        api.trigger("room", "tick", &n.to_string()).await;
        let packets = Packet::messages(&poll.response().await.body);
        assert!(matches!(&packets[..], [one] if one.text() == n.to_string()), "{packets:?}");
    }
}

#[tokio::test]
async fn a_second_stream_ends_the_first_and_nothing_is_lost() {
    let server = TestServer::with_app(|app| app.limits.outbox = 16 * 1024 * 1024).await;
    let session = server.fallback();
    let mut receiving = session.open_stream().await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    receiving.expect_message("pusher_internal:subscription_succeeded").await;
    let mut api = server.api().await;
    const EVENTS: usize = 300;
    let publishing = async {
        for n in 0..EVENTS {
            api.trigger("room", "tick", &n.to_string()).await;
        }
    };
    let mut received = Vec::new();
    let consuming = async {
        while received.len() + 10 < EVENTS {
            for _ in 0..3 {
                received.extend(texts(&receiving.line().await.expect("still open")));
            }
            let mut former = std::mem::replace(&mut receiving, session.stream().await);
            while let Some(line) = former.line().await {
                received.extend(texts(&line));
            }
        }
        while received.len() < EVENTS {
            received.extend(texts(&receiving.line().await.expect("still open")));
        }
    };
    tokio::join!(publishing, consuming);
    assert_eq!(received, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_poll_ends_the_first_quietly() {
    let server = TestServer::start().await;
    let client = server.fallback().connect_polling().await;
    for _ in 0..10 {
        let (mut one, mut two) = (client.session.begin_poll().await, client.session.begin_poll().await);
        // Which of them the server has seen first is for the system to say.
        let (ended, mut held) = select! {
            ended = one.response() => (ended, two),
            ended = two.response() => (ended, one),
        };
        assert_eq!((ended.status, ended.body.as_str()), (200, ""), "{}", ended.head);
        client.send(json!({ "event": "pusher:ping" })).await;
        let pong = Packet::messages(&held.response().await.body);
        assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
    }
}

#[tokio::test]
async fn a_poll_in_the_place_of_a_stream_and_the_other_way_round_lose_nothing() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    for _ in 0..5 {
        let mut poll = session.begin_poll().await;
        stream.expect_end().await;
        session.send(&[json!({ "event": "pusher:ping" })]).await;
        assert_eq!(Packet::messages(&poll.response().await.body).len(), 1);
        stream = session.stream().await;
        session.send(&[json!({ "event": "pusher:ping" })]).await;
        stream.expect_message("pusher:pong").await;
    }
}

#[tokio::test]
async fn a_stream_that_the_client_has_read_enough_of_is_left_alone_and_goes_on_in_the_next() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    let mut other = server.connect().await;
    other.subscribe("room").await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    let mut api = server.api().await;
    // Twice as many bytes as units, and some characters that are two units.
    let padding = "é".repeat(4500) + "€😀\u{2028}\u{fff0}\u{10ffff}";
    let mut events = 0;
    let mut bytes = 0;
    while stream.units <= LIMIT {
        let data = format!("{events} {padding}");
        api.trigger("room", "tick", &data).await;
        let event = stream.expect_message("tick").await;
        assert_eq!(event.text(), data);
        other.expect_event("room", "tick", &data).await;
        events += 1;
        bytes += data.len();
    }
    assert!(bytes > LIMIT + LIMIT / 2, "bytes and units are too much alike: {bytes}");
    for n in 0..5 {
        api.trigger("room", "later", &n.to_string()).await;
        other.expect_event("room", "later", &n.to_string()).await;
    }
    assert!(stream.is_quiet().await, "something came, and be it the end");
    let mut next = session.stream().await;
    stream.expect_end().await;
    assert_eq!(texts(&next.line().await.unwrap()), ["0", "1", "2", "3", "4"]);
    // The next response is counted from its own beginning.
    api.trigger("room", "tick", &padding).await;
    assert_eq!(next.expect_message("tick").await.text(), padding);
}

#[tokio::test]
async fn a_client_that_asks_anew_as_pusher_js_does_gets_everything_once() {
    let server = TestServer::with_app(|app| app.limits.outbox = 64 * 1024 * 1024).await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    const EVENTS: usize = 400;
    let mut api = server.api().await;
    let publishing = async {
        let padding = "é".repeat(4800);
        for n in 0..EVENTS {
            api.trigger("room", "tick", &format!("{n} {padding}")).await;
        }
    };
    let consuming = async {
        let (mut received, mut streams) = (Vec::new(), 1);
        while received.len() < EVENTS {
            let line = stream.line().await.expect("the server never ends a stream");
            let number = |message: &Message| message.text().split(' ').next().unwrap().to_owned();
            received.extend(Packet::messages(&line).iter().map(number));
            if stream.units > LIMIT {
                // The connection may go before or after the next request comes.
                if streams % 2 == 0 {
                    drop(std::mem::replace(&mut stream, session.stream().await));
                } else {
                    drop(stream);
                    stream = session.stream().await;
                }
                streams += 1;
            }
        }
        assert_eq!(received, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(streams > 3, "only {streams} streams");
    };
    tokio::join!(publishing, consuming);
}

#[tokio::test]
async fn a_client_that_stays_away_is_gone_after_the_grace_time_and_not_before() {
    let server = with_grace(2 * SECOND).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut away = server.fallback().connect_streaming().await;
    away.join(ROOM, "away").await;
    let mut back = server.fallback().connect_streaming().await;
    back.join(ROOM, "back").await;
    let mut here = server.fallback().connect_streaming().await;
    here.join(ROOM, "here").await;
    let mut polling = server.fallback().connect_polling().await;
    polling.join(ROOM, "polling").await;
    for _ in 0..4 {
        ann.expect_on(ROOM, ADDED).await;
    }
    for client in [&mut away, &mut back, &mut here] {
        while client.expect_on(ROOM, ADDED).await.data()["user_id"] != "polling" {}
    }

    // Whoever polls is away from the last answer on.
    let hung_up = Instant::now();
    polling.expect_silence().await;
    back.hang_up();
    away.hang_up();
    back.expect_silence().await;
    for _ in 0..2 {
        let removed = ann.expect_on(ROOM, REMOVED).await;
        assert!(hung_up.elapsed() >= 2 * SECOND, "after {:?}: {}", hung_up.elapsed(), removed.json);
        assert!(["away", "polling"].map(Into::into).contains(&removed.data()["user_id"]), "{}", removed.json);
    }
    ann.expect_silence().await;
    for client in [&mut back, &mut here] {
        client.expect_on(ROOM, REMOVED).await;
        client.expect_on(ROOM, REMOVED).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_stream_that_is_full_still_belongs_to_somebody() {
    let server = with_grace(SECOND).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.fallback().connect_polling().await;
    bob.join(ROOM, "bob").await;
    let mut stream = bob.session.stream().await;
    ann.expect_on(ROOM, ADDED).await;
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    while stream.units <= LIMIT {
        api.trigger(ROOM, "tick", &data).await;
        ann.expect_event(ROOM, "tick", &data).await;
        stream.expect_message("tick").await;
    }
    // One that goes later is gone earlier.
    let mut carl = server.fallback().connect_streaming().await;
    carl.join(ROOM, "carl").await;
    carl.hang_up();
    ann.expect_on(ROOM, ADDED).await;
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "carl" }));
    ann.expect_silence().await;
    let mut next = bob.session.stream().await;
    let waiting: Vec<_> = Packet::messages(&next.line().await.unwrap());
    assert_eq!(waiting.iter().map(Message::event).collect::<Vec<_>>(), [ADDED, REMOVED]);
    stream.expect_end().await;
    drop((stream, next));
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "bob" }));
}

#[tokio::test]
async fn a_client_that_was_given_up_finds_a_new_session() {
    let server = with_grace(SECOND).await;
    let mut ann = server.join(ROOM, "ann").await;
    for streams in [true, false] {
        let session = server.fallback();
        let mut client = match streams {
            true => session.connect_streaming().await,
            false => session.connect_polling().await,
        };
        client.join(ROOM, "bob").await;
        ann.expect_on(ROOM, ADDED).await;
        client.hang_up();
        ann.expect_on(ROOM, REMOVED).await;
        let response = client.session.post(b"[]").await;
        assert_eq!(response.status, 404, "{}", response.head);
        let mut again = match streams {
            true => client.session.clone().connect_streaming().await,
            false => client.session.clone().connect_polling().await,
        };
        assert_ne!(again.socket_id, client.socket_id);
        again.subscribe("private-room").await;
    }
}

#[tokio::test]
async fn a_client_that_never_comes_back_after_its_first_answer_makes_room() {
    let server = TestServer::with(|config| {
        config.fallbacks.grace = SECOND;
        config.apps[0].limits.connections = 1;
    })
    .await;
    server.fallback().connect_polling().await;
    let start = Instant::now();
    loop {
        let packets = server.fallback().poll_packets().await;
        if !packets.iter().any(|packet| matches!(packet, Packet::Close(..))) {
            assert!(start.elapsed() > SECOND / 2, "gone after {:?}", start.elapsed());
            return;
        }
        assert!(matches!(packets[1], Packet::Close(4004, _)), "{packets:?}");
        assert!(start.elapsed() < crate::support::DEADLINE, "there is no room yet");
    }
}
