//! How much each network address uses: connections, and how quickly it opens new ones. One address must not take the places
//! of all others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use tracing::warn;

use crate::rate_limit::{Bucket, RateLimit};

/// The seconds' worth of new connections that may come at once: offices and schools reconnect together.
const BURST_SECONDS: u32 = 10;

/// How long an address may open connections at any rate after it has sent an authentic API request: many backends open one
/// for every request.
const TRUST: Duration = Duration::from_secs(10 * 60);

/// An IPv4 address, or an IPv6 network of 64 bits, which is what a household has. Every connection has some of these: it is
/// as small as can be.
///
/// The number is the upper half of the IPv6 address. An IPv4 address is the lower half of such a number: those with nothing
/// in the upper half belong to no network (RFC 4291, 2.4 and 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(u64);

/// The connections of all networks. What is counted, sockets or clients, is up to the owner.
#[derive(Debug)]
pub struct Addresses {
    networks: DashMap<Network, Usage, RandomState>,
    limits: AddressLimits,
    new: RateLimit,
}

/// What a network may use.
#[derive(Debug, Clone, Copy)]
pub struct AddressLimits {
    /// Open connections; 0 = no limit.
    pub open: u64,
    /// New connections per second, ten seconds' worth at once; 0 = no limit.
    pub new_per_second: u32,
    /// A loopback or private address may be a proxy with many clients behind it: it is only warned about, above this many
    /// open connections. `None` if that cannot be.
    pub private: Option<u64>,
}

#[derive(Debug, Default)]
struct Usage {
    open: u64,
    new: Bucket,
    trusted_until: Option<Instant>,
}

/// The place of one connection, for as long as it lives.
#[derive(Debug)]
pub struct AddressSeat {
    addresses: Arc<Addresses>,
    network: Network,
}

/// Which limit a connection would break, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// `server.connections_per_address`.
    Open(u64),
    /// `server.new_connections_per_address`.
    New(u32),
}

impl Network {
    /// The network of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Self::of(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
        }
    }

    /// The one network of all clients whose proxy does not say where they are.
    pub fn unknown() -> Self {
        Self(0)
    }

    /// The address itself, or the first one of the network.
    fn ip(self) -> IpAddr {
        match u32::try_from(self.0) {
            Ok(bits) => Ipv4Addr::from_bits(bits).into(),
            Err(_) => Ipv6Addr::from_bits(u128::from(self.0) << 64).into(),
        }
    }

    /// Whether it is this machine, or belongs to a private range.
    pub fn is_private(self) -> bool {
        match self.ip() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                // Those shared by the customers of a provider (RFC 6598) are what clouds give to their own balancers.
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

impl Addresses {
    /// Nobody is here yet.
    pub fn new(limits: AddressLimits) -> Arc<Self> {
        let rate = limits.new_per_second;
        let new = RateLimit::new(rate, rate.saturating_mul(BURST_SECONDS));
        Arc::new(Self { networks: DashMap::default(), limits, new })
    }

    /// Counts one more connection of a network.
    ///
    /// # Errors
    /// The limit that it would break; nothing is counted then.
    pub fn enter(self: &Arc<Self>, network: Network, now: Instant) -> Result<AddressSeat, Excess> {
        let AddressLimits { open, new_per_second, private } = self.limits;
        let private = private.filter(|_| network.is_private());
        let open = private.unwrap_or(open);
        let mut usage = self.networks.entry(network).or_default();
        let trusted = usage.trusted_until.is_some_and(|until| now < until);
        let excess = match open {
            limit if limit > 0 && usage.open >= limit => Some(Excess::Open(limit)),
            _ if !trusted && usage.new.take(&self.new, now).is_err() => Some(Excess::New(new_per_second)),
            _ => None,
        };
        if let Some(excess) = excess {
            if private.is_none() {
                return Err(excess);
            }
            let (peer, setting) = (network, excess.setting());
            warn!(
                %peer, setting,
                "a private address has more connections than one address may; if it is a proxy, set server.trust_forwarded_headers"
            );
        }
        usage.open += 1;
        Ok(AddressSeat { addresses: Arc::clone(self), network })
    }

    /// An authentic backend is at this address: it may open connections at any rate for a while.
    pub fn trust(&self, network: Network, now: Instant) {
        if self.limits.private.is_some() && network.is_private() {
            return;
        }
        if let Some(mut usage) = self.networks.get_mut(&network) {
            usage.trusted_until = Some(now + TRUST);
        }
    }

    /// Forgets networks of which there is nothing to remember. To be called now and then.
    pub fn tidy(&self, now: Instant) {
        self.networks.retain(|_, usage| {
            usage.open > 0 || !usage.new.is_full(now) || usage.trusted_until.is_some_and(|until| now < until)
        });
    }
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        if let Some(mut usage) = self.addresses.networks.get_mut(&self.network) {
            usage.open -= 1;
        }
    }
}

impl Excess {
    /// The setting behind the limit.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Open(_) => "server.connections_per_address",
            Self::New(_) => "server.new_connections_per_address",
        }
    }

    /// What the metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open(_) => "address_limit",
            Self::New(_) => "address_rate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    fn addresses(open: u64, new_per_second: u32, private: Option<u64>) -> Arc<Addresses> {
        Addresses::new(AddressLimits { open, new_per_second, private })
    }

    #[test]
    fn a_household_is_one_network() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:1.2.3.4"), network("1.2.3.4"));
        assert_eq!(network("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn private_networks_are_known() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.31.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(network(text).is_private(), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "0.0.0.0"] {
            assert!(!network(text).is_private(), "{text}");
        }
    }

    #[test]
    fn an_address_has_so_many_connections_and_nothing_is_left_of_them() {
        let (addresses, now) = (addresses(2, 0, Some(2)), Instant::now());
        let public = network("1.2.3.4");
        let (first, _second) = (addresses.enter(public, now).unwrap(), addresses.enter(public, now).unwrap());
        assert_eq!(addresses.enter(public, now).unwrap_err(), Excess::Open(2));
        drop(first);
        let third = addresses.enter(public, now).unwrap();
        // Others are not concerned, and what may be a proxy is spared.
        let others: Vec<_> = ["1.2.3.5", "10.0.0.1", "10.0.0.1", "10.0.0.1"]
            .map(|text| addresses.enter(network(text), now).unwrap())
            .into();
        drop((third, _second, others));
        addresses.tidy(now);
        assert!(addresses.networks.is_empty());
    }

    #[test]
    fn an_address_opens_so_many_connections_a_second_unless_it_is_a_backend() {
        let (addresses, now) = (addresses(0, 5, None), Instant::now());
        let private = network("10.0.0.1");
        let opened = (0..100).filter(|_| addresses.enter(private, now).is_ok()).count();
        assert_eq!(opened, 50);
        assert_eq!(addresses.enter(private, now).unwrap_err(), Excess::New(5));
        assert!(addresses.enter(private, now + Duration::from_millis(200)).is_ok());
        addresses.trust(private, now);
        assert!((0..100).all(|_| addresses.enter(private, now).is_ok()));
        assert!(addresses.enter(private, now + TRUST).is_ok());
        addresses.tidy(now + TRUST / 2);
        assert_eq!(addresses.networks.len(), 1);
    }
}
