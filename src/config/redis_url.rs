//! The URL of a Redis server: `redis://[user[:password]@]host[:port][/database]`, the same with `rediss://` for TLS, or
//! `unix:///path/to/socket`.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::Secret;
use super::rule::MASK;

/// Where Redis listens if nobody says otherwise.
const DEFAULT_PORT: u16 = 6379;

/// A Redis server, and who asks it. `Display` shows it as a URL, with a mask in place of the password.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisUrl {
    /// Where it listens.
    pub place: RedisPlace,
    /// The ACL user; empty: `default`.
    pub user: String,
    /// The password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
}

/// Where a Redis server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    /// A host, reached over TCP.
    Host {
        /// A name or an address, without the brackets of IPv6.
        name: String,
        /// The port.
        port: u16,
        /// Over TLS.
        tls: bool,
    },
    /// A socket of this machine.
    Socket(String),
}

impl RedisUrl {
    /// Reads a URL; `None`: it is none. User and password may be percent-encoded.
    pub fn parse(url: &str) -> Option<Self> {
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        if let Some(path) = url.strip_prefix("unix://") {
            let place = RedisPlace::Socket(path.to_owned());
            let named = path.len() > 1 && path.starts_with('/');
            return named.then_some(Self { place, user: String::new(), password: None, database: 0 });
        }
        let (scheme, rest) = url.split_once("://")?;
        let tls = ["redis", "rediss"].iter().position(|known| *known == scheme)? == 1;
        // Nothing behind the user may have an `@`, but a password can have one that somebody forgot to encode.
        let (credentials, server) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(Secret::new(decode(password)?))),
            None => (credentials, None),
        };
        let (authority, database) = server.split_once('/').unwrap_or((server, ""));
        let database = if database.is_empty() { 0 } else { decimal(database)?.parse().ok()? };
        let (name, port) = host_and_port(authority)?;
        Some(Self { place: RedisPlace::Host { name, port, tls }, user: decode(user)?, password, database })
    }

    /// A URL, or whatever stands in place of one, with a mask for the password: for messages.
    pub fn masked(url: &str) -> String {
        Self::parse(url).map_or_else(|| MASK.to_owned(), |_| mask(url))
    }

    /// Whether somebody put in a URL that was printed, without its password.
    pub(super) fn is_masked(&self) -> bool {
        self.password.as_ref().is_some_and(|password| password.expose() == MASK)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, port, scheme) = match &self.place {
            RedisPlace::Socket(path) => return write!(f, "unix://{path}"),
            RedisPlace::Host { name, port, tls } => (name, port, if *tls { "rediss" } else { "redis" }),
        };
        write!(f, "{scheme}://{}", self.user)?;
        if self.password.is_some() {
            write!(f, ":{MASK}")?;
        }
        let at = if self.user.is_empty() && self.password.is_none() { "" } else { "@" };
        let [open, close] = if name.contains(':') { ["[", "]"] } else { ["", ""] };
        write!(f, "{at}{open}{name}{close}:{port}")?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

/// A good URL as it was written, but for its password.
fn mask(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (credentials, server) = rest.rsplit_once('@').filter(|_| scheme != "unix")?;
        let (user, _) = credentials.split_once(':')?;
        Some(format!("{scheme}://{user}:{MASK}@{server}"))
    });
    parts.unwrap_or_else(|| url.to_owned())
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    // The colons of an IPv6 address stand in brackets, so only one after them leads to a port.
    let end = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[end..].rfind(':') {
        Some(at) => (&authority[..end + at], decimal(&authority[end + at + 1..])?.parse().ok()?),
        None => (authority, DEFAULT_PORT),
    };
    let name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|_| address)?,
        None => Some(host).filter(|host| !host.is_empty() && host.chars().all(is_of_host))?,
    };
    (port != 0).then(|| (name.to_owned(), port))
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// The text, if it is all digits: `parse` takes a sign as well.
fn decimal(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16, tls: bool) -> RedisPlace {
        RedisPlace::Host { name: name.to_owned(), port, tls }
    }

    #[test]
    fn a_url_says_where_redis_is_and_who_asks() {
        let url = |place, user: &str, password: Option<&str>, database| RedisUrl {
            place,
            user: user.to_owned(),
            password: password.map(Secret::new),
            database,
        };
        let table = [
            ("redis://redis", url(host("redis", 6379, false), "", None, 0)),
            ("redis://127.0.0.1:7000/", url(host("127.0.0.1", 7000, false), "", None, 0)),
            ("redis://[::1]", url(host("::1", 6379, false), "", None, 0)),
            ("rediss://[::1]:7/15", url(host("::1", 7, true), "", None, 15)),
            ("rediss://r.example:6380/3", url(host("r.example", 6380, true), "", None, 3)),
            ("redis://ann@redis", url(host("redis", 6379, false), "ann", None, 0)),
            ("redis://:p@redis", url(host("redis", 6379, false), "", Some("p"), 0)),
            ("redis://ann:p%40s/@:s%3A@redis:1", url(host("redis", 1, false), "ann", Some("p@s/@:s:"), 0)),
            ("unix:///run/redis/a@b:c", url(RedisPlace::Socket("/run/redis/a@b:c".to_owned()), "", None, 0)),
        ];
        for (text, expected) in table {
            assert_eq!(RedisUrl::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_redis_is_refused() {
        let bad = [
            "",
            "redis",
            "127.0.0.1:6379",
            "redis:redis",
            "redis:///0",
            "redis://:6379",
            "redis://a:0",
            "redis://a:65536",
            "redis://a:+1",
            "redis://a:b@",
            "redis://a/b",
            "redis://a/-1",
            "redis://a/0/0",
            "redis://a?db=1",
            "redis://a/1#insecure",
            "redis://a b",
            "redis://a,b",
            "redis://[::1",
            "redis://[x]",
            "redis://::1",
            "redis://%ff@a",
            "Redis://a",
            "http://a",
            "unix://",
            "unix:///",
            "unix://run/redis",
        ];
        for text in bad {
            assert_eq!(RedisUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_password_is_masked_and_all_else_is_shown() {
        let table = [
            ("redis://redis:6379", "redis://redis:6379", "redis://redis:6379"),
            ("redis://redis/", "redis://redis/", "redis://redis:6379"),
            ("redis://ann@redis/2", "redis://ann@redis/2", "redis://ann@redis:6379/2"),
            ("rediss://:hunter2@[::1]", "rediss://:********@[::1]", "rediss://:********@[::1]:6379"),
            ("redis://a:hunter2@hunter2@b:1", "redis://a:********@b:1", "redis://a:********@b:1"),
            ("unix:///a:b@c", "unix:///a:b@c", "unix:///a:b@c"),
            // Whatever is wrong with it, there may be a password in it.
            ("redis://a:hunter2@b:99999", "********", ""),
        ];
        for (url, masked, shown) in table {
            assert_eq!(RedisUrl::masked(url), masked);
            let parsed = RedisUrl::parse(url);
            assert_eq!(parsed.as_ref().map(ToString::to_string).unwrap_or_default(), shown);
            assert!(!format!("{parsed:?}").contains("hunter2"), "{parsed:?}");
        }
    }
}
