//! By which names the admin listener may be addressed. A page on the internet can have its own name point to an address in
//! the operator's network, and a browser there lets it read what it finds (DNS rebinding); the name is what gives it away.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};
use tracing::warn;

use crate::untrusted::Untrusted;

/// Checks for whom a request is.
///
/// # Errors
/// The status and the text for one that is for somebody else, or does not say for whom it is.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, names: &[String]) -> Result<(), (StatusCode, &'static str)> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, further) = (hosts.next(), hosts.next());
    // HTTP/2 has the authority in its place, and a request as for a proxy has both. Either may be what a browser meant.
    let authority = uri.authority().map(Authority::as_str);
    if further.is_some() || (host.is_none() && authority.is_none()) {
        let text = if further.is_some() { "Two Host headers\n" } else { "No Host header\n" };
        return Err((StatusCode::BAD_REQUEST, text));
    }
    // What is not ASCII is no name either.
    let host = host.map(|host| host.to_str().unwrap_or_default());
    match [authority, host].into_iter().flatten().find(|host| !is_ours(host, names)) {
        None => Ok(()),
        Some(stranger) => {
            warn!(host = %Untrusted(stranger), "admin request for another host refused; admin.hosts lists further names");
            let text = "Not a name of this server. The admin listener is addressed as localhost, by its IP address, or by a \
                        name in the setting admin.hosts.\n";
            Err((StatusCode::MISDIRECTED_REQUEST, text))
        }
    }
}

/// Whether this is `localhost`, an IP address, or one of these names, with a port or without.
fn is_ours(host: &str, names: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(address) = name.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_address = || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    let is_listed = || names.iter().any(|own| own.trim_end_matches('.').eq_ignore_ascii_case(&name));
    name == "localhost" || name.ends_with(".localhost") || is_address() || is_listed()
}

fn without_port(host: &str) -> Option<&str> {
    // The colons in brackets are those of an address.
    let end_of_address = host.find(']').map_or(0, |end| end + 1);
    match host[end_of_address..].find(':') {
        None => Some(host),
        Some(colon) => {
            let (name, port) = (&host[..end_of_address + colon], &host[end_of_address + colon + 1..]);
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_addresses_and_listed_names_are_ours() {
        let names = ["fanfare.internal".to_owned()];
        let ours = [
            "localhost",
            "LOCALHOST:9601",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "10.0.0.5:9601",
            "[::1]",
            "[2001:db8::1]:9601",
            "fanfare.internal",
            "Fanfare.Internal.:9601",
            "localhost:",
        ];
        for host in ours {
            assert!(is_ours(host, &names), "{host}");
        }
        let others = [
            "",
            ":9601",
            "evil.test",
            "localhost.evil.test",
            "evillocalhost",
            "127.0.0.1.evil.test",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "[::1]evil.test",
            "[127.0.0.1]",
            "[evil.test]",
            "user@localhost",
            "localhost:9601@evil.test",
            "localhost:9601:1",
            "x.fanfare.internal",
            "fanfare.internal,evil.test",
            "localhost evil.test",
        ];
        for host in others {
            assert!(!is_ours(host, &names), "{host}");
        }
    }
}
