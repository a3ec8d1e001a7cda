//! `fanfare serve` in a process of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::process::Process;

/// A server that listens.
pub struct Serving {
    pub process: Process,
    /// Where clients and backends connect.
    pub public: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
}

impl Serving {
    /// Starts it with a log in JSON, which is appended to this file, and waits until it says where it listens.
    pub async fn start(command: &mut Command, log: &Path, time: Duration) -> Self {
        let before = fs::metadata(log).map_or(0, |log| log.len() as usize);
        let file = File::options().create(true).append(true).open(log).unwrap();
        // The environment of the tests may have settings of its own.
        command.env_clear().env("PATH", std::env::var("PATH").unwrap());
        for name in ["FANFARE_LOG_LEVEL", "RUST_BACKTRACE"] {
            command.envs(std::env::var(name).map(|value| (name, value)));
        }
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut process = Process::start(command, "cargo builds it");
        let listening = eventually("the server listens", time, async || {
            let log = fs::read_to_string(log).unwrap();
            // Its own panic says more than a deadline would.
            assert!(process.ended().is_none(), "the server has ended: {}", &log[before..]);
            let complete = log[before..].rsplit_once('\n').map(|(lines, _)| lines).unwrap_or_default();
            let line = complete.lines().find(|line| line.contains(r#""message":"listening""#));
            line.map(str::to_owned).ok_or_else(|| format!("silent: {log}"))
        })
        .await;
        let listening: Value = serde_json::from_str(&listening).unwrap_or_else(|error| panic!("{error}: {listening}"));
        let addr = |field: &str| listening[field].as_str().and_then(|text| text.parse().ok());
        let (Some(public), Some(admin)) = (addr("public"), addr("admin")) else { panic!("no addresses: {listening}") };
        Self { process, public, admin }
    }
}

/// Asks again and again until the answer is `Ok`; fails with the last `Err` when `time` is over.
pub async fn eventually<T>(what: &str, time: Duration, ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    poll(time, ask).await.unwrap_or_else(|state| panic!("not within {time:?}: {what}; it is {state}"))
}

/// Asks again and again until the answer is `Ok`; the last `Err` when `time` is over.
pub async fn poll<T>(time: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match ask().await {
            Err(_) if start.elapsed() < time => {}
            answer => return answer,
        }
        // Only so that asking does not take the time of those who are asked.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
