//! A channel among others, without a Redis.

use prometheus_client::metrics::counter::Counter;

use crate::channels::Channels;
use crate::config::AppConfig;
use crate::shutdown::Shutdown;

use super::*;

const LIFE: Life = Life { number: 1, fresh: false };
const PATIENCE: Duration = Duration::from_secs(3);

struct Shared {
    channels: Channels,
    name: ChannelName,
    now: Instant,
}

struct Client {
    socket_id: SocketId,
    outbox: Arc<Outbox>,
}

impl Client {
    /// The events that have arrived, in short.
    fn heard(&self) -> Vec<String> {
        let short = |frame: &Frame| {
            let event: serde_json::Value = serde_json::from_slice(frame.payload()).unwrap();
            format!("{} {}", event["event"].as_str().unwrap(), event["data"].as_str().unwrap_or_default())
        };
        self.outbox.take().iter().map(short).collect()
    }
}

impl Shared {
    fn new(change: impl FnOnce(&mut AppConfig)) -> Self {
        let mut config = AppConfig::new("42", "key", "secret");
        change(&mut config);
        let name = ChannelName::parse("presence-room", 200).unwrap();
        Self {
            channels: Channels::new(&config, Some(PATIENCE), Counter::default(), Shutdown::default()),
            name,
            now: Instant::now(),
        }
    }

    fn join(&self, id: &str) -> Client {
        let (socket_id, outbox) = (SocketId::random(), Arc::new(Outbox::new(10_000)));
        let member = Some(member(id));
        let subscriber = Subscriber { socket_id, outbox: Arc::clone(&outbox), member };
        self.channels.subscribe(&self.name, subscriber, LIFE, self.now).unwrap();
        Client { socket_id, outbox }
    }

    fn tell(&self) -> Contribution {
        self.channels.contribute(&self.name, LIFE).unwrap()
    }

    fn answer(&self, contribution: &Contribution, seq: u64, members: &[&str], refused: &[&str]) -> Outcome {
        let everything = contribution.everything.map(|_| Everything {
            gap: false,
            members: members.iter().map(|id| member(id)).collect(),
            online: false,
            cached: None,
            missed: Vec::new(),
        });
        let refused = refused.iter().map(|id| UserId::new(id)).collect();
        let answer = Answer { position: at(seq), connections: 1, refused, everything };
        self.channels.settle(&self.name, LIFE, contribution, answer, self.now)
    }

    fn hear(&self, seq: u64, news: News) -> Outcome {
        self.channels.hear(self.name.as_str(), LIFE, at(seq), news, self.now)
    }
}

fn at(seq: u64) -> Position {
    Position { stream: 9, seq, ms: seq }
}

fn member(id: &str) -> Member {
    Member { user_id: UserId::new(id), user_info: "1".into() }
}

fn list(ids: &[&str]) -> String {
    let names: Vec<_> = ids.iter().map(|id| format!("{id:?}")).collect();
    let infos: Vec<_> = names.iter().map(|name| format!("{name}:1")).collect();
    let (count, names, infos) = (ids.len(), names.join(","), infos.join(","));
    let presence = format!(r#"{{"presence":{{"count":{count},"ids":[{names}],"hash":{{{infos}}}}}}}"#);
    format!("pusher_internal:subscription_succeeded {presence}")
}

#[test]
fn a_newcomer_is_shown_the_members_at_its_own_place_in_the_news() {
    let shared = Shared::new(|_| {});
    let ann = shared.join("ann");
    let first = shared.tell();
    assert!(ann.heard().is_empty(), "nothing is known yet");
    shared.answer(&first, 1, &["ann", "zoe"], &[]);
    assert_eq!(ann.heard(), [list(&["ann", "zoe"])]);

    let bob = shared.join("bob");
    let second = shared.tell();
    assert_eq!(second.joined, [member("bob")]);
    // The answer is faster than the news, in which somebody goes before bob comes.
    shared.answer(&second, 3, &[], &[]);
    assert!(bob.heard().is_empty());
    shared.hear(2, News::Removed(UserId::new("zoe")));
    assert!(bob.heard().is_empty());
    shared.hear(3, News::Added(member("bob")));
    assert_eq!(bob.heard(), [list(&["ann", "bob"])]);
    assert_eq!(ann.heard().len(), 2, "one went, one came");
}

#[test]
fn what_others_believe_of_members_here_does_not_reach_them() {
    let shared = Shared::new(|_| {});
    let ann = shared.join("ann");
    shared.answer(&shared.tell(), 1, &["ann"], &[]);
    ann.heard();
    // This node was taken for dead.
    shared.hear(2, News::Removed(UserId::new("ann")));
    shared.hear(3, News::Added(member("bob")));
    let heard = ann.heard();
    assert!(heard.len() == 1 && heard[0].starts_with("pusher_internal:member_added"), "{heard:?}");
}

#[test]
fn who_finds_the_channel_full_or_the_cluster_silent_hears_why_and_is_forgotten() {
    let shared = Shared::new(|_| {});
    let ann = shared.join("ann");
    let outcome = shared.answer(&shared.tell(), 1, &["bob"], &["ann"]);
    assert!(outcome.again, "it is counted still");
    assert!(ann.heard().iter().any(|event| event.contains("LimitReached")));
    assert!(!shared.channels.is_subscribed(&shared.name, ann.socket_id));
    assert!(shared.answer(&shared.tell(), 1, &[], &[]).over);

    let cat = shared.join("cat");
    assert_eq!(shared.channels.tick(shared.now + PATIENCE / 2, |_| true).unconfirmed, 0);
    let due = shared.channels.tick(shared.now + PATIENCE, |_| true);
    assert!(due.touched.is_empty(), "it waits to be told since cat came");
    assert_eq!((due.unconfirmed, due.cut_off), (1, 0));
    assert!(cat.heard().iter().any(|event| event.contains("503")));
    assert_eq!(shared.channels.rescue(), 1);
    assert_eq!(shared.channels.rescue(), 0);
}

#[test]
fn the_differences_are_told_after_what_was_missed() {
    let shared = Shared::new(|_| {});
    let ann = shared.join("ann");
    shared.answer(&shared.tell(), 1, &["ann", "bob"], &[]);
    ann.heard();
    assert!(shared.hear(7, News::Count(1)).again, "something is missing");
    let asked = shared.tell();
    assert_eq!(asked.everything, Some(Some(at(1))));
    let said = News::Event { frame: Frame::from_text(br#"{"event":"x","data":"y"}"#), except: None, cached: false };
    let everything = Everything {
        gap: true,
        members: vec![member("ann"), member("cat")],
        online: false,
        cached: None,
        missed: vec![said, News::Removed(UserId::new("bob"))],
    };
    let answer = Answer { position: at(8), connections: 1, refused: Vec::new(), everything: Some(everything) };
    assert!(shared.channels.settle(&shared.name, LIFE, &asked, answer, shared.now).gap);
    let events: Vec<_> = ann.heard().iter().map(|event| event.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(events, ["x", "pusher_internal:member_removed", "pusher_internal:member_added"]);
}
