//! What Fanfare costs, as a multiple of what the kernel's sockets cost: `make bench`.
//!
//! Times differ from machine to machine, and on one machine from minute to minute. So the floor (`floor.rs`) and Fanfare
//! are measured in turn, each time with a fresh process, by the same `fanfare bench`, and compared within a round; the
//! table shows medians over the rounds, beside what we aim at. `--growth` shows what more subscribers, more channels and
//! more idle neighbours change: nothing, one hopes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

/// Measures Fanfare and the floor in turn, and prints their ratios.
#[derive(Parser)]
struct Options {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only scenarios whose `fanfare bench` command line contains this text; repeatable.
    #[arg(long)]
    only: Vec<String>,
    /// Instead: what becomes of the same work when there is more of everything.
    #[arg(long)]
    growth: bool,
    /// Fail if anything is over its target.
    #[arg(long)]
    strict: bool,
    /// Given by `cargo bench`. `cargo test --all-targets` runs this, too, and wants no measurement.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One invocation of `fanfare bench`, and what is read from its result.
struct Scenario {
    arguments: String,
    neighbours: Neighbours,
    rows: Vec<Row>,
}

/// Connections that are there before, and do nothing.
#[derive(Clone, Copy, Default)]
struct Neighbours {
    connections: usize,
    /// Channels that each is subscribed to, all of them different.
    channels: usize,
}

/// One line of the table.
struct Row {
    title: String,
    /// Where the number is in the result, as a JSON pointer.
    pointer: &'static str,
    unit: Unit,
    target: Target,
}

#[derive(Clone, Copy)]
enum Unit {
    Microseconds,
    Bytes,
}

#[derive(Clone, Copy)]
enum Target {
    /// At most this many times the floor's.
    Ratio(f64),
    /// At most this much, whatever the floor's.
    Absolute(f64),
    /// The ratio is within this share of the mean of all rows of the group. Not the times: a kernel with more sockets needs
    /// more for each, whoever uses them.
    Flat(&'static str, f64),
}

/// The numbers of one row, round by round.
#[derive(Default)]
struct Measured {
    floor: Vec<f64>,
    fanfare: Vec<f64>,
}

impl Measured {
    fn ratios(&self) -> Vec<f64> {
        self.fanfare.iter().zip(&self.floor).map(|(fanfare, floor)| fanfare / floor).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Floor,
    Fanfare,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        eprintln!("nothing measured: `make bench` does that, or `cargo bench --bench ratios`");
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        Ok(all_within) if all_within || !options.strict => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("ratios: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything and prints the table. Tells whether all targets are met.
fn measure(options: &Options) -> Result<bool, String> {
    // Neighbours are open files of this process, and the other processes inherit the limit.
    let files = rlimit::increase_nofile_limit(u64::MAX).map_err(|error| format!("the limit of open files: {error}"))?;
    let mut scenarios = if options.growth { growth(files) } else { scenarios() };
    if !options.only.is_empty() {
        scenarios.retain(|scenario| options.only.iter().any(|text| scenario.arguments.contains(text)));
    }
    if scenarios.is_empty() {
        return Err("no scenario has such a command line".to_owned());
    }
    let mut measured: Vec<Vec<Measured>> =
        scenarios.iter().map(|scenario| scenario.rows.iter().map(|_| Measured::default()).collect()).collect();
    for round in 1..=options.rounds {
        // Whoever comes second finds other caches: let it not always be the same.
        let turns = if round % 2 == 1 { [Server::Floor, Server::Fanfare] } else { [Server::Fanfare, Server::Floor] };
        for (scenario, measured) in scenarios.iter().zip(&mut measured) {
            for server in turns {
                eprintln!("round {round} of {}: {server}: {}", options.rounds, scenario.arguments);
                let result = run(server, scenario)?;
                for (row, measured) in scenario.rows.iter().zip(measured.iter_mut()) {
                    let value = result.pointer(row.pointer).and_then(Value::as_f64);
                    let missing = || format!("fanfare bench {}: its result has no {}", scenario.arguments, row.pointer);
                    let value = value.ok_or_else(missing)?;
                    match server {
                        Server::Floor => measured.floor.push(value),
                        Server::Fanfare => measured.fanfare.push(value),
                    }
                }
            }
        }
    }
    let rows = scenarios.iter().flat_map(|scenario| &scenario.rows).zip(measured.into_iter().flatten()).collect();
    Ok(print(rows))
}

/// Prints the table. Tells whether all targets are met.
fn print(rows: Vec<(&Row, Measured)>) -> bool {
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (row, measured) in &rows {
        if let Target::Flat(group, _) = row.target {
            groups.entry(group).or_default().push(median(&measured.ratios()));
        }
    }
    let mut table = vec![["", "FLOOR", "FANFARE", "RATIO", "TARGET", ""].map(str::to_owned)];
    let mut all_within = true;
    for (row, measured) in rows {
        let (floor, fanfare) = (median(&measured.floor), median(&measured.fanfare));
        let ratio = median(&measured.ratios());
        let (within, target) = match row.target {
            Target::Ratio(most) => (ratio <= most, format!("≤ {most:.2}")),
            Target::Absolute(most) => (fanfare <= most, format!("≤ {}", row.unit.text(most))),
            Target::Flat(group, share) => {
                let mean = groups[group].iter().sum::<f64>() / groups[group].len() as f64;
                let off = ratio / mean - 1.0;
                (off.abs() <= share, format!("±{:.0} %: {:+.1} %", share * 100.0, off * 100.0))
            }
        };
        all_within &= within;
        let verdict = if within { "ok" } else { "over" }.to_owned();
        let ratio = if floor > 0.0 { format!("{ratio:.2}") } else { "–".to_owned() };
        table.push([row.title.clone(), row.unit.text(floor), row.unit.text(fanfare), ratio, target, verdict]);
    }
    let width = |column: usize| table.iter().map(|row: &[String; 6]| row[column].chars().count()).max().unwrap_or(0);
    for row in &table {
        let [title, floor, fanfare, ratio, target, verdict] = row;
        let [t, a, b, c, d] = std::array::from_fn(width);
        println!("{title:t$}  {floor:>a$}  {fanfare:>b$}  {ratio:>c$}  {target:>d$}  {verdict}");
    }
    all_within
}

/// The middle of the numbers.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Lets `fanfare bench` loose on a fresh server and returns its result.
fn run(server: Server, Scenario { arguments, neighbours, .. }: &Scenario) -> Result<Value, String> {
    let process = Process::start(server)?;
    // The floor has but one.
    let arguments = match server {
        Server::Floor => arguments.split(TRANSPORT).next().unwrap_or_default(),
        Server::Fanfare => arguments,
    };
    let _neighbours = neighbours.join(&process.address).map_err(|error| format!("neighbours at {server}: {error}"))?;
    let output = clean(FANFARE)
        .arg("bench")
        .args(arguments.split_whitespace())
        .args(["--json", "--url", &format!("http://{}", process.address)])
        .args(["--pid", &process.child.id().to_string()])
        .output()
        .map_err(|error| format!("{FANFARE}: {error}"))?;
    if !output.status.success() {
        let (said, status) = (String::from_utf8_lossy(&output.stderr), output.status);
        return Err(format!("fanfare bench {arguments}, against {server}: {status}\n{}", said.trim_end()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("fanfare bench {arguments}: {error}"))
}

/// A server that is killed when it is dropped.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(server: Server) -> Result<Self, String> {
        match server {
            Server::Floor => Self::floor(),
            Server::Fanfare => Self::fanfare(),
        }
    }

    fn floor() -> Result<Self, String> {
        let program = floor_program();
        let mut child = clean(&program)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; cargo build --release --example floor", program.display()))?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut process = Self { child, address: String::new() };
        let address = |line: &str| line.strip_prefix("listening on ").map(str::to_owned);
        process.address = await_line(stdout, address).ok_or("the floor did not say where it listens")?;
        Ok(process)
    }

    /// As it comes, but for limits that would throttle a benchmark.
    fn fanfare() -> Result<Self, String> {
        let mut child = clean(FANFARE)
            .args(["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
            // Warnings, and where it listens.
            .args(["--log-format=json", "--log-level=warn,fanfare::server=info"])
            .args(["--set=apps.0.id=1001", "--set=apps.0.key=app-key", "--set=apps.0.secret=app-secret"])
            .args(["--set=apps.0.client_events=true", "--set=apps.0.limits.client_events_per_second=10000"])
            .args(["--set=apps.0.limits.presence_members=10000"])
            // All clients have one address here, of which the log would warn again and again.
            .args(["--set=server.connections_per_address=0", "--set=server.new_connections_per_address=0"])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{FANFARE}: {error}"))?;
        let stderr = child.stderr.take().expect("it is piped");
        let mut process = Self { child, address: String::new() };
        let address = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["public"].as_str().map(str::to_owned))?
        };
        process.address = await_line(stderr, address).ok_or("Fanfare did not say where it listens")?;
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Neighbours {
    /// Connects and subscribes them one after the other. They leave when they are dropped.
    fn join(self, address: &str) -> io::Result<Vec<TcpStream>> {
        (0..self.connections).map(|number| self.join_one(address, number)).collect()
    }

    fn join_one(self, address: &str, number: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        await_text(&mut stream, "pusher:connection_established")?;
        let mut messages = Vec::new();
        for channel in 0..self.channels {
            let channel = format!("neighbours-{number}-{channel}");
            message(&mut messages, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
        }
        // What comes before its answer has been answered.
        message(&mut messages, r#"{"event":"pusher:ping","data":{}}"#);
        // Nobody reads meanwhile: the answers, some hundred bytes for each channel, wait in the socket's buffers.
        stream.write_all(&messages)?;
        await_text(&mut stream, "pusher:pong")?;
        Ok(stream)
    }
}

/// Adds a short text frame, masked with zeros.
fn message(bytes: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("short messages only");
    bytes.extend_from_slice(&[0x81, 0x80 | length, 0, 0, 0, 0]);
    bytes.extend_from_slice(text.as_bytes());
}

/// Reads until the text has come.
fn await_text(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
        if seen.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(());
        }
        // The text may come in two pieces.
        seen.drain(..seen.len().saturating_sub(text.len()));
    }
}

/// A program that inherits nothing that would configure it.
fn clean(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear().stdin(Stdio::null());
    command
}

/// Where `cargo build --release --example floor` puts it.
fn floor_program() -> PathBuf {
    Path::new(FANFARE).with_file_name("examples").join("floor")
}

/// Reads to the line that is looked for, and shows the others. Goes on showing them, so that the pipe never fills.
fn await_line(stream: impl Read + Send + 'static, wanted: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let found = lines.by_ref().find_map(|line| {
        let found = wanted(&line);
        if found.is_none() {
            eprintln!("{line}");
        }
        found
    });
    thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
    found
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "the floor",
            Self::Fanfare => "Fanfare",
        })
    }
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Microseconds if value < 100.0 => format!("{value:.2} µs"),
            Self::Microseconds => format!("{value:.0} µs"),
            Self::Bytes => format!("{:.2} KiB", value / 1024.0),
        }
    }
}

fn row(title: impl Into<String>, pointer: &'static str, unit: Unit, target: Target) -> Row {
    Row { title: title.into(), pointer, unit, target }
}

fn scenario(arguments: impl Into<String>, rows: impl Into<Vec<Row>>) -> Scenario {
    Scenario { arguments: arguments.into(), neighbours: Neighbours::default(), rows: rows.into() }
}

const TRANSPORT: &str = " --transport ";
const PER_DELIVERY: &str = "/results/cpu_us_per_delivery";
const PER_EVENT: &str = "/results/cpu_us_per_event";
const PER_REQUEST: &str = "/results/cpu_us_per_request";
const PER_CYCLE: &str = "/results/cpu_us_per_cycle";

/// What is measured, and what we aim at.
fn scenarios() -> Vec<Scenario> {
    use Target::{Absolute, Ratio};
    use Unit::{Bytes, Microseconds};
    let cpu = |arguments: &str, title: &str, pointer, most| {
        scenario(arguments, [row(title, pointer, Microseconds, Ratio(most))])
    };
    let first = [
        row("fan-out to 1,000, 100/s, 100 B, per delivery", PER_DELIVERY, Microseconds, Ratio(1.10)),
        row("the same: p99 of the latency", "/latency_us/p99", Microseconds, Ratio(1.15)),
    ];
    let both = "/results/cpu_us_per_subscribed_connection";
    let memory = "/results/rss_bytes_per_subscribed_connection";
    let idle = [
        row("connect and subscribe, per connection", both, Microseconds, Ratio(1.6)),
        row("memory of an idle subscribed connection", memory, Bytes, Absolute(4096.0)),
    ];
    let (short, long) = ("fanout --clients 5000 --rate 10 --bytes 100", "fanout --clients 5000 --rate 10 --bytes 1024");
    vec![
        scenario("fanout --clients 1000 --rate 100 --bytes 100", first),
        cpu(short, "fan-out to 5,000, 10/s, 100 B, per delivery", PER_DELIVERY, 1.15),
        cpu(long, "fan-out to 5,000, 10/s, 1 KiB, per delivery", PER_DELIVERY, 1.15),
        cpu("burst --clients 1000 --events 400", "burst of 400 events to 1,000, per delivery", PER_DELIVERY, 0.10),
        cpu("publish --requests 100000", "publish to nobody, per request", PER_REQUEST, 2.0),
        cpu("publish --batch 10", "publish to nobody in batches of 10, per event", PER_EVENT, 2.5),
        cpu(
            "many --clients 5000 --channels 500 --rate 1000",
            "500 channels of 10, 1,000/s, per delivery",
            PER_DELIVERY,
            1.3,
        ),
        cpu("client-events", "client events in groups of 10, per delivery", PER_DELIVERY, 1.4),
        cpu("presence --channels 100 --members 100", "100 presence channels of 100 fill, per event", PER_EVENT, 0.8),
        scenario("idle --clients 10000", idle),
        cpu("churn --cycles 60000", "connect, subscribe, disconnect, per visit", PER_CYCLE, 1.5),
        transport("websocket", 1.25),
        transport("xhr_streaming", 2.0),
        transport("xhr_polling", 4.0),
        transport("sockjs", 2.5),
        transport("eventsource", 2.5),
        transport("htmlfile", 2.5),
        transport("jsonp", 6.0),
    ]
}

/// A fan-out to clients with an HTTP transport, beside the floor's WebSockets.
fn transport(name: &str, most: f64) -> Scenario {
    let arguments = format!("fanout --clients 1000 --rate 10{TRANSPORT}{name}");
    let title = format!("fan-out to 1,000, 10/s, over {name}, per delivery");
    scenario(arguments, [row(title, PER_DELIVERY, Unit::Microseconds, Target::Ratio(most))])
}

/// The same work among ever more: it should cost the same. `files` is how many a process may open.
fn growth(files: u64) -> Vec<Scenario> {
    let cpu = |arguments: &str, title: String, pointer, group, neighbours| Scenario {
        neighbours,
        ..scenario(arguments, [row(title, pointer, Unit::Microseconds, Target::Flat(group, 0.1))])
    };
    // Sockets are not all that a server opens.
    let most = files.saturating_sub(2_000).min(20_000);
    let fanout = [100, 1_000, 5_000, most].map(|clients| {
        let rate = 50_000.0 / clients as f64;
        let arguments = format!("fanout --clients {clients} --rate {rate} --duration 10");
        let title = format!("50,000 deliveries/s to {clients}, per delivery");
        cpu(&arguments, title, PER_DELIVERY, "fan-out", Neighbours::default())
    });
    let publish = [(1, 1), (1, 1_000), (100, 1_000)].map(|(connections, channels)| {
        let title = format!("publish beside {} occupied channels, per request", connections * channels);
        cpu("publish --requests 100000", title, PER_REQUEST, "publish", Neighbours { connections, channels })
    });
    let churn = [(0, 0), (10_000, 1), (100, 1_000)].map(|(connections, channels)| {
        let all = connections * channels;
        let title = format!("visit beside {connections} clients in {all} channels, per visit");
        cpu("churn --cycles 60000", title, PER_CYCLE, "churn", Neighbours { connections, channels })
    });
    fanout.into_iter().chain(publish).chain(churn).collect()
}
