//! Builds everything bottom-up, binds, serves and drains.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod lane;
mod listener;
mod plain;
mod router;
mod strict;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::authorizers::{Authorizers, SetupError};
use crate::config::{ClusterDriver, Config, RedisPlace, RedisUrl};
use crate::fallback::{self, Fallbacks};
use crate::log_limit;
use crate::metrics::Metrics;
use crate::node::{Gauges, Node};
use crate::shutdown::Shutdown;
use crate::webhooks::{self, Webhooks};

/// Connections that wait to be accepted: after a restart, all clients come at once.
const BACKLOG: u32 = 4096;

/// How often a node looks for what has become due.
const TICK: Duration = Duration::from_millis(100);

/// Time on top of the drain period for the last good-byes.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// Time to take leave of the cluster.
const LAST_LEAVE: Duration = Duration::from_secs(5);

/// Time for the webhooks that were not tried yet.
const LAST_WEBHOOKS: Duration = Duration::from_secs(5);

/// Time to look up where Redis is.
const LOOKUP: Duration = Duration::from_secs(3);

/// Time for the operator's last request.
const LAST_SCRAPE: Duration = Duration::from_secs(1);

/// A server whose ports are bound, and which serves nothing yet.
pub struct Server {
    config: Config,
    node: Arc<Node>,
    authorizers: Arc<Authorizers>,
    shutdown: Shutdown,
    public: TcpListener,
    admin: TcpListener,
    tls: Option<TlsAcceptor>,
    addresses: (SocketAddr, SocketAddr),
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that is in use, not ours or not allowed.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// `server.listen` or `admin.listen`.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or key that cannot be read or used.
    #[error("{setting}: {}: {reason}", path.display())]
    Tls {
        /// `server.tls.certificate` or `server.tls.private_key`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Webhooks cannot be kept or sent.
    #[error(transparent)]
    Webhooks(#[from] webhooks::OpenError),
    /// A setting of the cluster that cannot be used.
    #[error("{0}")]
    Cluster(String),
    /// An authorizer that cannot decide anything.
    #[error(transparent)]
    Authorizer(#[from] SetupError),
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let tls = config.server.tls.as_ref().map(tls::acceptor).transpose()?;
        let shutdown = Shutdown::default();
        let authorizers = Arc::new(Authorizers::new(&config.apps, &shutdown)?);
        let (public, public_address) = listen("server.listen", config.server.listen)?;
        let (admin, admin_address) = listen("admin.listen", config.admin.listen)?;
        let config = reachable_at(config, public_address).await;
        let metrics = Metrics::new();
        let webhooks = Webhooks::open(&config, &metrics)?;
        let max_connections = max_connections(config.server.max_connections);
        let node = Node::new(&config, webhooks, metrics, &shutdown, max_connections).map_err(StartError::Cluster)?;
        let node = Arc::new(node);
        node.metrics().register(Box::new(Gauges(Arc::downgrade(&node))));
        let addresses = (public_address, admin_address);
        Ok(Self { config, node, authorizers, shutdown, public, admin, tls, addresses })
    }

    /// Reads the certificate and the keys that the configuration names, as [`Server::bind`] would.
    ///
    /// # Errors
    /// [`StartError::Tls`] and [`StartError::Authorizer`].
    pub fn check(config: &Config) -> Result<(), StartError> {
        Authorizers::new(&config.apps, &Shutdown::default())?;
        config.server.tls.as_ref().map_or(Ok(()), |tls| tls::acceptor(tls).map(drop))
    }

    /// Where the public listener is.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Where the admin listener is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.addresses.1
    }

    /// Serves until `shutdown` completes, then sends the clients away over the drain period, finishes the requests that
    /// are under way and returns. Dropped before, it stops without good-byes.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        // Answers until the last client is gone: a load balancer asks whether we are ready, and must hear that we are not.
        let admin_shutdown = Shutdown::default();
        let _stop_tasks = (self.shutdown.request_on_drop(), admin_shutdown.request_on_drop());
        let (public, admin) = self.addresses;
        info!(%public, %admin, max_connections = self.node.max_connections(), "listening");
        let deliveries = self.node.webhooks().start();
        let cluster = self.node.cluster().redis().map(|redis| (redis, redis.start()));
        self.authorizers.warn_of_dev();
        self.shutdown.spawn(tick(Arc::clone(&self.node), self.shutdown.clone()));
        let pages = listener::AdminPages { node: Arc::clone(&self.node), shutdown: self.shutdown.clone() };
        admin_shutdown.spawn(listener::serve_admin(self.admin, pages, admin_shutdown.clone()));
        let Config { server, fallbacks, .. } = self.config;
        let fallbacks = Fallbacks::new(
            Arc::clone(&self.node),
            fallbacks,
            server.drain_period,
            server.request_timeout,
            self.shutdown.clone(),
        );
        self.shutdown.spawn(fallback::sweep(Arc::clone(&fallbacks)));
        let router =
            router::Router::new(&server, Arc::clone(&self.node), self.authorizers, fallbacks, self.shutdown.clone());
        self.shutdown.spawn(listener::serve_public(self.public, self.tls, router, self.shutdown.clone()));

        shutdown.await;
        info!("stopping");
        self.shutdown.request();
        let drained = timeout(server.drain_period + LAST_GRACE, self.shutdown.finished()).await;
        if let Some((redis, running)) = cluster {
            redis.leave(running, LAST_LEAVE).await;
        }
        // Only now has everything happened that backends want to hear of.
        self.node.webhooks().stop(deliveries, LAST_WEBHOOKS).await;
        log_limit::report(Instant::now(), true);
        match drained {
            Ok(()) => info!("stopped"),
            Err(_) => warn!("stopped before the last connections had ended"),
        }
        admin_shutdown.request();
        // A scrape that is under way may end; nobody else is waited for.
        let _ = timeout(LAST_SCRAPE, admin_shutdown.finished()).await;
    }
}

/// Housekeeping that no client's message would cause.
async fn tick(node: Arc<Node>, shutdown: Shutdown) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = Instant::now();
                node.tick(now);
                log_limit::report(now, false);
            }
            () = shutdown.requested() => return,
        }
    }
}

fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server must not wait for the old connections' ports.
        socket.set_reuseaddr(true)?;
        // On Linux the connections inherit it, which saves each of them a system call.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| StartError::Bind { setting, address, source })
}

/// The configuration with the URL at which other nodes reach this one.
async fn reachable_at(mut config: Config, public: SocketAddr) -> Config {
    if config.cluster.driver == ClusterDriver::Redis && config.cluster.address.is_empty() {
        let ip = if public.ip().is_unspecified() { outward_ip(&config.cluster.urls).await } else { Some(public.ip()) };
        let ip = ip.unwrap_or_else(|| {
            warn!("cannot tell at which address other nodes reach this one; set cluster.address");
            Ipv4Addr::LOCALHOST.into()
        });
        let scheme = if config.server.tls.is_some() { "https" } else { "http" };
        config.cluster.address = format!("{scheme}://{}", SocketAddr::new(ip, public.port()));
    }
    config
}

/// The address that this machine has towards Redis.
async fn outward_ip(urls: &[String]) -> Option<IpAddr> {
    match RedisUrl::parse(urls.first()?)?.place {
        RedisPlace::Socket(_) => Some(Ipv4Addr::LOCALHOST.into()),
        RedisPlace::Host { name, port, .. } => {
            let redis = timeout(LOOKUP, lookup_host((name, port))).await.ok()?.ok()?.next()?;
            let any: IpAddr = if redis.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            // Nothing is sent: the system only looks up the way.
            let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
            socket.connect(redis).ok()?;
            Some(socket.local_addr().ok()?.ip())
        }
    }
}

/// The configured limit, or what the open-file limit leaves: above it clients can still be told to come back later.
fn max_connections(configured: u64) -> u64 {
    let Ok((open_files, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) else { return configured };
    let reserve = (open_files / 10).clamp(32, 1024);
    let possible = open_files.saturating_sub(reserve).max(1);
    if configured > possible {
        warn!(configured, possible, open_files, "server.max_connections is more than the open-file limit allows");
    }
    if configured == 0 { possible } else { configured.min(possible) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn connections_inherit_that_small_frames_do_not_wait() {
        let (listener, address) = listen("server.listen", ([127, 0, 0, 1], 0).into()).unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}
