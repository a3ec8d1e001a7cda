//! Which server has a partition, and how to get there: the one there is, the one that Sentinels call the master, or the one
//! that a Redis Cluster names for the slot.

use std::fs;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates, Value, cmd,
};

use crate::config::{ClusterConfig, RedisPlace, RedisUrl, Secret, Topology};

/// Why there is no connection: said to the operator, with the setting or the server to blame.
pub(super) type Reason = String;

/// See the module.
pub(super) struct Servers {
    topology: Topology,
    urls: Vec<RedisUrl>,
    username: String,
    password: Option<Secret>,
    ca_file: Option<Vec<u8>>,
    master: String,
    sentinel_username: String,
    sentinel_password: Option<Secret>,
    timeout: Duration,
}

impl Servers {
    /// `timeout` is for making a connection, and for each answer on it.
    ///
    /// # Errors
    /// The file with the certificates cannot be read.
    pub(super) fn new(config: &ClusterConfig, timeout: Duration) -> Result<Self, Reason> {
        let ca_file = config.ca_file.as_ref().map(fs::read).transpose();
        Ok(Self {
            topology: config.topology,
            urls: config.urls.iter().filter_map(|url| RedisUrl::parse(url)).collect(),
            username: config.username.clone(),
            password: config.password.clone(),
            ca_file: ca_file.map_err(|error| format!("cluster.ca_file: {error}"))?,
            master: config.sentinel_master.clone(),
            sentinel_username: config.sentinel_username.clone(),
            sentinel_password: config.sentinel_password.clone(),
            timeout,
        })
    }

    /// Connects to the server that has this slot. `config` brings the receiver of messages.
    ///
    /// # Errors
    /// Says which server could not be reached, or what it said.
    pub(super) async fn connect(
        &self,
        slot: u16,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, String), Reason> {
        match self.topology {
            Topology::Server => {
                let url = self.urls.first().ok_or("cluster.urls: there is none")?;
                Ok((self.open(url, config).await?, url.to_string()))
            }
            Topology::Sentinel => self.connect_to_master(config).await,
            Topology::Cluster => self.connect_to_slot(slot, config).await,
        }
    }

    async fn connect_to_master(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, String), Reason> {
        let mut reason = Reason::new();
        for sentinel in &self.urls {
            let asked = self.ask_sentinel(sentinel).await;
            let (name, port) = match asked {
                Ok(master) => master,
                Err(error) => {
                    reason = error;
                    continue;
                }
            };
            let master = self.sibling(sentinel, name, port);
            let mut connection = self.open(&master, config.clone()).await?;
            // A Sentinel that was cut off may still name the old one.
            let role: Value = query(&mut connection, &cmd("ROLE")).await?;
            let is_master = matches!(&role, Value::Array(parts) if parts.first() == Some(&bulk("master")));
            if is_master {
                return Ok((connection, master.to_string()));
            }
            reason = format!("{master}: Sentinel {sentinel} calls it the master, but it is none");
        }
        Err(reason)
    }

    async fn ask_sentinel(&self, sentinel: &RedisUrl) -> Result<(String, u16), Reason> {
        let settings = self.credentials(sentinel, &self.sentinel_username, self.sentinel_password.as_ref());
        let mut connection = self.open_with(sentinel, settings, self.patient()).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer = query(&mut connection, &question).await?;
        let unknown = || format!("cluster.sentinel_master: Sentinel {sentinel} knows no master {:?}", self.master);
        let (name, port): (String, String) = redis::from_redis_value(answer).map_err(|_| unknown())?;
        Ok((name, port.parse().map_err(|_| unknown())?))
    }

    async fn connect_to_slot(
        &self,
        slot: u16,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, String), Reason> {
        let mut reason = Reason::new();
        for seed in &self.urls {
            match self.owner(seed, slot).await {
                Ok(owner) => return Ok((self.open(&owner, config).await?, owner.to_string())),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    async fn owner(&self, seed: &RedisUrl, slot: u16) -> Result<RedisUrl, Reason> {
        let mut connection = self.open(seed, self.patient()).await?;
        let mut question = cmd("CLUSTER");
        let slots = query(&mut connection, question.arg("SLOTS")).await?;
        let Value::Array(ranges) = slots else { return Err(format!("{seed}: is not part of a Redis Cluster")) };
        for range in ranges {
            let Value::Array(range) = range else { continue };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { continue };
            if !(*first..=*last).contains(&i64::from(slot)) {
                continue;
            }
            let [host, Value::Int(port), ..] = master.as_slice() else { continue };
            let host: String = redis::from_redis_value(host.clone()).unwrap_or_default();
            // Without a host, it is the one that was asked.
            let host = match &seed.place {
                RedisPlace::Host { name, .. } if host.is_empty() || host == "?" => name.clone(),
                _ => host,
            };
            return Ok(self.sibling(seed, host, u16::try_from(*port).unwrap_or_default()));
        }
        Err(format!("{seed}: nobody has slot {slot}; is the Redis Cluster complete?"))
    }

    /// Another server that is reached as this one is.
    fn sibling(&self, url: &RedisUrl, name: String, port: u16) -> RedisUrl {
        let tls = matches!(url.place, RedisPlace::Host { tls: true, .. });
        RedisUrl { place: RedisPlace::Host { name, port, tls }, ..url.clone() }
    }

    async fn open(&self, url: &RedisUrl, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, Reason> {
        let settings = self.credentials(url, &self.username, self.password.as_ref());
        let settings = settings.set_db(i64::from(url.database)).set_protocol(ProtocolVersion::RESP3);
        self.open_with(url, settings, config).await
    }

    async fn open_with(
        &self,
        url: &RedisUrl,
        settings: RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, Reason> {
        let address = match url.place.clone() {
            RedisPlace::Socket(path) => ConnectionAddr::Unix(path.into()),
            RedisPlace::Host { name, port, tls: false } => ConnectionAddr::Tcp(name, port),
            RedisPlace::Host { name: host, port, tls: true } => {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
        };
        let tls = matches!(address, ConnectionAddr::TcpTls { .. });
        let complain = |error: redis::RedisError| format!("{url}: {error}");
        let info: ConnectionInfo = address.into_connection_info().map_err(complain)?.set_redis_settings(settings);
        let client = match tls {
            true => {
                let certificates = TlsCertificates { client_tls: None, root_cert: self.ca_file.clone() };
                Client::build_with_tls(info, certificates)
            }
            false => Client::open(info),
        };
        let client = client.map_err(complain)?;
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(complain)
    }

    fn credentials(&self, url: &RedisUrl, username: &str, password: Option<&Secret>) -> RedisConnectionInfo {
        let settings = RedisConnectionInfo::default().set_lib_name("fanfare", env!("CARGO_PKG_VERSION"));
        let username = if username.is_empty() { &url.user } else { username };
        let settings = if username.is_empty() { settings } else { settings.set_username(username) };
        match password.or(url.password.as_ref()) {
            Some(password) => settings.set_password(password.expose()),
            None => settings,
        }
    }

    fn patient(&self) -> AsyncConnectionConfig {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout));
        config.set_response_timeout(Some(self.timeout))
    }
}

/// Asks one question.
///
/// # Errors
/// What went wrong, or what the server said.
pub(super) async fn query(connection: &mut MultiplexedConnection, question: &redis::Cmd) -> Result<Value, Reason> {
    let answer = connection.send_packed_command(question).await.and_then(Value::extract_error);
    answer.map_err(|error| error.to_string())
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}
