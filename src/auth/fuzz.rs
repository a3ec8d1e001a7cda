//! Signed queries, and a verifier that is slow and simple. See [`crate::fuzzing`].

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use crate::apps::App;
use crate::config::AppConfig;

use super::{SignedQuery, md5_hex, sign, sign_request, verify_body};

const KEY: &str = "key";
const SECRET: &str = "secret";
const NOW: u64 = 1_700_000_000;

static APP: LazyLock<App> = LazyLock::new(|| App::new(AppConfig::new("1", KEY, SECRET)));
static OTHER_APP: LazyLock<App> = LazyLock::new(|| App::new(AppConfig::new("1", KEY, "another secret")));

/// The input: a line with the path, one with the query, and the body.
pub(crate) fn signed_queries(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (path, query, body) = (part(), part(), part());
    let (Ok(path), Ok(query)) = (std::str::from_utf8(path), std::str::from_utf8(query)) else { return };
    let method = if body.is_empty() { "GET" } else { "POST" };
    // As it came: whatever it claims, the two must agree.
    check(method, path, query, body);
    // With what is missing, and signed in one of the ways in which libraries do.
    let common = format!("auth_key={KEY}&auth_timestamp={NOW}&auth_version=1.0");
    let digest = if body.is_empty() { String::new() } else { format!("&body_md5={}", md5_hex(body)) };
    let unsigned = format!("{common}{digest}&{query}");
    let (path_as_signed, plus_is_space) = &readings(path)[bytes.len() % 4];
    let text = canonical(method, path_as_signed, &pairs(&unsigned, *plus_is_space));
    let signature = sign(SECRET, &text);
    let signed = format!("{unsigned}&auth_signature={signature}");
    let good = check(method, path, &signed, body);
    // What it claims itself may win over what was put in front of it and behind it.
    let claims = |(name, _): &(String, String)| name.starts_with("auth_") || name == "body_md5";
    if ![true, false].into_iter().any(|plus| pairs(query, plus).iter().any(claims)) {
        assert!(good, "{signed}");
    }
    if good {
        forge(method, path, &signed, &signature, body);
    }
    // What our own tools sign.
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let own = sign_request(KEY, SECRET, method, path, &[("info", query)], body, now);
    assert!(check(method, path, &own, body), "{own}");
}

/// Changes one thing at a time: none of it verifies.
fn forge(method: &str, path: &str, signed: &str, signature: &str, body: &[u8]) {
    let other = if method == "GET" { "POST" } else { "GET" };
    assert!(!check(other, path, signed, body), "another method");
    assert!(!check(method, &format!("{path}/"), signed, body), "another path");
    assert!(!check(method, path, &format!("x=1&{signed}"), body), "another parameter");
    assert!(!check(method, path, signed, &[body, b"x"].concat()), "another body");
    for at in [0, 31, 63] {
        let mut digits = signature.to_owned().into_bytes();
        digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(digits).expect("hex");
        assert!(!check(method, path, &signed.replace(signature, &forged), body), "another signature");
    }
    assert!(!check(method, path, &signed.replace(signature, &signature[..62]), body), "half a signature");
    assert!(!check(method, path, &signed.replace(signature, ""), body), "no signature");
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    assert!(SignedQuery::parse(signed).verify(&OTHER_APP, method, path, now).is_err(), "another secret");
}

/// Whether a request verifies; both verifiers must say the same.
fn check(method: &str, path: &str, query: &str, body: &[u8]) -> bool {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let verdict = SignedQuery::parse(query).verify(&APP, method, path, now);
    let verdict = verdict.and_then(|pairs| verify_body(&pairs, body).map(|()| pairs));
    let expected = slow(method, path, query, body);
    match (&verdict, &expected) {
        (Ok(pairs), Some(meant)) => {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(pairs, *meant, "{query}");
        }
        (Err(_), None) => {}
        _ => panic!("{verdict:?}, but {expected:?}: {method} {path} {query}"),
    }
    verdict.is_ok()
}

/// What the sender of a request meant, if it has signed it.
fn slow(method: &str, path: &str, query: &str, body: &[u8]) -> Option<Vec<(String, String)>> {
    let spaced = pairs(query, true);
    let get = |name: &str| spaced.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let timestamp: i64 = get("auth_timestamp")?.parse().ok()?;
    let window = i128::from(APP.config().limits.auth_timestamp_window.as_secs());
    let in_time = (i128::from(timestamp) - i128::from(NOW)).abs() < window;
    let digest_fits = match get("body_md5") {
        Some(digest) => digest.to_ascii_lowercase() == md5_hex(body),
        None => body.is_empty(),
    };
    if get("auth_key")? != KEY || get("auth_version")? != "1.0" || !in_time || !digest_fits {
        return None;
    }
    let signature = get("auth_signature")?.to_ascii_lowercase();
    let fits =
        |(path, plus): &(String, bool)| sign(SECRET, &canonical(method, path, &pairs(query, *plus))) == signature;
    let (_, plus_is_space) = readings(path).into_iter().find(fits)?;
    Some(pairs(query, plus_is_space))
}

/// The ways in which a path and a plus are understood, in the order in which they are tried.
fn readings(path: &str) -> [(String, bool); 4] {
    let decoded = decode(path);
    [(path.to_owned(), true), (path.to_owned(), false), (decoded.clone(), true), (decoded, false)]
}

fn canonical(method: &str, path: &str, pairs: &[(String, String)]) -> String {
    let mut signed: Vec<_> = pairs.iter().filter(|(name, _)| name != "auth_signature").collect();
    signed.sort_by_key(|(name, _)| name.clone());
    let query: Vec<_> = signed.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}\n{path}\n{}", method.to_ascii_uppercase(), query.join("&"))
}

fn pairs(query: &str, plus_is_space: bool) -> Vec<(String, String)> {
    let text = |text: &str| decode(&if plus_is_space { text.replace('+', " ") } else { text.to_owned() });
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(name).to_lowercase(), text(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

/// Percent-decoding, byte by byte.
fn decode(text: &str) -> String {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::new());
    let mut at = 0;
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
