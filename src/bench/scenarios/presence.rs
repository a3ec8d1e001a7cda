//! Many members join presence channels at once, and half of them leave again.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::engine::{Deaf, Happening, Listener, Nanos};
use crate::bench::findings::{Findings, Kind};
use crate::bench::meter::Phase;
use crate::bench::setup::fatal;

/// Subscriptions sent before the answers are looked at.
const BURST: usize = 64;

/// The flags of `fanfare bench presence`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Presence {
    /// Presence channels.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = super::positive)]
    channels: usize,
    /// Members of each; servers allow up to 100.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = super::positive)]
    members: usize,
}

impl Presence {
    fn clients(&self) -> usize {
        self.channels * self.members
    }

    /// Which channel a client joins, and as which member.
    fn place(&self, client: usize) -> (usize, usize) {
        (client % self.channels, client / self.channels)
    }

    /// Clients below this one leave.
    fn leaving(&self) -> usize {
        self.members / 2 * self.channels
    }

    /// All join: returns what that took.
    fn join(&self, bench: &mut Bench<'_>, roster: &mut Roster) -> Result<Phase, BenchError> {
        let clients = self.clients();
        // Signed beforehand: that is the work of an application's backend.
        let messages: Vec<String> = (0..clients)
            .map(|client| {
                let (channel, member) = self.place(client);
                let data =
                    json!({ "user_id": member.to_string(), "user_info": { "name": format!("Member {member}") } });
                bench.subscription(client, &roster.channels[channel], Some(&data.to_string()))
            })
            .collect();
        let mut waiting = messages.iter().enumerate().peekable();
        let mut patience = bench.patience();
        bench.meter.begin(bench.engine.now())?;
        while roster.lists < clients as u64 || roster.known < (clients * self.members) as u64 {
            for (client, message) in waiting.by_ref().take(BURST) {
                bench.engine.subscribe(client, message);
            }
            let until = if waiting.peek().is_some() { 0 } else { patience.deadline().min(bench.meter.due()) };
            bench.engine.turn(until, roster)?;
            while let Some(happening) = bench.engine.next_happening() {
                fatal(happening, "while members joined")?;
            }
            let events = roster.lists + roster.added;
            bench.meter.sample_if_due(bench.engine.now(), events)?;
            bench.progress.show(|| format!("{} of {clients} members joined, {events} events", roster.lists));
            if patience.is_over(bench.engine.now(), events) {
                break;
            }
        }
        bench.meter.sample(bench.engine.now(), roster.lists + roster.added, None)?;
        bench.meter.end(bench.engine.now())
    }

    /// The first half leaves: returns what that took.
    fn leave(&self, bench: &mut Bench<'_>, roster: &mut Roster) -> Result<Phase, BenchError> {
        let (leaving, staying) = (self.leaving(), self.clients() - self.leaving());
        let expected = (staying * (self.members / 2)) as u64;
        let mut patience = bench.patience();
        bench.meter.begin(bench.engine.now())?;
        roster.begin_leaving(leaving);
        let mut waiting = (0..leaving).peekable();
        let mut gone = 0;
        while gone < leaving || roster.removed < expected {
            waiting.by_ref().take(BURST).for_each(|client| bench.engine.leave(client));
            let until = if waiting.peek().is_some() { 0 } else { patience.deadline().min(bench.meter.due()) };
            bench.engine.turn(until, roster)?;
            while let Some(happening) = bench.engine.next_happening() {
                match happening {
                    Happening::Closed { left: true, .. } => gone += 1,
                    other => fatal(other, "while others left")?,
                }
            }
            let removed = roster.removed;
            bench.meter.sample_if_due(bench.engine.now(), removed)?;
            bench.progress.show(|| format!("{gone} of {leaving} members left, {removed} events"));
            if patience.is_over(bench.engine.now(), removed + gone as u64) {
                break;
            }
        }
        bench.meter.sample(bench.engine.now(), roster.removed, None)?;
        bench.meter.end(bench.engine.now())
    }
}

impl Scenario for Presence {
    fn sockets(&self) -> usize {
        self.clients()
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("presence", self, "event");
        let channels = (0..self.channels).map(|number| format!("presence-{}", bench.channel(number))).collect();
        let mut roster = Roster::new(channels, self.members);
        bench.open(0..self.clients(), |_| false, &mut Deaf)?;
        bench.settle(&mut Deaf)?;
        let joined = self.join(bench, &mut roster)?;
        report.findings.merge(bench.hear_out(0..self.clients(), &mut roster)?);
        roster.check_joined(&mut report.findings);
        let events = roster.lists + roster.added;
        let lists = roster.lists;
        bench.settle(&mut roster)?;
        let left = self.leave(bench, &mut roster)?;
        report.findings.merge(bench.hear_out(self.leaving()..self.clients(), &mut roster)?);
        roster.check_left(self.leaving(), &mut report.findings);

        report.maybe("cpu_us_per_event", "processor time per event of the join storm", "µs", joined.cpu_us_per(events));
        report.maybe("cpu_us_per_join", "processor time per member that joined", "µs", joined.cpu_us_per(lists));
        report.add("events", "events of the join storm: member lists and member_added", "", events as f64);
        report.add("joins", "members that joined", "", lists as f64);
        report.add("join_seconds", "time until everybody knew everybody", "s", joined.seconds());
        report.add("events_per_second", "events of the join storm per second", "/s", events as f64 / joined.seconds());
        let cpu = left.cpu_us_per(roster.removed);
        report.maybe("cpu_us_per_member_removed", "processor time per member_removed", "µs", cpu);
        report.add("members_removed", "member_removed events", "", roster.removed as f64);
        report.add("leave_seconds", "time until everybody knew who had left", "s", left.seconds());
        report.maybe("rss_bytes", "memory at the end", "bytes", left.rss_bytes.map(|(_, after)| after as f64));
        report.findings.merge(roster.findings);
        Ok(report)
    }
}

/// Whom each client knows to be there.
struct Roster {
    channels: Vec<String>,
    members: usize,
    /// For each client and each member, how often it was announced.
    announced: Vec<u8>,
    /// The same for its removal.
    dismissed: Vec<u8>,
    /// Member lists, `member_added` and `member_removed` events so far.
    lists: u64,
    added: u64,
    removed: u64,
    /// Pairs of a client and a member it knows.
    known: u64,
    /// What clients below this number hear does not count any more: they are leaving.
    leaving: usize,
    findings: Findings,
}

impl Roster {
    fn new(channels: Vec<String>, members: usize) -> Self {
        let pairs = channels.len() * members * members;
        Self {
            channels,
            members,
            announced: vec![0; pairs],
            dismissed: vec![0; pairs],
            lists: 0,
            added: 0,
            removed: 0,
            known: 0,
            leaving: 0,
            findings: Findings::default(),
        }
    }

    /// Clients below this one leave now.
    fn begin_leaving(&mut self, leaving: usize) {
        self.leaving = leaving;
    }

    /// Whoever was not announced to a client is lost to it, whoever was announced twice is repeated.
    fn check_joined(&mut self, findings: &mut Findings) {
        for (pair, &times) in self.announced.iter().enumerate() {
            let (client, member) = (pair / self.members, pair % self.members);
            if times == 0 {
                findings.add(Kind::Lost, 1, || format!("client {client} never heard of member {member}"));
            } else if times > 1 {
                let example = || format!("client {client} heard {times} times that member {member} joined");
                findings.add(Kind::Repeated, u64::from(times) - 1, example);
            }
        }
    }

    /// Those who stayed have heard once of everybody who left, and of nobody else.
    fn check_left(&mut self, leaving: usize, findings: &mut Findings) {
        let gone = leaving / self.channels.len();
        for client in leaving..self.channels.len() * self.members {
            for member in 0..self.members {
                let times = self.dismissed[client * self.members + member];
                let expected = u8::from(member < gone);
                if times < expected {
                    findings.add(Kind::Lost, 1, || format!("client {client} never heard that member {member} left"));
                } else if times > expected {
                    let example = || format!("client {client} heard {times} times that member {member} left");
                    findings.add(Kind::Repeated, u64::from(times - expected), example);
                }
            }
        }
    }

    fn malformed(&mut self, client: usize, what: impl Display) {
        self.findings.add(Kind::Malformed, 1, || format!("client {client} got {what}"));
    }

    fn member(&self, user_id: &str) -> Option<usize> {
        user_id.parse().ok().filter(|&member| member < self.members)
    }

    fn announce(&mut self, client: usize, user_id: &str) {
        match self.member(user_id) {
            Some(member) => {
                let times = &mut self.announced[client * self.members + member];
                self.known += u64::from(*times == 0);
                *times = times.saturating_add(1);
            }
            None => self.malformed(client, format_args!("a member {user_id:?} that is nobody")),
        }
    }

    fn dismiss(&mut self, client: usize, user_id: &str) {
        self.removed += 1;
        match self.member(user_id) {
            Some(member) => {
                let times = &mut self.dismissed[client * self.members + member];
                *times = times.saturating_add(1);
            }
            None => self.malformed(client, format_args!("the end of a member {user_id:?} that is nobody")),
        }
    }
}

/// A message about a presence channel.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Cow<'a, str>,
}

/// Who joined or left. What else is said about them is passed over.
#[derive(Deserialize)]
struct Member<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
}

impl Listener for Roster {
    fn hear(&mut self, client: usize, text: &[u8], _now: Nanos) -> bool {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(text) else { return false };
        let list = match &*message.event {
            "pusher_internal:subscription_succeeded" => true,
            "pusher_internal:member_added" | "pusher_internal:member_removed" => false,
            _ => return false,
        };
        if client < self.leaving {
            return true;
        }
        let expected = &self.channels[client % self.channels.len()];
        if *expected != message.channel {
            let channel = message.channel.into_owned();
            self.malformed(client, format_args!("an event of {channel}"));
            return true;
        }
        if list {
            let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
            self.lists += 1;
            for id in data["presence"]["ids"].as_array().into_iter().flatten() {
                self.announce(client, id.as_str().unwrap_or_default());
            }
            // The engine counts it as the confirmation that it is.
            return false;
        }
        let Ok(Member { user_id }) = serde_json::from_str(&message.data) else {
            self.malformed(client, format_args!("{}", String::from_utf8_lossy(text)));
            return true;
        };
        if message.event.ends_with("member_added") {
            self.added += 1;
            self.announce(client, &user_id);
        } else {
            self.dismiss(client, &user_id);
        }
        true
    }
}
