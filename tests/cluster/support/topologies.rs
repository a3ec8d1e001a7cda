//! The other ways in which Redis is run: as a cluster of shards, and with sentinels that replace a lost master.

use std::fs::File;
use std::process::Command;

use super::{PATIENCE, eventually};
use crate::it::TempDir;
use crate::it::port::Port;
use crate::it::process::Process;
use crate::it::redis::{REMEDY, Redis, cli};

/// Three masters that share the slots.
pub struct RedisCluster {
    /// The masters.
    pub masters: Vec<Redis>,
    _buses: Vec<Port>,
}

impl RedisCluster {
    /// A running cluster.
    pub async fn start() -> Self {
        let buses: Vec<_> = (0..3).map(|_| Port::free()).collect();
        let start = |bus: &Port| {
            let bus = bus.number().to_string();
            Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"])
        };
        let masters: Vec<_> = buses.iter().map(start).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(masters.iter().map(|master| master.addr().to_string()));
        let output =
            create.arg("--cluster-yes").output().unwrap_or_else(|error| panic!("redis-cli: {error}; {REMEDY}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "redis-cli --cluster create: {said}");
        let cluster = Self { masters, _buses: buses };
        cluster.settled().await;
        cluster
    }

    /// Waits until all masters say that all is well.
    pub async fn settled(&self) {
        for master in &self.masters {
            eventually("the cluster's state is ok", PATIENCE, async || {
                let info = master.cli(&["CLUSTER", "INFO"]);
                let well = ["cluster_state:ok", "cluster_known_nodes:3", "cluster_size:3"];
                if well.iter().all(|line| info.contains(line)) { Ok(()) } else { Err(info) }
            })
            .await;
        }
    }

    /// The URLs to configure.
    pub fn urls(&self) -> Vec<String> {
        self.masters.iter().map(Redis::url).collect()
    }
}

/// A master, its replica, and three sentinels that watch over them.
pub struct Sentinels {
    /// The servers. The first one is the master at first.
    pub servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: Port,
    _directory: TempDir,
    _process: Process,
}

impl Sentinels {
    /// The name of the master that they watch.
    pub const MASTER: &str = "fanfare";

    /// All of them, running and knowing of each other.
    pub async fn start() -> Self {
        let master = Redis::start();
        // A replica takes over the data five seconds after it has asked, unless the master is told to begin at once.
        assert_eq!(master.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]), "OK");
        let port = master.addr().port().to_string();
        let replica = Redis::with(&["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"]);
        let sentinels = (0..3).map(|_| Sentinel::start(&port)).collect();
        let all = Self { servers: [master, replica], sentinels };
        all.settled().await;
        all
    }

    /// Waits until every sentinel knows the other two and a replica that is up to date.
    async fn settled(&self) {
        let replica = &self.servers[1];
        eventually("the replica follows", PATIENCE, async || {
            let info = replica.cli(&["INFO", "replication"]);
            if info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
        })
        .await;
        for sentinel in &self.sentinels {
            eventually("the sentinels know each other and the replica", PATIENCE, async || {
                let info = sentinel.cli(&["INFO", "sentinel"]);
                if info.contains("status=ok") && info.contains("slaves=1,sentinels=3") { Ok(()) } else { Err(info) }
            })
            .await;
        }
    }

    /// The URLs of the sentinels.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("redis://{}", sentinel.port.addr)).collect()
    }

    /// Kills the master and waits until all sentinels name its replica instead.
    pub async fn fail_over(&mut self) {
        self.servers[0].stop();
        let expected = format!("127.0.0.1\n{}", self.servers[1].addr().port());
        for sentinel in &self.sentinels {
            eventually("the replica has become the master", PATIENCE, async || {
                let master = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER]);
                if master == expected { Ok(()) } else { Err(master) }
            })
            .await;
        }
        eventually("the new master takes writes", PATIENCE, async || {
            let info = self.servers[1].cli(&["INFO", "replication"]);
            if info.contains("role:master") { Ok(()) } else { Err(info) }
        })
        .await;
    }
}

impl Sentinel {
    fn start(master_port: &str) -> Self {
        let (port, directory, master) = (Port::free(), TempDir::new(), Sentinels::MASTER);
        let path = directory.path().join("sentinel.conf");
        let config = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {master} 127.0.0.1 {master_port} 2\n\
             sentinel down-after-milliseconds {master} 1000\nsentinel failover-timeout {master} 5000\n",
            port.number(),
            directory.path().display(),
        );
        std::fs::write(&path, config).unwrap();
        let log = File::create(directory.path().join("sentinel.log")).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(&path).stdout(log.try_clone().unwrap()).stderr(log);
        let remedy = "install it with tests/setup.sh, or on Debian with `apt-get install redis-sentinel`";
        let process = Process::start(&mut command, remedy);
        Self { port, _directory: directory, _process: process }
    }

    fn cli(&self, args: &[&str]) -> String {
        cli(self.port.number(), args)
    }
}
