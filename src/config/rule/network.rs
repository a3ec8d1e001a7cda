//! Addresses, URLs, headers and origins.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hyper::header::{HeaderName, HeaderValue};

use crate::config::{RedisUrl, Secret};

use super::{Given, MASK, Rule, is_word, items, list, quote, text, texts};

/// An address to send requests to.
pub(in crate::config) fn url(example: &str) -> Rule<String> {
    let expected = format!("an http:// or https:// URL such as {example:?}");
    text("a URL", &expected, is_url)
}

/// The same, or none.
pub(in crate::config) fn optional_url(example: &str) -> Rule<String> {
    let expected = format!("an http:// or https:// URL such as {example:?}, or nothing");
    text("a URL", &expected, |text| text.is_empty() || is_url(text))
}

/// Whether a text is an address that requests can be sent to.
pub fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<hyper::Uri>() else { return false };
    let host = uri.host().is_some_and(|host| !host.is_empty());
    // A user and password would end up in logs; a header is the place for them.
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && host && plain
}

/// Where Redis servers are. Their passwords are never shown, so what is no URL is not shown at all.
pub(in crate::config) fn redis_urls() -> Rule<Vec<String>> {
    let read = |given: &Given| {
        let url = |(index, item): (usize, &Given)| {
            let text = item.text().unwrap_or_default();
            match RedisUrl::parse(text) {
                Some(url) if url.is_masked() => {
                    Err(format!("entry {} has the mask of a printed configuration for a password", index + 1))
                }
                Some(_) => Ok(text.to_owned()),
                None => Err(format!("entry {} is not the URL of a Redis", index + 1)),
            }
        };
        let items = match given {
            Given::Text(_) => Err("a text is not a list".to_owned()),
            _ => items(given),
        };
        items?.iter().enumerate().map(url).collect()
    };
    let expected = "a list of URLs such as \"redis://user:password@redis.example:6379/0\", \"rediss://redis.example\" \
                    (TLS) or \"unix:///run/redis.sock\"";
    Rule::new(expected, read, |urls: &Vec<String>| list(urls.iter().map(|url| quote(&RedisUrl::masked(url)))))
}

/// Where scripts may be loaded from.
pub(in crate::config) fn script_urls() -> Rule<Vec<String>> {
    let expected =
        "URLs such as \"https://js.example.com/sockjs.min.js\", in which `*` stands for any text after the host";
    texts("the URL of a script", expected, |text| {
        let host = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(host, _)| host);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&()*+,;=%".contains(c);
        is_url(text) && text.chars().all(plain) && host.is_some_and(|host| !host.contains('*'))
    })
}

/// Names of headers that are passed on.
pub(in crate::config) fn header_names() -> Rule<Vec<String>> {
    let taken = [
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "transfer-encoding",
    ];
    let allowed =
        move |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| !taken.contains(&name.as_str()));
    texts("a header that can be passed on", "names of headers such as \"X-CSRF-Token\"", allowed)
}

/// HTTP headers of the user's choice. Their values are never shown: a token is usually among them.
pub(in crate::config) fn headers() -> Rule<BTreeMap<String, Secret>> {
    let read = |given: &Given| {
        let pairs = match given {
            Given::Map(pairs) => pairs.clone(),
            Given::Untyped(text) if text.is_empty() => Vec::new(),
            Given::Untyped(text) => {
                let pair = |pair: &str| {
                    let (name, value) = pair.split_once(':')?;
                    Some((name.trim().to_owned(), Given::Text(value.trim().to_owned())))
                };
                text.split(',').map(pair).collect::<Option<_>>().ok_or("a header has no colon")?
            }
            _ => return Err(format!("{given} is not a table")),
        };
        let header = |(name, value): (String, Given)| {
            let Some(text) = value.text() else { return Err(format!("the value of {name:?} is not a text")) };
            if text == MASK {
                return Err(format!("the value of {name:?} is the mask of a printed configuration"));
            }
            let valid = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(text).is_ok();
            let taken = ["content-type", "content-length", "host", "transfer-encoding", "connection"];
            let reserved = taken.contains(&&*name.to_lowercase())
                || ["x-pusher-", "x-fanfare-"].iter().any(|own| name.to_lowercase().starts_with(own));
            match (valid, reserved) {
                (true, false) => Ok((name, Secret::new(text))),
                (true, true) => Err(format!("{name:?} is set by Fanfare itself")),
                (false, _) => Err(format!("{name:?} or its value cannot stand in a header")),
            }
        };
        pairs.into_iter().map(header).collect()
    };
    let expected = "headers such as { \"X-Tenant\" = \"a\" }, in the environment X-Tenant: a, X-Other: b";
    // What is printed never shows the values; the writer knows.
    Rule::new(expected, read, |_| "{}".to_owned())
}

/// Where to listen.
pub(in crate::config) fn address() -> Rule<SocketAddr> {
    let read = |given: &Given| {
        let address = given.text().and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("{given} is not an address"))
    };
    Rule::new(
        "host:port with an IP address as host, such as 0.0.0.0:6001 or [::]:6001",
        read,
        |address: &SocketAddr| quote(&address.to_string()),
    )
}

/// Patterns of origins.
pub(in crate::config) fn origins() -> Rule<Vec<String>> {
    let expected = "origins such as \"https://*.example.com\" or \"http://localhost:*\", hosts such as \"example.com\", or \"*\" for any";
    texts("an origin", expected, is_origin_pattern)
}

fn is_origin_pattern(text: &str) -> bool {
    let is_name = |host: &str| !host.is_empty() && host.chars().all(|c| is_word(c) || ".*".contains(c));
    let Some((scheme, authority)) = text.split_once("://") else { return is_name(text) };
    // The colons of an IPv6 address stand in brackets, so only one after them leads to a port.
    let colon = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[colon..].rfind(':') {
        Some(at) => (&authority[..colon + at], &authority[colon + at + 1..]),
        None => (authority, "*"),
    };
    let is_host = |host: &str| match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.*".contains(c));
    is_scheme && is_host(host) && (port == "*" || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_patterns_look_like_origins() {
        let good = [
            "*",
            "https://example.com",
            "https://*.example.com",
            "http://localhost:3000",
            "http://localhost:*",
            "*://example.com",
            "https://*",
            "http://[::1]:8080",
            "http://[::1]",
            "capacitor://localhost",
            "example.com",
            "*.example.com",
        ];
        for pattern in good {
            assert!(is_origin_pattern(pattern), "{pattern}");
        }
        let bad = [
            "",
            "example.com:443",
            "example.com/",
            "https://",
            "://example.com",
            "https://example.com/",
            "https://example.com/chat",
            "https://example.com:",
            "https://example.com:99999",
            "https://user@example.com",
            "https://a b",
            "http://[::1",
            "http://[x]",
        ];
        for pattern in bad {
            assert!(!is_origin_pattern(pattern), "{pattern}");
        }
    }
}
