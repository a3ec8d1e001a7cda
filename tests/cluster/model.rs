//! Presence under everything that can go wrong, against a model of what should be: sets of users.
//!
//! Steps are random, but the same for the same seed: connections come, join, leave and go; nodes are killed, stopped,
//! paused and cut off from Redis; Redis is restarted with its data and without. After every disturbance, when all is
//! well again, the nodes' answers must become those of the model, and every client must have been told exactly what has
//! changed.
//!
//! `FANFARE_MODEL_SEED` repeats a run, as far as the machine's timing lets it; `FANFARE_MODEL_STEPS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{ADDED, Cluster, Message, Node, PATIENCE, REMOVED, Recorder, SUCCEEDED, eventually_true, settled};

const ROOMS: [&str; 3] = ["presence-1", "presence-2", "presence-3"];
const USERS: [&str; 6] = ["ann", "bob", "carl", "dora", "emil", "fay"];
const NODES: usize = 3;
/// Connections that there are at most.
const CROWD: usize = 25;

#[tokio::test]
async fn whatever_happens_all_nodes_and_clients_agree_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let now = || u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let seed = number("FANFARE_MODEL_SEED").unwrap_or_else(now);
    let steps = number("FANFARE_MODEL_STEPS").unwrap_or(200);
    // Shown if the test fails.
    println!("FANFARE_MODEL_SEED={seed} FANFARE_MODEL_STEPS={steps}");
    let mut world = World::start(seed).await;
    for _ in 0..CROWD / 2 {
        world.arrive().await;
    }
    for step in 0..steps {
        print!("{step}: ");
        world.step().await;
    }
    world.heal().await;
    world.converge().await;
    assert!(steps < 100 || world.converged > 5, "too few comparisons to prove anything: {}", world.converged);
}

/// The nodes, their clients, and what is wrong at the moment.
struct World {
    cluster: Cluster,
    dice: Dice,
    members: Vec<Member>,
    fault: Option<Fault>,
    next_number: usize,
    converged: usize,
}

/// A disturbance that lasts for some steps. A node without a process is none, because it may stay so.
struct Fault {
    node: usize,
    is_pause: bool,
    /// Redis hears the node, but not the other way round.
    is_heard: bool,
    steps_left: usize,
    /// Until the other nodes have given it up.
    beyond_lease: bool,
}

/// A connection, and what its owner wants.
struct Member {
    number: usize,
    user: &'static str,
    node: usize,
    rooms: BTreeSet<&'static str>,
    /// How often it has asked to join a room and must have an answer. Who leaves before the answer may get none.
    joins: BTreeMap<&'static str, usize>,
    recorder: Recorder,
}

/// What a client knows from what it was told.
#[derive(Default)]
struct Told {
    /// Who is in the room, as of its last subscription.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Answers to requests to join.
    answers: BTreeMap<String, usize>,
    /// Redis was away when it asked; the server will ask it to come back.
    was_refused: bool,
}

/// Random numbers that are the same everywhere: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = (mixed ^ (mixed >> 31)) >> 32;
        usize::try_from(mixed).unwrap() % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

impl World {
    async fn start(seed: u64) -> Self {
        let cluster = Cluster::with(NODES, |settings| {
            settings.lease = Duration::from_millis(1500);
            settings.timeout = Duration::from_secs(1);
        })
        .await;
        Self { cluster, dice: Dice(seed), members: Vec::new(), fault: None, next_number: 0, converged: 0 }
    }

    async fn step(&mut self) {
        match self.dice.below(100) {
            0..25 => self.arrive().await,
            25..45 => self.join(),
            45..60 => self.leave(),
            60..72 => self.disconnect().await,
            72..76 => {
                println!("quiet");
                self.heal().await;
                self.converge().await;
            }
            _ => self.disturb().await,
        }
        if let Some(fault) = &mut self.fault {
            fault.steps_left = fault.steps_left.saturating_sub(1);
            if fault.steps_left == 0 {
                self.heal().await;
                self.converge().await;
            }
        }
    }

    // What clients do.

    async fn arrive(&mut self) {
        if self.members.len() >= CROWD {
            return self.disconnect().await;
        }
        let user = self.dice.pick(&USERS);
        let mut rooms = BTreeSet::from([self.dice.pick(&ROOMS)]);
        if self.dice.below(2) == 0 {
            rooms.insert(self.dice.pick(&ROOMS));
        }
        self.connect(user, rooms).await;
    }

    /// Connects to some node that answers, be it cut off or not, and joins.
    async fn connect(&mut self, user: &'static str, rooms: BTreeSet<&'static str>) {
        let paused = self.fault.as_ref().filter(|fault| fault.is_pause).map(|fault| fault.node);
        let answering = |node: &usize| self.cluster.nodes[*node].runs() && Some(*node) != paused;
        let nodes: Vec<_> = (0..NODES).filter(answering).collect();
        let node = self.dice.pick(&nodes);
        let recorder = Recorder::start(self.cluster.nodes[node].connect().await);
        let number = self.next_number;
        self.next_number += 1;
        println!("#{number}, {user}, comes to {} and joins {rooms:?}", self.cluster.nodes[node].name);
        let mut member = Member { number, user, node, rooms: BTreeSet::new(), joins: BTreeMap::new(), recorder };
        for room in rooms {
            member.join(room);
        }
        self.members.push(member);
    }

    fn join(&mut self) {
        let room = self.dice.pick(&ROOMS);
        let outside: Vec<_> = (0..self.members.len()).filter(|&at| !self.members[at].rooms.contains(room)).collect();
        if outside.is_empty() {
            return println!("everybody is in {room}");
        }
        let at = self.dice.pick(&outside);
        println!("#{} joins {room}", self.members[at].number);
        self.members[at].join(room);
    }

    fn leave(&mut self) {
        let room = self.dice.pick(&ROOMS);
        let inside: Vec<_> = (0..self.members.len()).filter(|&at| self.members[at].rooms.contains(room)).collect();
        if inside.is_empty() {
            return println!("nobody is in {room}");
        }
        let member = &mut self.members[self.dice.pick(&inside)];
        println!("#{} leaves {room}", member.number);
        member.leave(room);
    }

    async fn disconnect(&mut self) {
        if self.members.is_empty() {
            return println!("nobody is there");
        }
        let at = self.dice.below(self.members.len());
        let member = self.members.swap_remove(at);
        println!("#{} goes", member.number);
        let Member { user, rooms, .. } = member;
        // Some come back at once, and to another node.
        if self.dice.below(3) == 0 {
            self.connect(user, rooms).await;
        }
    }

    // What happens to servers.

    async fn disturb(&mut self) {
        let dead = (0..NODES).find(|&node| !self.cluster.nodes[node].runs());
        let kind = self.dice.below(12);
        let node = self.dice.below(NODES);
        let is_disturbed = self.fault.as_ref().is_some_and(|fault| fault.node == node);
        match (kind, dead) {
            (0..6, Some(node)) => {
                println!("{} comes back", self.cluster.nodes[node].name);
                self.cluster.nodes[node].come_back().await;
            }
            // One node always runs undisturbed.
            (0..3, None) if !is_disturbed => self.end(node, kind == 0).await,
            (3..5, _) => self.restart_redis(kind == 3).await,
            (_, dead) if kind > 4 && self.fault.is_none() && dead != Some(node) => self.begin_fault(node, kind),
            _ => println!("nothing more goes wrong"),
        }
    }

    async fn end(&mut self, node: usize, in_good_order: bool) {
        let name = &self.cluster.nodes[node].name;
        println!("{name} is {}", if in_good_order { "stopped" } else { "killed" });
        if in_good_order {
            self.cluster.nodes[node].stop().await;
        } else {
            self.cluster.nodes[node].kill();
        }
        let (lost, rest) = std::mem::take(&mut self.members).into_iter().partition(|member| member.node == node);
        self.members = rest;
        let lost: Vec<Member> = lost;
        for member in lost {
            member.told();
            if self.dice.below(2) == 0 {
                self.connect(member.user, member.rooms.clone()).await;
            }
        }
    }

    async fn restart_redis(&mut self, with_data: bool) {
        println!("Redis restarts {} data", if with_data { "with" } else { "without" });
        if with_data {
            self.cluster.redis.restart_with_data();
        } else {
            self.cluster.redis.restart_empty();
        }
        if self.fault.is_none() {
            self.converge().await;
        }
    }

    fn begin_fault(&mut self, node: usize, kind: usize) {
        let beyond_lease = self.dice.below(3) > 0;
        let steps_left = 3 + self.dice.below(8);
        let disturbed: &mut Node = &mut self.cluster.nodes[node];
        let (name, is_pause) = (disturbed.name.clone(), kind < 8);
        let (how, is_heard) = match kind {
            ..8 => {
                disturbed.pause();
                ("paused", false)
            }
            8 => {
                disturbed.cut().deafen();
                ("deaf", true)
            }
            9 => {
                disturbed.cut().mute();
                ("mute", false)
            }
            _ => {
                disturbed.cut().cut();
                ("cut off", false)
            }
        };
        println!("{name} is {how} for {steps_left} steps, beyond its lease: {beyond_lease}");
        self.fault = Some(Fault { node, is_pause, is_heard, steps_left, beyond_lease });
    }

    /// Ends the disturbance that there is.
    async fn heal(&mut self) {
        let Some(fault) = self.fault.take() else { return };
        let name = self.cluster.nodes[fault.node].name.clone();
        let runs = |other: &usize| *other != fault.node && self.cluster.nodes[*other].runs();
        let other = &self.cluster.nodes[(0..NODES).find(runs).expect("one node always runs")];
        match (fault.beyond_lease, fault.is_heard) {
            (false, _) => {}
            (true, true) => drop(self.cluster.nodes[fault.node].unready().await),
            (true, false) => {
                eventually_true("the others have given it up", PATIENCE, async || {
                    other.nodes().await.is_ok_and(|names| !names.contains(&name))
                })
                .await;
            }
        }
        println!("{name} is well again");
        let node = &mut self.cluster.nodes[fault.node];
        if fault.is_pause {
            node.resume();
        } else {
            node.cut().heal();
        }
    }

    // What should come of it.

    /// Waits until everything is as it should be.
    async fn converge(&mut self) {
        let start = Instant::now();
        settled(&self.cluster.nodes).await;
        loop {
            self.reconnect().await;
            let differences = self.differences().await;
            if differences.is_empty() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}:\n{}", differences.join("\n"));
            // Only so that asking does not take the time of those who are asked.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("   all agree after {:?}", start.elapsed());
        self.converged += 1;
    }

    /// Whoever was asked to come back does so. Nobody is, but those who were refused.
    async fn reconnect(&mut self) {
        let (ended, rest) =
            std::mem::take(&mut self.members).into_iter().partition(|member| member.recorder.end().is_some());
        self.members = rest;
        let ended: Vec<Member> = ended;
        for member in ended {
            let told = member.told();
            if !told.was_refused || member.recorder.end() != Some(Some(4200)) {
                member.fail(&format!("closed with {:?}", member.recorder.end()));
            }
            self.connect(member.user, member.rooms.clone()).await;
        }
    }

    /// What is not yet as it should be.
    async fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        for member in &self.members {
            let (told, name) =
                (member.told(), format!("#{} at {}", member.number, self.cluster.nodes[member.node].name));
            for (room, joins) in &member.joins {
                let answers = told.answers.get(*room).copied().unwrap_or_default();
                if answers < *joins {
                    differences.push(format!("{name} has {answers} answers to {joins} requests for {room}"));
                }
            }
            if told.was_refused {
                differences.push(format!("{name} was refused and is not asked to come back"));
            }
            for room in &member.rooms {
                let (actual, expected) = (told.members.get(*room), self.users(room));
                if actual != Some(&expected) {
                    differences.push(format!("{name} knows {actual:?} in {room}, not {expected:?}"));
                }
            }
        }
        for node in self.cluster.nodes.iter().filter(|node| node.runs()) {
            if let Err(difference) = self.answers(node).await {
                differences.push(format!("{} answers {difference}", node.name));
            }
        }
        differences
    }

    /// Whether a node answers as it should.
    async fn answers(&self, node: &Node) -> Result<(), String> {
        let mut api = node.api().await;
        let mut occupied = serde_json::Map::new();
        for room in ROOMS {
            let subscriptions = self.members.iter().filter(|member| member.rooms.contains(room)).count();
            let counts = json!({ "user_count": self.users(room).len(), "subscription_count": subscriptions });
            if subscriptions > 0 {
                occupied.insert(room.to_owned(), counts);
            }
            let response = api.get(&format!("/channels/{room}/users"), &[]).await;
            if response.status != 200 {
                return Err(response.body);
            }
            let answer = response.json();
            let ids = answer["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned());
            let (actual, expected) = (ids.collect::<Vec<_>>(), self.users(room));
            if actual.len() != expected.len() || actual.iter().any(|id| !expected.contains(id)) {
                return Err(format!("{actual:?} in {room}, not {expected:?}"));
            }
        }
        let params = [("filter_by_prefix", "presence-"), ("info", "user_count,subscription_count")];
        let response = api.get("/channels", &params).await;
        let expected = json!({ "channels": occupied });
        if response.status != 200 || response.json() != expected {
            return Err(format!("{}, not {expected}", response.body));
        }
        Ok(())
    }

    /// Who should be in this room.
    fn users(&self, room: &str) -> BTreeSet<String> {
        let inside = self.members.iter().filter(|member| member.rooms.contains(room));
        inside.map(|member| member.user.to_owned()).collect()
    }
}

impl Member {
    fn join(&mut self, room: &'static str) {
        self.rooms.insert(room);
        *self.joins.entry(room).or_default() += 1;
        self.recorder.join(room, self.user);
    }

    fn leave(&mut self, room: &'static str) {
        self.rooms.remove(room);
        self.recorder.leave(room);
        let answers = self.told().answers.get(room).copied().unwrap_or_default();
        let joins = self.joins.get_mut(room).expect("who is inside has joined");
        *joins = answers.min(*joins);
    }

    /// What it was told, in order. Fails if it was told that somebody comes who is there, or goes who is not.
    fn told(&self) -> Told {
        let mut told = Told::default();
        for message in self.recorder.messages() {
            self.hear(&mut told, &message);
        }
        told
    }

    fn hear(&self, told: &mut Told, message: &Message) {
        let room = message.channel().unwrap_or_default().to_owned();
        let user = || message.data()["user_id"].as_str().unwrap().to_owned();
        match message.event() {
            SUCCEEDED => {
                let members: BTreeSet<_> = message.members().into_iter().collect();
                if !members.contains(self.user) {
                    self.fail(&format!("is not in its own list: {}", message.json));
                }
                told.members.insert(room.clone(), members);
                *told.answers.entry(room).or_default() += 1;
            }
            "pusher:subscription_error" => {
                if message.data()["status"] != 503 {
                    self.fail(&format!("refused: {}", message.json));
                }
                told.was_refused = true;
                *told.answers.entry(room).or_default() += 1;
            }
            ADDED if !told.members.entry(room.clone()).or_default().insert(user()) => {
                self.fail(&format!("was told that somebody comes who is there: {}", message.json));
            }
            REMOVED if !told.members.entry(room).or_default().remove(&user()) || user() == self.user => {
                self.fail(&format!("was told that somebody goes who is not there, or itself: {}", message.json));
            }
            _ => {}
        }
    }

    fn fail(&self, what: &str) -> ! {
        self.recorder.fail(&format!("#{}, {}, {what}", self.number, self.user));
    }
}
