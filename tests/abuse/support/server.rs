//! A server process, seen through `/proc`.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Once;

use tokio::sync::{Mutex, MutexGuard};

use super::{NEIGHBOUR, PATIENCE, eventually};
use crate::it::process::Process;
use crate::it::server::Dial;
use crate::it::serving::Serving;
use crate::it::{APP_ID, Api, Client, Http, KEY, Response, SECRET, TempDir, Wire};

/// Held by the test that measures.
static TURN: Mutex<()> = Mutex::const_new(());

/// `fanfare serve` with two apps: the one of all tests, and its neighbour.
pub struct Server {
    /// Where clients and backends connect.
    pub addr: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    process: Process,
    directory: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Server {
    /// A server with these settings, such as `server.body_memory=8MiB`, once it is this test's turn.
    pub async fn with(settings: &[&str]) -> Self {
        Self::start(Some(TURN.lock().await), None, settings).await
    }

    /// The same with so many open files.
    pub async fn with_open_files(limit: u32, settings: &[&str]) -> Self {
        Self::start(Some(TURN.lock().await), Some(limit), settings).await
    }

    /// One more server for the test that has the turn already.
    pub async fn beside(&self, settings: &[&str]) -> Self {
        Self::start(None, None, settings).await
    }

    async fn start(turn: Option<MutexGuard<'static, ()>>, open_files: Option<u32>, settings: &[&str]) -> Self {
        raise_own_limit();
        let directory = TempDir::new();
        let limit = open_files.map(|limit| format!("ulimit -n {limit}; ")).unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_fanfare"), "serve"]);
        command.args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"]);
        let apps = [(APP_ID, KEY, SECRET), NEIGHBOUR];
        let apps = apps.iter().enumerate().flat_map(|(index, (id, key, secret))| {
            [("id", id), ("key", key), ("secret", secret)].map(|(name, value)| format!("apps.{index}.{name}={value}"))
        });
        let usual = ["server.drain_period=0s".to_owned(), "webhooks.data_dir=".to_owned()];
        for setting in usual.into_iter().chain(apps).chain(settings.iter().map(|&setting| setting.to_owned())) {
            command.args(["--set", &setting]);
        }
        let Serving { process, public, admin } =
            Serving::start(&mut command, &directory.path().join("log"), PATIENCE).await;
        let server = Self { addr: public, admin, process, directory, _turn: turn };
        eventually("the server is ready", PATIENCE, async || match server.page("/ready").await {
            ready if ready.status == 200 => Ok(()),
            other => Err(other.body),
        })
        .await;
        server
    }

    // Reaching it.

    /// A WebSocket handshake to be changed before it is made.
    pub fn dial(&self) -> Dial {
        Dial::new(self.addr)
    }

    /// A connection of protocol 7 after its greeting.
    pub async fn connect(&self) -> Client {
        self.dial().connect().await
    }

    /// A client of the HTTP API with one connection.
    pub async fn api(&self) -> Api {
        Api::new(Http::new(Wire::connect(self.addr).await))
    }

    /// A page of the admin listener.
    pub async fn page(&self, path: &str) -> Response {
        Http::new(Wire::connect(self.admin).await).get(path).await
    }

    /// The sum of all samples of this metric whose labels contain `label`. Counters that have not counted are not
    /// there, and so that is 0.
    pub async fn metric(&self, name: &str, label: &str) -> u64 {
        let page = self.page("/metrics").await.body;
        let sample = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))?;
            Some(rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
        };
        page.lines().filter_map(sample).sum()
    }

    // Measuring it.

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of memory of the process now, without what it has of files: its own program comes page by page as it is used,
    /// and is no cost of an attack.
    pub fn memory(&self) -> u64 {
        self.without_files("VmRSS")
    }

    /// The most that it ever was since the last [`forget_peak`](Self::forget_peak).
    pub fn peak_memory(&self) -> u64 {
        self.without_files("VmHWM")
    }

    fn without_files(&self, field: &str) -> u64 {
        status(self.pid(), field).saturating_sub(status(self.pid(), "RssFile"))
    }

    /// Lets the peak begin anew.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().map(|line| line.chars().take(300).collect::<String>()).collect();
            let skipped = lines.len().saturating_sub(60);
            eprintln!("--- log ({skipped} lines not shown)\n{}", lines[skipped..].join("\n"));
        }
    }
}

/// A size in `/proc/PID/status`, in bytes.
pub fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("no {field} in {text:?}"));
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// Bytes that the kernel holds for the clients of a listener: sent, but not yet taken by them.
pub fn unsent(listener: SocketAddr) -> u64 {
    let local = format!("0100007F:{:04X}", listener.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next()? == local).then_some(())?;
        // State 0A is the listener itself, whose queue is something else.
        let (_, state, queues) = (fields.next()?, fields.next()?, fields.next()?);
        (state != "0A").then(|| u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap())
    };
    table.lines().filter_map(queue).sum()
}

/// The attackers need more descriptors than a shell allows by default.
fn raise_own_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rlimit::increase_nofile_limit(20_000).unwrap();
        assert!(limit >= 4096, "these tests need 4096 open files and may have {limit}: see `ulimit -Hn`");
    });
}
