//! Builds everything bottom-up, binds, serves and drains.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gauges;
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

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::addresses::{AddressLimits, Addresses};
use crate::admin;
use crate::authorizers::{self, Authorizers, SetupError};
use crate::body_budget::BodyBudget;
use crate::config::{ClusterDriver, Config, RedisPlace, RedisUrl, ServerConfig};
use crate::fallback::{self, Fallbacks};
use crate::log_limit;
use crate::metrics::Metrics;
use crate::node::{Gauges, Node};
use crate::open_sockets::OpenSockets;
use crate::shutdown::Shutdown;
use crate::webhooks::{self, Webhooks};
use crate::websocket::TimeLimits;

/// Connections that wait to be accepted: after a restart, all clients come at once.
const BACKLOG: u32 = 4096;

/// How often a node looks for what has become due.
const TICK: Duration = Duration::from_millis(100);

/// How often addresses are forgotten of which nothing is left.
const TIDY: Duration = Duration::from_secs(1);

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
    /// Sockets that the public listener may have open.
    max_sockets: usize,
    /// Clients by address.
    clients: Arc<Addresses>,
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
        let (public, public_address) = listen("server.listen", config.server.listen, Some(&config.server))?;
        let (admin, admin_address) = listen("admin.listen", config.admin.listen, None)?;
        let config = reachable_at(config, public_address).await;
        let metrics = Metrics::new();
        let webhooks = Webhooks::open(&config, &metrics)?;
        let Capacity { clients: max_connections, sockets: max_sockets } = capacity(config.server.max_connections);
        let clients = Addresses::new(address_limits(&config.server, max_connections));
        let node = Node::new(&config, webhooks, metrics, &shutdown, max_connections, Arc::clone(&clients));
        let node = node.map_err(StartError::Cluster)?;
        let node = Arc::new(node);
        node.metrics().register(Box::new(Gauges(Arc::downgrade(&node))));
        node.metrics().register(Box::new(authorizers::Gauges(Arc::downgrade(&authorizers))));
        let addresses = (public_address, admin_address);
        Ok(Self { config, node, authorizers, shutdown, public, admin, tls, addresses, max_sockets, clients })
    }

    /// Reads the certificate and the keys that the configuration names, as [`Server::bind`] would.
    ///
    /// # Errors
    /// [`StartError::Tls`] and [`StartError::Authorizer`].
    pub fn check(config: &Config) -> Result<(), StartError> {
        Authorizers::new(&config.apps, &Shutdown::default())?;
        config.server.tls.as_ref().map_or(Ok(()), |tls| tls::acceptor(tls).map(drop))
    }

    /// The clients that the open-file limit of this process leaves room for; `None` where the system does not say.
    pub fn most_connections() -> Option<u64> {
        let (open_files, _) = rlimit::getrlimit(rlimit::Resource::NOFILE).ok()?;
        Some(room(open_files).0)
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
        let limits = address_limits(&self.config.server, self.node.max_connections());
        let sockets = Addresses::new(limits);
        let by_address = [self.clients, Arc::clone(&sockets)];
        self.shutdown.spawn(tick(Arc::clone(&self.node), by_address, self.shutdown.clone()));
        let hosts = self.config.admin.hosts.as_slice().into();
        let pages = admin::Context { node: Arc::clone(&self.node), shutdown: self.shutdown.clone(), hosts };
        admin_shutdown.spawn(listener::serve_admin(self.admin, pages, admin_shutdown.clone()));
        let Config { server, fallbacks, .. } = self.config;
        let heartbeat = fallbacks.heartbeat;
        let bodies = BodyBudget::new(server.body_memory, self.node.metrics().bodies_evicted());
        let fallbacks = Fallbacks::new(
            Arc::clone(&self.node),
            fallbacks,
            TimeLimits::of(&server),
            bodies.clone(),
            self.shutdown.clone(),
        );
        self.shutdown.spawn(fallback::sweep(Arc::clone(&fallbacks)));
        let open_sockets = OpenSockets::new(self.max_sockets);
        let (held, max_connections) = (Arc::clone(&open_sockets), self.node.max_connections());
        let gauges = gauges::Gauges { sockets: held, bodies: bodies.clone(), max_connections };
        self.node.metrics().register(Box::new(gauges));
        let router = router::Router::new(
            &server,
            Arc::clone(&self.node),
            self.authorizers,
            fallbacks,
            Arc::clone(&sockets),
            bodies,
            self.shutdown.clone(),
        );
        let public = listener::Public {
            router,
            tls: self.tls,
            sockets: open_sockets,
            addresses: (!server.trust_forwarded_headers).then_some(sockets),
            metrics: self.node.metrics().clone(),
            http2_streams: server.http2_streams,
            answer_timeout: server.write_timeout + heartbeat,
        };
        self.shutdown.spawn(listener::serve_public(self.public, public, self.shutdown.clone()));

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
async fn tick(node: Arc<Node>, by_address: [Arc<Addresses>; 2], shutdown: Shutdown) {
    let mut ticks = interval(TICK);
    let mut tidied = Instant::now();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = Instant::now();
                node.tick(now);
                log_limit::report(now, false);
                if now >= tidied + TIDY {
                    tidied = now;
                    by_address.iter().for_each(|addresses| addresses.tidy(now));
                }
            }
            () = shutdown.requested() => return,
        }
    }
}

/// Binds a listener. `server` has what the sockets of strangers need.
fn listen(
    setting: &'static str,
    address: SocketAddr,
    server: Option<&ServerConfig>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server must not wait for the old connections' ports.
        socket.set_reuseaddr(true)?;
        // On Linux the connections inherit it, which saves each of them a system call.
        socket.set_nodelay(true)?;
        if let Some(server) = server {
            bound_sending(&socket, server)?;
        }
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| StartError::Bind { setting, address, source })
}

/// Bounds what the system keeps for a client that does not read, and for how long: connections inherit it, too.
fn bound_sending(socket: &TcpSocket, server: &ServerConfig) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if server.send_buffer > 0 {
        socket.set_send_buffer_size(server.send_buffer)?;
    }
    // Later than we do it ourselves, and with a reason: this is for what the kernel still has of closed connections.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(server.write_timeout + LAST_GRACE))?;
    Ok(())
}

/// What an address may use: in no case more than half of what there is.
fn address_limits(server: &ServerConfig, max_connections: u64) -> AddressLimits {
    let half = if max_connections == 0 { u64::MAX } else { (max_connections / 2).max(1) };
    AddressLimits {
        open: server.connections_per_address.min(half),
        new_per_second: server.new_connections_per_address,
        private: (!server.trust_forwarded_headers).then_some(server.connections_per_address),
    }
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

/// How many connections the open-file limit allows.
struct Capacity {
    /// Clients; 0 = no limit.
    clients: u64,
    /// Sockets of the public listener. Above the number of clients there is room to tell others to come back later, and
    /// for the API.
    sockets: usize,
}

/// What the open-file limit leaves, and what is configured.
fn capacity(configured: u64) -> Capacity {
    let Ok((open_files, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) else {
        return Capacity { clients: configured, sockets: usize::MAX };
    };
    let (possible, reserve) = room(open_files);
    if configured > possible {
        warn!(configured, possible, open_files, "server.max_connections is more than the open-file limit allows");
    }
    let clients = if configured == 0 { possible } else { configured.min(possible) };
    Capacity { clients, sockets: usize::try_from(possible + reserve / 2).unwrap_or(usize::MAX) }
}

/// The open files that clients may have, and the rest. An eighth of all is no client's: half of it is for further requests to
/// the public listener, half for the operator, Redis, webhooks and files.
fn room(open_files: u64) -> (u64, u64) {
    let reserve = (open_files / 8).clamp(64, 2048).min(open_files / 2);
    (open_files.saturating_sub(reserve).max(1), reserve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn connections_inherit_how_they_send() {
        let (listener, address) =
            listen("server.listen", ([127, 0, 0, 1], 0).into(), Some(&Config::default().server)).unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        let (socket, server) = (SockRef::from(&stream), Config::default().server);
        // The kernel doubles it, for what it needs itself.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * server.send_buffer);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(server.write_timeout + LAST_GRACE));
    }
}
