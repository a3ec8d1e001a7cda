//! The scripts at Redis, called one by one, as nodes call them: what takes an unlucky moment otherwise, and bounds that
//! would take long to reach.

use serde_json::{Value, json};

use crate::support::Redis;

const PREFIX: &str = "fanfare:{test:0}:";
const COMMON: &str = include_str!("../../src/cluster/scripts/common.lua");
const BEAT: &str = include_str!("../../src/cluster/scripts/beat.lua");
const PUBLISH: &str = include_str!("../../src/cluster/scripts/publish.lua");
const SYNC: &str = include_str!("../../src/cluster/scripts/sync.lua");
const DUTY: &str = include_str!("../../src/cluster/scripts/duty.lua");

/// An app with subscription counts.
const COUNTING: u32 = 9;

/// A node that is on duty.
struct Node {
    redis: Redis,
    connection: redis::Connection,
    /// Constants of the scripts, and what they are instead.
    constants: Vec<(&'static str, u32)>,
    /// What was lost by the last answer.
    counted: Lost,
}

/// How many edges each queue has lost.
type Lost = Vec<(String, u64)>;

/// Queues and their edges, of which tests see the channels.
type Edges = Vec<(String, Vec<String>)>;

/// Id, seq and ms of a stream.
type Position = [String; 3];

/// Whether events are missing, members, whether the user is online, cached event and its time left, events since.
type Everything = (u32, Vec<String>, u32, String, i64, Vec<String>);

impl Node {
    /// One with the apps `1` to `9`.
    fn start(webhook_delay: u32, constants: &[(&'static str, u32)]) -> Self {
        let redis = Redis::start();
        let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        let mut node = Self { redis, connection, constants: constants.to_vec(), counted: Lost::new() };
        let rules = |app: u32| {
            json!({
                "webhooks": true, "webhook_delay": webhook_delay, "offline_delay": 0,
                "counts": app == COUNTING, "count_threshold": 1000, "count_interval": 1000,
            })
        };
        let rules: Value = (1..10).map(|app| (app.to_string(), rules(app))).collect();
        node.call::<redis::Value>(BEAT, &["60000", "0", "0", "{}", "1", &rules.to_string()]);
        node
    }

    fn call<T: redis::FromRedisValue>(&mut self, script: &str, args: &[&str]) -> T {
        let mut source = format!("{COMMON}{script}");
        for (name, value) in &self.constants {
            let (before, line) = source.split_once(&format!("local {name} = ")).unwrap_or((&source, ""));
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            if !line.is_empty() {
                source = format!("{before}local {name} = {value}{rest}");
            }
        }
        let mut call = redis::cmd("EVAL");
        call.arg(source).arg(1).arg(PREFIX).arg(&["run", "node#1", "30000", "1000"]).arg(args);
        call.query(&mut self.connection).unwrap()
    }

    /// Tells the number of connections that are subscribed to a channel.
    fn subscribed(&mut self, app: u32, channel: &str, connections: u32) {
        self.subscribed_by("", app, channel, connections);
    }

    fn subscribed_by(&mut self, source: &str, app: u32, channel: &str, connections: u32) {
        let topic = format!("c:{app}:{channel}");
        let connections = connections.to_string();
        let args = [&topic, &connections, "0", "0", "0", "0", "", "", "", source, "0", "0", "0"];
        self.call::<redis::Value>(SYNC, &args);
    }

    /// Channels from `first` to `last` become occupied.
    fn occupy(&mut self, app: u32, first: u32, last: u32) {
        for channel in first..=last {
            self.subscribed(app, &channel.to_string(), 1);
        }
    }

    /// Crosses off so many edges of these queues, and reads the next ones. A node that has told nothing has just come on duty,
    /// and knows nothing of the last answer.
    fn duty(&mut self, told: &[(&str, i32)]) -> (Lost, Edges) {
        let counted = if told.is_empty() { Lost::new() } else { std::mem::take(&mut self.counted) };
        let mut args = vec![counted.len().to_string()];
        args.extend(counted.iter().flat_map(|(queue, edges)| [queue.clone(), edges.to_string()]));
        args.extend(told.iter().flat_map(|(queue, edges)| [(*queue).to_owned(), edges.to_string()]));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (_, lost, queues): (String, Lost, Edges) = self.call(DUTY, &args);
        self.counted.clone_from(&lost);
        let channel = |edge: String| {
            let [_, topic, _, source]: [String; 4] = serde_json::from_str(&edge).unwrap();
            topic.rsplit(':').next().unwrap().to_owned() + &source
        };
        let queues = queues.into_iter().map(|(queue, edges)| (queue, edges.into_iter().map(channel).collect()));
        (lost, queues.collect())
    }

    /// Whatever is planned becomes due.
    fn a_minute_later(&self) {
        let script = "local generation = KEYS[1] .. redis.call('HGET', KEYS[1] .. 'meta', 'gen') .. ':' \
            for _, queue in ipairs(redis.call('ZRANGE', generation .. 'first_due', 0, -1)) do \
              for _, chore in ipairs(redis.call('ZRANGE', generation .. 'due:' .. queue, 0, -1)) do \
                redis.call('ZADD', generation .. 'due:' .. queue, 0, chore) \
              end \
              redis.call('ZADD', generation .. 'first_due', 0, queue) \
            end";
        self.redis.cli(&["EVAL", script, "1", PREFIX]);
    }

    /// Another node has the duty, and comes back to this one.
    fn change_duty(&mut self) {
        let script = "return redis.call('DEL', KEYS[1] .. redis.call('HGET', KEYS[1] .. 'meta', 'gen') .. ':duty')";
        self.redis.cli(&["EVAL", script, "1", PREFIX]);
        self.call::<redis::Value>(BEAT, &["60000", "0", "0", "{}", "0", "{}"]);
    }

    /// It goes, and comes back after that time.
    fn go_and_begin(&mut self, restart_grace: &str) {
        let script = "return redis.call('DEL', KEYS[1] .. redis.call('HGET', KEYS[1] .. 'meta', 'gen') .. ':nodes')";
        self.redis.cli(&["EVAL", script, "1", PREFIX]);
        self.call::<redis::Value>(BEAT, &["60000", "0", restart_grace, "{}", "1", "{}"]);
    }

    /// Publishes an event on a channel of the app with counts.
    fn publish(&mut self, channel: &str, body: &str) {
        self.call::<redis::Value>(PUBLISH, &["0", &format!("c:{COUNTING}:{channel}"), body, "", ""]);
    }

    /// Begins to listen to a channel of that app with so many connections, or goes on from a position: id, seq and ms of
    /// its stream. Returns the position, whether events are missing, and the events since.
    fn listen(&mut self, channel: &str, connections: u32, from: &Position) -> (Position, bool, Vec<String>) {
        let (topic, connections) = (format!("c:{COUNTING}:{channel}"), connections.to_string());
        let [id, seq, ms] = from.each_ref().map(String::as_str);
        let args = [&topic, &connections, "1", "0", "0", "0", id, seq, ms, "", "0", "0", "0"];
        let answer: (String, String, String, String, u32, Vec<String>, Everything) = self.call(SYNC, &args);
        let (_, id, seq, ms, _, _, (missing, _, _, _, _, since)) = answer;
        ([id, seq, ms], missing == 1, since)
    }

    /// Whether there is a key with this in its name.
    fn has_key(&self, part: &str) -> bool {
        !self.redis.cli(&["KEYS", &format!("*:{part}*")]).is_empty()
    }
}

fn lost(queues: &[(&str, u64)]) -> Lost {
    queues.iter().map(|(queue, edges)| ((*queue).to_owned(), *edges)).collect()
}

fn edges(queues: &[(&str, &[&str])]) -> Edges {
    let owned = |edges: &[&str]| edges.iter().map(|&edge| edge.to_owned()).collect();
    queues.iter().map(|(queue, edges)| ((*queue).to_owned(), owned(edges))).collect()
}

#[test]
fn edges_dropped_while_they_are_told_are_not_lost_and_no_others_are_crossed_off_for_them() {
    let mut node = Node::start(0, &[("EDGES", 5), ("LEAST", 5)]);
    node.occupy(1, 1, 5);
    assert_eq!(node.duty(&[]), (lost(&[]), edges(&[("open:1", &["1", "2", "3", "4", "5"])])));
    // The list is full: 1 and 2 go.
    node.occupy(1, 6, 7);
    assert_eq!(node.duty(&[("open:1", 5)]), (lost(&[]), edges(&[("open:1", &["6", "7"])])));
    // Those two go, and 8 and 9, which nobody has read.
    node.occupy(1, 8, 14);
    let rest: &[&str] = &["10", "11", "12", "13", "14"];
    assert_eq!(node.duty(&[("open:1", 2)]), (lost(&[("open:1", 2)]), edges(&[("open:1", rest)])));
    // The next one on duty does not know what was told: 10 may have been, but not for certain. Nor whether the others were
    // counted.
    node.occupy(1, 15, 15);
    let rest: &[&str] = &["11", "12", "13", "14", "15"];
    assert_eq!(node.duty(&[]), (lost(&[("open:1", 3)]), edges(&[("open:1", rest)])));
    assert_eq!(node.duty(&[("open:1", 5)]), (lost(&[]), edges(&[])));
    for key in ["edges", "turns", "dropped"] {
        assert!(!node.has_key(key), "{key} is left");
    }
}

#[test]
fn a_full_queue_drops_nothing_of_another_class_or_app() {
    // For nine apps.
    let mut node = Node::start(0, &[("EDGES", 9 * 5 + 8), ("LEAST", 1)]);
    node.subscribed(1, "private-a", 1);
    node.subscribed(2, "b", 1);
    node.occupy(1, 1, 50);
    let flood: &[&str] = &["46", "47", "48", "49", "50"];
    let expected = edges(&[("trusted:1", &["private-a"]), ("open:2", &["b"]), ("open:1", flood)]);
    assert_eq!(node.duty(&[]), (lost(&[("open:1", 45)]), expected));
}

#[test]
fn queues_are_told_in_turn() {
    let mut node = Node::start(0, &[("ROUND", 4)]);
    node.occupy(1, 1, 9);
    assert_eq!(node.duty(&[]).1, edges(&[("open:1", &["1", "2", "3", "4"])]));
    for app in 2..=6 {
        node.occupy(app, 1, 1);
    }
    let one: &[&str] = &["1"];
    let first = [("open:2", one), ("open:3", one), ("open:4", one), ("open:5", one)];
    assert_eq!(node.duty(&[("open:1", 4)]).1, edges(&first));
    node.occupy(2, 2, 3);
    let told = [("open:2", 1), ("open:3", 1), ("open:4", 1), ("open:5", 1)];
    // What the others do not need is left to the last one.
    assert_eq!(node.duty(&told).1, edges(&[("open:6", one), ("open:1", &["5"]), ("open:2", &["2", "3"])]));
    let told = [("open:6", 1), ("open:1", 1), ("open:2", 2)];
    assert_eq!(node.duty(&told).1, edges(&[("open:1", &["6", "7", "8", "9"])]));
    assert_eq!(node.duty(&[("open:1", 4)]).1, edges(&[]));
}

#[test]
fn what_becomes_due_is_done_in_turn() {
    let mut node = Node::start(60_000, &[("CHORES", 4)]);
    for app in 1..=6 {
        node.occupy(app, 1, 2);
        node.subscribed(app, "1", 0);
        node.subscribed(app, "2", 0);
    }
    let (_, occupied) = node.duty(&[]);
    assert_eq!(occupied.len(), 6);
    node.a_minute_later();
    let mut told: Vec<_> = occupied.iter().map(|(queue, edges)| (queue.clone(), edges.len() as i32)).collect();
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let told_now: Vec<_> = told.iter().map(|(queue, edges)| (queue.as_str(), *edges)).collect();
        let (_, vacated) = node.duty(&told_now);
        told = vacated.iter().map(|(queue, edges)| (queue.clone(), edges.len() as i32)).collect();
        rounds.push(told.iter().map(|(_, edges)| edges).sum::<i32>());
        if rounds.len() == 2 {
            // Nobody had a second one before everybody had had one.
            let queues: std::collections::BTreeSet<_> = told.iter().map(|(queue, _)| queue.as_str()).collect();
            assert!(queues.contains("open:5") && queues.contains("open:6"), "{told:?}");
        }
    }
    assert_eq!(rounds, [4, 4, 4]);
    assert!(!node.has_key("due:") && !node.has_key("first_due"));
}

#[test]
fn what_finds_no_room_to_wait_in_is_done_at_once() {
    let mut node = Node::start(60_000, &[("PLANNED", 2), ("LEAST", 2)]);
    for channel in ["a", "b", "c", "private-d"] {
        node.subscribed(1, channel, 1);
    }
    node.duty(&[]);
    for channel in ["a", "b", "c", "private-d"] {
        node.subscribed(1, channel, 0);
    }
    let told = [("open:1", 3), ("trusted:1", 1)];
    assert_eq!(node.duty(&told).1, edges(&[("open:1", &["c"])]), "the grace of a, b and private-d is not over");
    // Back in time: never told, and there is room for another one.
    node.subscribed(1, "a", 1);
    node.subscribed(1, "c", 1);
    assert_eq!(node.duty(&[("open:1", 1)]).1, edges(&[("open:1", &["c"])]));
    node.subscribed(1, "c", 0);
    assert_eq!(node.duty(&[("open:1", 1)]).1, edges(&[]));
}

#[test]
fn after_all_nodes_were_away_nothing_becomes_due_before_clients_had_the_time_to_come_back() {
    let mut node = Node::start(60_000, &[]);
    node.occupy(1, 1, 2);
    node.duty(&[]);
    node.subscribed(1, "1", 0);
    node.subscribed(1, "2", 0);
    node.a_minute_later();
    node.go_and_begin("60000");
    assert_eq!(node.duty(&[("open:1", 2)]).1, edges(&[]));
    node.subscribed(1, "1", 1);
    // The time is over.
    node.go_and_begin("0");
    assert_eq!(node.duty(&[]).1, edges(&[("open:1", &["2"])]));
}

#[test]
fn queues_of_an_app_that_the_node_on_duty_does_not_have_wait_for_another_node() {
    let mut node = Node::start(0, &[("ROUND", 4)]);
    node.occupy(1, 1, 9);
    node.occupy(2, 1, 1);
    let first: &[(&str, &[&str])] = &[("open:1", &["1", "2"]), ("open:2", &["1"])];
    assert_eq!(node.duty(&[]).1, edges(first));
    // What happens in this app from now on is only added.
    let told = [("open:1", -1), ("open:2", 1)];
    assert_eq!(node.duty(&told).1, edges(&[]));
    node.occupy(1, 10, 10);
    node.occupy(2, 2, 5);
    assert_eq!(node.duty(&[]).1, edges(&[("open:2", &["2", "3", "4", "5"])]));
    node.change_duty();
    let both: &[(&str, &[&str])] = &[("open:2", &["2", "3"]), ("open:1", &["1", "2"])];
    assert_eq!(node.duty(&[]).1, edges(both));
    let rest: &[&str] = &["3", "4", "5", "6"];
    assert_eq!(node.duty(&[("open:2", 4), ("open:1", 2)]).1, edges(&[("open:1", rest)]));
}

#[test]
fn whoever_changed_a_topic_last_has_caused_what_comes_of_it() {
    let mut node = Node::start(60_000, &[]);
    for channel in ["a-", "b-"] {
        node.subscribed_by("11", 1, channel, 1);
    }
    assert_eq!(node.duty(&[]).1, edges(&[("open:1", &["a-11", "b-11"])]));
    node.subscribed_by("22", 1, "a-", 0);
    // The node itself does not know.
    node.subscribed_by("", 1, "b-", 0);
    node.a_minute_later();
    let (_, vacated) = node.duty(&[("open:1", 2)]);
    assert_eq!(vacated, edges(&[("open:1", &["a-22", "b-11"])]));
}

#[test]
fn only_events_are_kept_for_nodes_that_listen_again_and_what_is_gone_is_missed() {
    let nowhere = Position::default();
    let mut node = Node::start(0, &[]);
    let (start, missing, since) = node.listen("room", 1, &nowhere);
    assert!(!missing && since.is_empty());
    // News without events: everybody gets the count with everything else.
    let (counted, missing, since) = node.listen("room", 2, &start);
    assert!(!missing && since.is_empty() && counted[1] > start[1]);
    assert!(!node.has_key("l:"));
    node.publish("room", "one");
    let (first, ..) = node.listen("room", 2, &start);
    node.subscribed(COUNTING, "room", 3);
    node.publish("room", "two");
    node.subscribed(COUNTING, "room", 4);
    let (end, missing, since) = node.listen("room", 4, &start);
    assert_eq!((missing, since), (false, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(node.listen("room", 4, &end), (end.clone(), false, vec![]));
    // Somebody who has the first one misses nothing when that is gone.
    assert_eq!(node.listen("room", 4, &first).2, ["two"]);
    let script = "return redis.call('XTRIM', KEYS[1] .. redis.call('HGET', KEYS[1] .. 'meta', 'gen') .. ':l:c:9:room', \
        'MAXLEN', ARGV[1])";
    node.redis.cli(&["EVAL", script, "1", PREFIX, "1"]);
    assert_eq!(node.listen("room", 4, &start), (end.clone(), true, vec!["two".to_owned()]));
    assert_eq!(node.listen("room", 4, &first), (end.clone(), false, vec!["two".to_owned()]));
    node.redis.cli(&["EVAL", script, "1", PREFIX, "0"]);
    assert_eq!(node.listen("room", 4, &first), (end.clone(), true, vec![]));
    assert_eq!(node.listen("room", 4, &end), (end, false, vec![]));
}
