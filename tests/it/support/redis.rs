//! A Redis of the test's own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::port::Port;
use super::process::Process;
use super::temp_dir::TempDir;

/// What to do without Redis.
pub const REMEDY: &str = "install it with tests/setup.sh, or on Debian with `apt-get install redis-server`";

/// Longer than Redis takes to start on a machine that is busy with other things.
const STARTUP: Duration = Duration::from_secs(20);

/// A Redis server on a port and in a directory of its own. It keeps both when it is stopped and started again.
pub struct Redis {
    port: Port,
    directory: TempDir,
    options: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// A running server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A running server with further options, as on its command line.
    pub fn with(options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { port: Port::free(), directory: TempDir::new(), options, process: None };
        redis.come_back();
        redis
    }

    /// A running server for all tests of this process. It ends with the process, and leaves nothing behind.
    pub fn shared() -> Self {
        let redis = Self::start();
        // Nothing drops what all tests share. Redis needs no directory: it never saves.
        std::fs::remove_dir_all(redis.directory.path()).unwrap();
        redis
    }

    /// One that does not run yet.
    pub fn absent() -> Self {
        Self { port: Port::free(), directory: TempDir::new(), options: Vec::new(), process: None }
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.port.addr
    }

    /// Kills it. What it has not saved is lost; connections to it are refused.
    pub fn stop(&mut self) {
        self.process.take().expect("Redis runs").kill();
    }

    /// Starts it with what it has saved, and waits until it answers.
    pub fn come_back(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.number().to_string()])
            .args(["--dir", self.directory.path().to_str().unwrap()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(&self.options)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        assert!(self.process.is_none(), "Redis runs already");
        self.process = Some(Process::start(&mut command, REMEDY));
        let deadline = Instant::now() + STARTUP;
        // It answers with an error for as long as it reads its file.
        while self.cli(&["PING"]) != "PONG" {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none() && Instant::now() < deadline, "Redis does not start: {ended:?}\n{}", self.log());
        }
    }

    /// Kills it and starts it without any data, as if its disk had been lost.
    pub fn restart_empty(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
        self.come_back();
    }

    /// Saves everything, kills it and starts it with the data.
    pub fn restart_with_data(&mut self) {
        assert_eq!(self.cli(&["SAVE"]), "OK");
        self.stop();
        self.come_back();
    }

    /// Lets it neither answer nor close anything.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.process.as_ref().expect("Redis runs").signal(name);
    }

    /// What it answers to a command, as `redis-cli` prints it when nobody looks; an error of the connection is empty.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port.number(), args)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("redis.log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// What whoever listens on this port answers to a command, as `redis-cli` prints it.
pub fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("redis-cli: {error}; {REMEDY}"));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
