//! Addresses of servers, as typed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::Uri;

use crate::config::ServerConfig;

/// Where a server is: `http://127.0.0.1:6001`, or `https://example.com/realtime` behind a path prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    secure: bool,
    authority: String,
    prefix: String,
}

/// The text is not the address of a server.
#[derive(Debug, thiserror::Error)]
#[error("expected http:// or https://, a host and perhaps a port and a path prefix, such as http://127.0.0.1:6001")]
pub(super) struct InvalidUrl;

impl BaseUrl {
    /// A plain server at this address. Port 0 is nobody's.
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { secure: false, authority: address.to_string(), prefix: String::new() }
    }

    /// How to reach, from the same machine, a server with these settings.
    pub(super) fn of_listener(config: &ServerConfig) -> Self {
        let authority = from_here(config.listen).to_string();
        Self { secure: config.tls.is_some(), authority, prefix: config.path_prefix.clone() }
    }

    /// Host with port, and path prefix, of a server without TLS.
    pub(super) fn plain_parts(&self) -> Option<(&str, &str)> {
        (!self.secure).then_some((&*self.authority, &*self.prefix))
    }

    /// The address of a path that begins with a slash.
    pub(super) fn http(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// The same, for a WebSocket.
    pub(super) fn websocket(&self, path: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}{path}", self.authority, self.prefix)
    }
}

/// A listener on all addresses is reached through the loopback one.
pub(super) fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl FromStr for BaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidUrl)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidUrl),
        };
        let authority = uri.authority().ok_or(InvalidUrl)?.to_string();
        if uri.query().is_some() || authority.contains('@') || uri.host().is_none_or(str::is_empty) {
            return Err(InvalidUrl);
        }
        Ok(Self { secure, authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_stands_before_every_path() {
        let url: BaseUrl = "https://example.com/realtime/".parse().unwrap();
        assert_eq!(url.http("/apps/1/events"), "https://example.com/realtime/apps/1/events");
        assert_eq!(url.websocket("/app/k"), "wss://example.com/realtime/app/k");
        let url: BaseUrl = "http://[::1]:6001".parse().unwrap();
        assert_eq!(url.websocket("/app/k"), "ws://[::1]:6001/app/k");
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused() {
        for bad in ["", "localhost:6001", "ws://a", "ftp://a", "http://", "http://u:p@a", "http://a/?b", "/a", "a b"] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_machine() {
        let listening = |address: &str| from_here(address.parse().unwrap()).to_string();
        assert_eq!(listening("0.0.0.0:6001"), "127.0.0.1:6001");
        assert_eq!(listening("[::]:6001"), "[::1]:6001");
        assert_eq!(listening("10.0.0.1:6001"), "10.0.0.1:6001");
    }
}
