//! Who may connect (§1.1, §1.2, §1.5).

use std::sync::Arc;

use crate::apps::Seat;
use crate::protocol::{CloseReason, SUPPORTED_VERSIONS};

use super::{Node, Tenant};

/// What a client says about itself when it connects, on any transport.
#[derive(Debug, Clone, Copy, Default)]
pub struct Handshake<'a> {
    /// The app key in the URL.
    pub key: &'a str,
    /// The `protocol` parameter.
    pub protocol: Option<&'a str>,
    /// The `Origin` header; only browsers send one.
    pub origin: Option<&'a str>,
    /// Whether the connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
}

/// A client that may stay.
#[derive(Debug)]
pub struct Admission {
    /// Its app.
    pub tenant: Arc<Tenant>,
    /// Its protocol version.
    pub version: u32,
    /// Its places in the counts of this node and of the app.
    pub places: [Seat; 2],
    /// Its place in the app's quota. Where connections must be authorised, it gets one only then (§1.6).
    pub app_seat: Option<Seat>,
}

/// A client that may not.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub reason: CloseReason,
    /// Its protocol version, if it gave one that makes sense: it decides the form of the refusal.
    pub version: Option<u32>,
}

impl Node {
    /// Decides about a new connection.
    ///
    /// # Errors
    /// A [`Refusal`], to be told with a close frame after the upgrade: a browser cannot read an HTTP status.
    pub fn connect(&self, handshake: &Handshake<'_>) -> Result<Admission, Refusal> {
        let tenant = self.tenants.by_key(handshake.key);
        let assume_7 = tenant.is_some_and(|tenant| tenant.app.config().assume_protocol_7);
        let version = parse_version(handshake.protocol, assume_7)?;
        let refuse = |reason| Refusal { reason, version: Some(version) };
        if !SUPPORTED_VERSIONS.contains(&version) {
            return Err(refuse(CloseReason::UnsupportedVersion));
        }
        let tenant = tenant.ok_or_else(|| refuse(CloseReason::UnknownApp(handshake.key.to_owned())))?;
        let config = tenant.app.config();
        if !config.enabled {
            return Err(refuse(CloseReason::AppDisabled));
        }
        if config.require_tls && !handshake.secure {
            return Err(refuse(CloseReason::TlsRequired));
        }
        if !origin_allowed(&config.allowed_origins, handshake.origin) {
            return Err(refuse(CloseReason::OriginNotAllowed));
        }
        let node_seat = Seat::take(&self.seats, self.max_connections);
        let node_seat = node_seat.ok_or_else(|| refuse(CloseReason::OverCapacity))?;
        let app_seat = match config.authorized_connections {
            true => None,
            false => Some(tenant.app.take_seat().ok_or_else(|| refuse(CloseReason::OverQuota))?),
        };
        tenant.metrics.opened.inc();
        let places = [node_seat, tenant.app.count_connection()];
        Ok(Admission { tenant: Arc::clone(tenant), version, places, app_seat })
    }
}

fn parse_version(protocol: Option<&str>, assume_7: bool) -> Result<u32, Refusal> {
    let refuse = |reason| Refusal { reason, version: None };
    match protocol {
        None if assume_7 => Ok(7),
        None => Err(refuse(CloseReason::NoVersion)),
        Some(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refuse(CloseReason::InvalidVersion));
            }
            // An integer, but none that anybody ever used.
            text.parse().map_err(|_| refuse(CloseReason::UnsupportedVersion))
        }
    }
}

/// A list that is empty, or holds a pattern of this origin. Who sends no origin is no browser.
fn origin_allowed(patterns: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    let origin = origin.to_lowercase();
    let fits = |pattern: &String| match pattern.contains("://") || pattern == "*" {
        true => matches(&pattern.to_lowercase(), &origin),
        false => host(&origin).is_some_and(|host| matches(&pattern.to_lowercase(), host)),
    };
    patterns.is_empty() || patterns.iter().any(fits)
}

/// The host of an origin; `null` has none.
fn host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("://")?;
    // The colons of an IPv6 address stand in brackets.
    let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    Some(&authority[..end.unwrap_or(authority.len())])
}

/// Whether a text is what a pattern says, where `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_as_a_whole() {
        let table = [
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "https://EXAMPLE.com", true),
            ("https://example.com", "https://example.com.evil", false),
            ("https://example.com", "http://example.com", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://a.example.com.evil", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("*", "null", true),
            ("example.com", "https://example.com", true),
            ("example.com", "http://Example.com:8080", true),
            ("example.com", "https://a.example.com", false),
            ("*.example.com", "https://a.example.com:444", true),
            ("example.com", "https://example.com.evil", false),
            ("example.com", "null", false),
            ("localhost", "http://[::1]:80", false),
        ];
        for (pattern, origin, allowed) in table {
            assert_eq!(origin_allowed(&[pattern.to_owned()], Some(origin)), allowed, "{pattern} {origin}");
        }
        assert!(origin_allowed(&["https://a.b".to_owned()], None));
        assert!(origin_allowed(&[], Some("https://a.b")));
    }
}
