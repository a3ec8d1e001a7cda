//! `fanfare bench`: arguments and output of the load generator in [`crate::bench`].

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::bench::{self, Report, Scenario, Settings};

use super::target::{Target, TargetArgs};
use super::url::InvalidUrl;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare bench fanout --pid 4711
  fanfare bench fanout --clients 5000 --rate 20 --duration 30 --json > before.json
  fanfare bench fanout --clients 5000 --rate 20 --duration 30 --compare before.json

`fanfare bench SCENARIO --help` lists the flags of a scenario. Any server that
speaks the Pusher protocol over http:// can be measured.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    scenario: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One channel, many subscribers, events at a steady rate.
    #[command(after_help = "Examples:\n  fanfare bench fanout --clients 5000 --rate 20 --pid 4711")]
    Fanout(Run<bench::Fanout>),
    /// Connections that do nothing: what each costs to make, to subscribe, and to keep.
    #[command(after_help = "Examples:\n  fanfare bench idle --clients 10000 --pid 4711")]
    Idle(Run<bench::Idle>),
    /// One channel, many subscribers, events as fast as they are taken.
    #[command(after_help = "Examples:\n  fanfare bench burst --clients 1000 --events 400 --pid 4711")]
    Burst(Run<bench::Burst>),
    /// The HTTP API alone: events that nobody hears.
    #[command(after_help = "Examples:\n  fanfare bench publish --requests 50000 --batch 10 --pid 4711")]
    Publish(Run<bench::Publish>),
    /// Many channels with a few subscribers each.
    #[command(after_help = "Examples:\n  fanfare bench many --clients 5000 --channels 500 --pid 4711")]
    Many(Run<bench::Many>),
    /// Clients that send to each other in private channels.
    #[command(after_help = "Examples:\n  fanfare bench client-events --clients 1000 --group 10 --pid 4711")]
    ClientEvents(Run<bench::ClientEvents>),
    /// Everybody joins presence channels at once, then half of them leave.
    #[command(after_help = "Examples:\n  fanfare bench presence --channels 20 --members 100 --pid 4711")]
    Presence(Run<bench::Presence>),
    /// Clients that come, subscribe and go: what that costs, and whether memory stays behind.
    #[command(after_help = "Examples:\n  fanfare bench churn --cycles 100000 --pid 4711")]
    Churn(Run<bench::Churn>),
    /// Some clients stop reading; the others must not notice.
    #[command(after_help = "Examples:\n  fanfare bench slow --clients 200 --stalled 20 --pid 4711")]
    Slow(Run<bench::Slow>),
    /// All clients drop at once and come back at once.
    #[command(after_help = "Examples:\n  fanfare bench storm --clients 10000 --pid 4711")]
    Storm(Run<bench::Storm>),
    /// One channel whose clients and publishers are spread over several nodes.
    #[command(
        after_help = "Examples:\n  fanfare bench cluster --url http://127.0.0.1:6001 --node http://127.0.0.1:6002 --pid 4711 --pid 4712"
    )]
    Cluster(Run<bench::Cluster>),
}

/// The flags of a scenario, and those of all.
#[derive(Debug, clap::Args)]
struct Run<S: clap::Args> {
    #[command(flatten)]
    scenario: S,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Measurement and output")]
struct Common {
    /// A process of the server, whose processor time, memory and threads are read from /proc; repeatable, they are added.
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Seconds in which nothing may happen before a wait is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    timeout: f64,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// A saved --json result of the same scenario, to print beside this one.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    compare: Option<PathBuf>,
    /// A file for a picture (SVG) of how latency, processor time, throughput and memory went.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self.scenario {
            Command::Fanout(run) => run.run("fanout"),
            Command::Idle(run) => run.run("idle"),
            Command::Burst(run) => run.run("burst"),
            Command::Publish(run) => run.run("publish"),
            Command::Many(run) => run.run("many"),
            Command::ClientEvents(run) => run.run("client-events"),
            Command::Presence(run) => run.run("presence"),
            Command::Churn(run) => run.run("churn"),
            Command::Slow(run) => run.run("slow"),
            Command::Storm(run) => run.run("storm"),
            Command::Cluster(run) => run.run("cluster"),
        }
    }
}

impl<S: clap::Args + Scenario> Run<S> {
    fn run(self, name: &str) -> Result<(), CliError> {
        let older = self.common.older(name)?;
        let target = self.target.resolve()?;
        let mut targets = vec![bench_target(target.clone())?];
        for node in self.scenario.nodes() {
            let url = node.parse().map_err(|error: InvalidUrl| CliError::Usage(format!("--node {node}: {error}")))?;
            targets.push(bench_target(Target { url, ..target.clone() })?);
        }
        let timeout = Duration::from_secs_f64(self.common.timeout);
        let settings = Settings { targets, pids: self.common.pids.clone(), timeout };
        let report = bench::run(&self.scenario, &settings)?;
        self.common.print(&report, older.as_ref())?;
        self.common.draw(&report)?;
        match report.findings() {
            findings if findings.is_empty() => Ok(()),
            findings => Err(CliError::Findings(findings.summary())),
        }
    }
}

impl Common {
    /// The result to compare with. Read first: a run of minutes should not end with a typo.
    fn older(&self, scenario: &str) -> Result<Option<Value>, CliError> {
        let Some(path) = &self.compare else { return Ok(None) };
        let unfit = |cause: String| CliError::Usage(format!("--compare {}: {cause}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| unfit(error.to_string()))?;
        let older: Value = serde_json::from_str(&text).map_err(|error| unfit(format!("not JSON: {error}")))?;
        match older["scenario"].as_str() {
            Some(name) if name == scenario => Ok(Some(older)),
            Some(name) => Err(unfit(format!("the result of another scenario, {name}"))),
            None => Err(unfit("not a result of `fanfare bench --json`".to_owned())),
        }
    }

    fn draw(&self, report: &Report) -> Result<(), CliError> {
        let Some(path) = &self.plot else { return Ok(()) };
        let failed = |cause| CliError::Plot { path: path.display().to_string(), cause };
        let svg = bench::svg(report).map_err(failed)?;
        fs::write(path, svg).map_err(|error| failed(error.to_string()))
    }

    fn print(&self, report: &Report, older: Option<&Value>) -> Result<(), CliError> {
        if self.json {
            return output::line(report.to_json());
        }
        let notes = report.notes().into_iter().map(|note| format!("\n{note}")).collect::<String>();
        output::line(format_args!("{}\n\n{}{notes}", report.title(), output::table(&report.rows(older))))
    }
}

/// The same server, with its address looked up.
fn bench_target(target: Target) -> Result<bench::Target, CliError> {
    let url = target.url.to_string();
    let Some((authority, prefix)) = target.url.plain_parts() else {
        let text = "only http:// servers can be measured: TLS would be measured with them; use the port behind it";
        return Err(CliError::Usage(format!("--url {url}: {text}")));
    };
    let address = bench::Target::resolve(&url, authority).map_err(CliError::from)?;
    let (authority, prefix) = (authority.to_owned(), prefix.to_owned());
    let Target { app_id, key, secret, .. } = target;
    Ok(bench::Target { url, address, authority, prefix, app_id, key, secret })
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds < 1e6);
    seconds.ok_or("expected a number of seconds above 0")
}
