//! The steps of a message's life, each by itself and without sockets: `make bench-micro`.
//!
//! What they cost together, and beside the kernel's work, is what `ratios.rs` measures. These say where to look.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::apps::App;
use fanfare::auth::{self, SignedQuery};
use fanfare::channels::{Channels, Life, Subscriber};
use fanfare::config::AppConfig;
use fanfare::outbox::Outbox;
use fanfare::protocol::{ChannelName, ClientMessage, EventData, Member, ServerEvent, SocketId, UserId};
use fanfare::shutdown::Shutdown;
use prometheus_client::metrics::counter::Counter;

const KEY: &str = "app-key";
const SECRET: &str = "app-secret";
/// Subscribers of the channel that others come to and leave.
const SUBSCRIBERS: usize = 10_000;
/// Subscribers of the channel that is published to: few enough to be served in one turn.
const LISTENERS: usize = 100;

fn app() -> App {
    App::new(AppConfig::new("1001", KEY, SECRET))
}

/// A text of this many bytes that looks like an application's data.
fn data(bytes: usize) -> String {
    let text = "x".repeat(bytes.saturating_sub(r#"{"text":""}"#.len()));
    format!(r#"{{"text":"{text}"}}"#)
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse a client message");
    let messages = [
        ("subscribe, public", r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"room"}}"#.to_owned()),
        (
            "subscribe, presence",
            format!(
                r#"{{"event":"pusher:subscribe","data":{{"auth":"{KEY}:{}","channel_data":"{{\"user_id\":\"7\",\"user_info\":{{\"name\":\"A\"}}}}","channel":"presence-room"}}}}"#,
                "0".repeat(64)
            ),
        ),
        ("client event, 100 B", format!(r#"{{"event":"client-a","channel":"private-room","data":{}}}"#, data(100))),
        ("ping", r#"{"event":"pusher:ping","data":{}}"#.to_owned()),
    ];
    for (name, text) in &messages {
        group.bench_function(*name, |b| b.iter(|| ClientMessage::parse(black_box(text))));
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode a server event");
    for bytes in [100, 1024, 10_240] {
        let text = EventData::from_text(&data(bytes));
        let event = ServerEvent::Channel { event: "my-event", channel: "room", data: &text, user_id: None };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("event, {bytes} B"), |b| b.iter(|| black_box(&event).encode()));
    }
    let text = data(1024);
    group.bench_function("its data, escaped, 1024 B", |b| b.iter(|| EventData::from_text(black_box(&text))));
    group.finish();
    let member = Member { user_id: UserId::new("7"), user_info: r#"{"name":"A"}"#.into() };
    let event = ServerEvent::MemberAdded { channel: "presence-room", member: &member };
    c.bench_function("encode a server event/member added", |b| b.iter(|| black_box(&event).encode()));
}

fn verify(c: &mut Criterion) {
    let app = app();
    let mut group = c.benchmark_group("verify");
    let now = SystemTime::now();
    for bytes in [100, 1024, 10_240] {
        let body = format!(r#"{{"name":"e","channel":"room","data":{:?}}}"#, data(bytes));
        let query = auth::sign_request(KEY, SECRET, "POST", "/apps/1001/events", &[], body.as_bytes(), now);
        group.bench_function(format!("request, {bytes} B"), |b| {
            b.iter(|| {
                let query = SignedQuery::parse(black_box(&query));
                let query = query.verify(&app, "POST", "/apps/1001/events", now).expect("it is signed");
                auth::verify_body(&query, body.as_bytes()).expect("it is signed");
                query
            });
        });
        group.bench_function(format!("its body's MD5 alone, {bytes} B"), |b| {
            b.iter(|| auth::md5_hex(black_box(body.as_bytes())));
        });
    }
    let socket_id = SocketId::random();
    let text = auth::channel_text(socket_id, "private-room", None);
    let token = format!("{KEY}:{}", auth::sign(SECRET, &text));
    group.bench_function("channel token", |b| {
        b.iter(|| {
            let text = auth::channel_text(black_box(socket_id), "private-room", None);
            auth::verify_token(&app, &token, text).expect("it is signed");
        });
    });
}

/// A channel with so many subscribers, and their outboxes.
fn channel(name: &ChannelName, subscribers: usize) -> (Channels, Vec<Arc<Outbox>>) {
    let channels = Channels::new(app().config(), None, Counter::default(), Shutdown::default());
    let outboxes = (0..subscribers).map(|_| subscribe(&channels, name, SocketId::random()));
    let outboxes = outboxes.collect();
    (channels, outboxes)
}

fn subscribe(channels: &Channels, name: &ChannelName, socket_id: SocketId) -> Arc<Outbox> {
    let outbox = Arc::new(Outbox::new(1024 * 1024));
    let subscriber = Subscriber { socket_id, outbox: Arc::clone(&outbox), member: None };
    channels.subscribe(name, subscriber, Life::default(), Instant::now()).expect("a public channel has no limit");
    outbox
}

fn registry(c: &mut Criterion) {
    let name = ChannelName::parse("room", 164).expect("a valid name");
    let (channels, _) = channel(&name, SUBSCRIBERS);
    c.bench_function("registry/subscribe and unsubscribe among 10,000", |b| {
        b.iter(|| {
            let socket_id = SocketId::random();
            subscribe(&channels, &name, socket_id);
            channels.unsubscribe(&name, socket_id, Instant::now())
        });
    });
    let text = EventData::from_text(&data(100));
    let frame = ServerEvent::Channel { event: "e", channel: "room", data: &text, user_id: None }.encode();
    let mut group = c.benchmark_group("registry");
    let (channels, outboxes) = channel(&name, LISTENERS);
    group.throughput(Throughput::Elements(LISTENERS as u64));
    group.bench_function("deliver to 100 outboxes", |b| {
        let empty = || outboxes.iter().for_each(|outbox| drop(outbox.take()));
        b.iter_batched(empty, |()| channels.deliver(&name, frame.clone(), None), BatchSize::PerIteration);
    });
}

criterion_group!(benches, parse, encode, verify, registry);
criterion_main!(benches);
