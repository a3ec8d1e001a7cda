//! What happens between a node and its Redis, and without Redis.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::it::{APP_ID, Call};
use crate::support::{
    ADDED, Cluster, Cut, Message, Node, PATIENCE, REMOVED, Recorder, Redis, SLACK, SUCCEEDED, Settings, Traffic,
    eventually,
};

const ROOM: &str = "presence-room";
const GAPS: &str = "fanfare_cluster_gaps_total";
const PACE: Duration = Duration::from_millis(20);

/// A member that hears the room as well.
async fn member(node: &Node, user: &str) -> Recorder {
    let mut client = node.join(ROOM, user).await;
    client.subscribe("room").await;
    Recorder::start(client)
}

fn of(event: &'static str, user: &str) -> impl Fn(&Message) -> bool {
    let user = Value::from(user);
    move |message| message.event() == event && message.data()["user_id"] == user
}

fn presence(client: &Recorder) -> Vec<String> {
    let messages = client.messages();
    let own = messages.iter().filter(|message| [ADDED, REMOVED].contains(&message.event()));
    own.map(|message| format!("{} {}", message.event(), message.data()["user_id"])).collect()
}

/// A trigger is refused after the time that nodes wait for Redis.
async fn expect_refusal(node: &Node, timeout: Duration) {
    let body = json!({ "name": "greet", "channel": "refused", "data": "x" });
    let start = Instant::now();
    let response = node.api().await.call(&Call::post(&format!("/apps/{APP_ID}/events"), &body)).await;
    response.error(503);
    assert!(response.header("retry-after").is_some(), "{}", response.head);
    assert!(start.elapsed() < timeout + SLACK, "refused after {:?}", start.elapsed());
}

/// A node that is cut off says so, refuses what needs the others, and keeps its clients.
async fn expect_isolation(node: &Node, timeout: Duration) -> Recorder {
    let reason = node.unready().await;
    assert!(reason.to_lowercase().contains("redis"), "no useful reason: {reason}");
    let answer = node.page("/nodes").await;
    assert!(answer.body.contains("isolated"), "{}", answer.body);
    expect_refusal(node, timeout).await;
    let client = node.connect().await;
    let newcomer = Recorder::start(client);
    newcomer.join(ROOM, "newcomer");
    let refused = |message: &Message| {
        message.event() == "pusher:subscription_error"
            && message.channel() == Some(ROOM)
            && message.data()["status"] == 503
    };
    newcomer.expect("a refusal", timeout + SLACK, |messages| messages.iter().any(refused)).await;
    newcomer.is_connected();
    newcomer
}

#[tokio::test]
async fn a_node_that_was_cut_off_sends_what_its_clients_missed_once_and_in_order() {
    // At the same time: most of it is waiting.
    let mut cases = Vec::new();
    for way in ["cut", "mute", "deafen", "refuse"] {
        // Longer than the lease, so that its members are removed in the meantime, and shorter.
        for lease in [Duration::from_secs(2), Duration::from_secs(10)] {
            cases.push(cut_off(way, lease));
        }
    }
    join_all(cases).await;
}

async fn cut_off(way: &'static str, lease: Duration) {
    println!("{way}, with a lease of {lease:?}");
    let mut cluster = Cluster::with(2, |settings| {
        (settings.lease, settings.timeout) = (lease, Duration::from_secs(1));
    })
    .await;
    let ann = member(&cluster.nodes[0], "ann").await;
    let bob = member(&cluster.nodes[1], "bob").await;
    let gone = member(&cluster.nodes[0], "gone").await;
    bob.expect("gone is there", PATIENCE, |messages| messages.iter().any(of(ADDED, "gone"))).await;
    let traffic = Traffic::start("a", cluster.nodes[0].addr, "room", PACE);
    traffic.flows(20).await;

    let cut = cluster.nodes[1].cut();
    match way {
        "cut" => cut.cut(),
        "mute" => cut.mute(),
        "deafen" => cut.deafen(),
        _ => cut.refuse().await,
    }
    // One who stays, one who is there and gone again, and one who leaves.
    let _new = member(&cluster.nodes[0], "new").await;
    drop(member(&cluster.nodes[0], "short").await);
    drop(gone);
    for user in ["short", "gone"] {
        ann.expect("those who leave", PATIENCE, |messages| messages.iter().any(of(REMOVED, user))).await;
    }
    let refused = expect_isolation(&cluster.nodes[1], cluster.settings.timeout).await;
    // Three seconds at this pace.
    traffic.flows(150).await;
    cluster.nodes[1].cut().heal();
    traffic.flows(20).await;
    cluster.settled().await;
    // It could not know who else is there, so it is asked to come back.
    refused.expect_close(4200, PATIENCE).await;

    let sent = traffic.stop().await;
    assert!(sent.refused.is_empty() && sent.unanswered.is_empty(), "{sent:?}");
    for client in [&ann, &bob] {
        sent.reaches(client, "room").await;
        client.is_connected();
    }
    bob.expect("the new member", PATIENCE, |messages| messages.iter().any(of(ADDED, "new"))).await;
    bob.expect("the member who left", PATIENCE, |messages| messages.iter().any(of(REMOVED, "gone"))).await;
    cluster.nodes[0].api().await.trigger(ROOM, "fence", "").await;
    bob.expect("the fence", PATIENCE, |messages| messages.iter().any(|message| message.event() == "fence")).await;
    let mut heard = presence(&bob);
    // Who came and left in the meantime may have been seen if the node still heard something; then it is both.
    heard.retain(|change| !change.contains("short"));
    heard.sort();
    let mut expected =
        [format!("{ADDED} \"gone\""), format!("{ADDED} \"new\""), format!("{REMOVED} \"gone\"")].to_vec();
    expected.sort();
    assert_eq!(heard, expected);
    let short = presence(&bob).into_iter().filter(|change| change.contains("short")).count();
    assert!(short == 0 || short == 2, "{:?}", presence(&bob));
    assert!(cluster.nodes[1].metric(GAPS).await.abs() < f64::EPSILON, "events may be lost that were replayed");
}

#[tokio::test]
async fn without_redis_triggers_are_refused_and_nothing_is_lost_in_silence() {
    for with_data in [true, false] {
        println!("with data: {with_data}");
        let mut cluster = Cluster::with(2, |settings| {
            (settings.lease, settings.timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        })
        .await;
        let clients = [member(&cluster.nodes[0], "ann").await, member(&cluster.nodes[1], "bob").await];
        clients[0].expect("bob", PATIENCE, |messages| messages.iter().any(of(ADDED, "bob"))).await;
        let start = |node: &Node| Traffic::start(&node.name, node.addr, "room", PACE);
        let traffic: Vec<_> = cluster.nodes.iter().map(start).collect();
        for traffic in &traffic {
            traffic.flows(50).await;
        }
        if with_data {
            assert_eq!(cluster.redis.cli(&["SAVE"]), "OK");
        }
        cluster.redis.stop();
        let stopped = Instant::now();
        for node in &cluster.nodes {
            expect_isolation(node, cluster.settings.timeout).await;
        }
        while stopped.elapsed() < Duration::from_secs(5) {
            traffic[0].flows(1).await;
        }
        cluster.redis.come_back();
        cluster.settled().await;
        for traffic in &traffic {
            traffic.flows(50).await;
        }
        let mut missing = 0;
        let mut all = Vec::new();
        for traffic in traffic {
            let sent = traffic.stop().await;
            assert!(sent.unanswered.is_empty() && !sent.refused.is_empty(), "{sent:?}");
            // The last ones came when all was well again.
            let last = sent.taken.last().unwrap().clone();
            for client in &clients {
                let is_last = |message: &Message| message.event() == "tick" && message.text() == last;
                client.expect("the last event", PATIENCE, |messages| messages.iter().any(is_last)).await;
            }
            all.push(sent);
        }
        for client in &clients {
            client.settle().await;
            client.is_connected();
            missing += all.iter().map(|sent| sent.missing(client, "room")).sum::<usize>();
        }
        let mut gaps = 0.0;
        for node in &cluster.nodes {
            gaps += node.metric(GAPS).await;
        }
        assert!(missing == 0 || gaps > 0.0, "{missing} events were taken and are lost, and no metric tells");
        // Nobody has come or gone.
        assert_eq!(presence(&clients[0]), [format!("{ADDED} \"bob\"")]);
        assert_eq!(presence(&clients[1]), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_like_none() {
    let cluster = Cluster::with(2, |settings| settings.timeout = Duration::from_secs(1)).await;
    let (a, b) = cluster.pair();
    let (ann, bob) = (member(a, "ann").await, member(b, "bob").await);
    cluster.redis.freeze();
    let mut refused = Vec::new();
    for node in [a, b] {
        refused.push(expect_isolation(node, cluster.settings.timeout).await);
    }
    cluster.redis.thaw();
    cluster.settled().await;
    for client in refused {
        client.expect_close(4200, PATIENCE).await;
    }
    b.api().await.trigger("room", "greet", "again").await;
    for client in [&ann, &bob] {
        client.expect("an event", PATIENCE, |messages| messages.iter().any(|m| m.event() == "greet")).await;
        client.is_connected();
    }
}

#[tokio::test]
async fn a_redis_without_its_data_gets_it_from_the_nodes() {
    let mut cluster = Cluster::start(2).await;
    let clients = [member(&cluster.nodes[0], "ann").await, member(&cluster.nodes[1], "bob").await];
    clients[0].expect("bob", PATIENCE, |messages| messages.iter().any(of(ADDED, "bob"))).await;
    for _ in 0..2 {
        cluster.redis.restart_empty();
        cluster.settled().await;
        for node in &cluster.nodes {
            let channel = format!("/channels/{ROOM}");
            crate::support::eventually("both are members", PATIENCE, async || {
                let info = [("info", "user_count,subscription_count")];
                let response = node.api().await.get(&channel, &info).await;
                let expected = json!({ "occupied": true, "user_count": 2, "subscription_count": 2 });
                if response.status == 200 && response.json() == expected { Ok(()) } else { Err(response.body) }
            })
            .await;
        }
        let mut carl = cluster.nodes[0].connect().await;
        assert_eq!(carl.join(ROOM, "carl").await.members(), ["ann", "bob", "carl"]);
        carl.leave(ROOM).await;
    }
    clients[1]
        .expect("carl", PATIENCE, |messages| {
            messages.iter().filter(|message| of(REMOVED, "carl")(message)).count() == 2
        })
        .await;
    let (came, left) = (format!("{ADDED} \"carl\""), format!("{REMOVED} \"carl\""));
    let carl = [came.as_str(), &left, &came, &left];
    assert_eq!(presence(&clients[1]), carl);
}

#[tokio::test]
async fn an_event_that_cannot_be_replayed_is_a_gap_and_its_clients_reconnect_if_that_is_wanted() {
    for reconnect in [false, true] {
        let mut cluster = Cluster::with(2, |settings| {
            let on_gap = if reconnect { "reconnect" } else { "log" };
            settings.cluster = format!("replay = \"0s\"\non_gap = \"{on_gap}\"\n");
        })
        .await;
        let (ann, bob) = (cluster.nodes[0].record("room").await, cluster.nodes[1].record("room").await);
        let elsewhere = cluster.nodes[1].record("quiet-room").await;
        let cut = cluster.nodes[1].cut();
        cut.cut();
        cluster.nodes[0].api().await.trigger("room", "greet", "missed").await;
        ann.expect("the event", PATIENCE, |messages| messages.iter().any(|message| message.event() == "greet")).await;
        cluster.nodes[1].unready().await;
        cluster.nodes[1].cut().heal();
        cluster.settled().await;
        assert_eq!(cluster.nodes[1].metric(GAPS).await, 1.0);
        assert_eq!(cluster.nodes[0].metric(GAPS).await, 0.0);
        if reconnect {
            bob.expect_close(4200, PATIENCE).await;
        } else {
            cluster.nodes[0].api().await.trigger("room", "greet", "heard").await;
            bob.expect("the next event", PATIENCE, |messages| !messages.is_empty()).await;
            assert_eq!(bob.data("room"), ["heard"]);
        }
        // Where nothing was said, nothing is missing.
        elsewhere.is_connected();
    }
}

#[tokio::test]
async fn a_node_starts_without_redis_and_is_ready_when_it_comes() {
    let mut redis = Redis::absent();
    let settings = Settings { timeout: Duration::from_millis(500), ..Settings::default() };
    let a = Node::start_behind(Cut::before(redis.addr()), "a", &settings).await;
    let b = Node::start("b", &[redis.url()], &settings).await;
    for node in [&a, &b] {
        assert_eq!(node.page("/live").await.status, 200);
        expect_isolation(node, settings.timeout).await;
    }
    redis.come_back();
    for node in [&a, &b] {
        node.ready().await;
        node.sees(&["a", "b"]).await;
    }
    let ann = member(&a, "ann").await;
    let mut bob = b.connect().await;
    let success = bob.join(ROOM, "bob").await;
    assert_eq!((success.event(), success.members()), (SUCCEEDED, vec!["ann".to_owned(), "bob".to_owned()]));
    ann.expect("bob", PATIENCE, |messages| messages.iter().any(of(ADDED, "bob"))).await;
}

#[tokio::test]
async fn a_connection_that_is_closed_is_made_again_and_nothing_is_lost() {
    let mut cluster = Cluster::start(2).await;
    let clients = [member(&cluster.nodes[0], "ann").await, member(&cluster.nodes[1], "bob").await];
    let traffic = Traffic::start("a", cluster.nodes[0].addr, "room", PACE);
    for _ in 0..5 {
        traffic.flows(10).await;
        cluster.nodes[1].cut().sever().await;
    }
    traffic.flows(10).await;
    cluster.settled().await;
    let sent = traffic.stop().await;
    for client in &clients {
        sent.reaches(client, "room").await;
        client.is_connected();
    }
    assert_eq!(presence(&clients[1]), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_event_that_is_on_its_way_when_redis_dies_is_counted() {
    // Redis may be silent for half a lease before it counts as lost.
    let mut cluster = Cluster::with(1, |settings| settings.lease = Duration::from_secs(60)).await;
    let mut client = cluster.nodes[0].connect().await;
    client.subscribe_private("private-room").await;
    cluster.redis.freeze();
    client.send_event("private-room", "client-typing", json!("x")).await;
    // It was taken when the pong comes.
    client.expect_silence().await;
    cluster.redis.stop();
    eventually("the event is counted", PATIENCE, async || {
        let count = cluster.nodes[0].metric("fanfare_cluster_events_expired_total").await;
        if (count - 1.0).abs() < f64::EPSILON { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}
