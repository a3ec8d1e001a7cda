//! Requests of the HTTP API (§4.2): what is signed, and by whom.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::apps::App;

/// Why a request is not believed. The texts are Pusher's where they are known; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A parameter that every request needs.
    #[error("Missing parameter: {0}")]
    Missing(&'static str),
    /// No app has this key, or not the one in the path.
    #[error("Unknown auth_key")]
    UnknownKey,
    /// No `auth_version`.
    #[error("Version required")]
    NoVersion,
    /// Another one than `1.0`.
    #[error("Version not supported")]
    Version,
    /// No `auth_timestamp`, or no integer.
    #[error("Timestamp required")]
    NoTimestamp,
    /// Too far from our clock.
    #[error("Timestamp expired: Given timestamp ({given}) not within {window}s of server time ({now})")]
    Expired {
        /// The request's time.
        given: String,
        /// The app's `auth_timestamp_window`, in seconds.
        window: u64,
        /// Our time.
        now: String,
    },
    /// The body is not the one that was signed.
    #[error("Invalid body_md5")]
    BodyMd5,
    /// Another secret, or another text.
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex(\"{text}\", your_secret_key), but you sent \"{signature}\"{detail}"
    )]
    Signature {
        /// What should have been signed, with its line ends as `\n`.
        text: String,
        /// What was sent.
        signature: String,
        /// For apps with `debug`: the clock skew.
        detail: String,
    },
}

/// What is encoded in a value: all that the URL standard does not call unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A parameter, or a field of a form: its name and its value. Most are in the text as they are meant.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The query of a request, before anybody believed it.
#[derive(Debug)]
pub struct SignedQuery<'a> {
    raw: &'a str,
    pairs: Vec<Pair<'a>>,
}

impl<'a> SignedQuery<'a> {
    /// Reads a query string; nothing in it can be wrong yet.
    pub fn parse(raw: &'a str) -> Self {
        Self { raw, pairs: query_pairs(raw, true) }
    }

    /// The first value of a parameter; names are lower-case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Verifies that `app` sent this request, by its head alone: key, version, clock and signature, in this order. The
    /// signature covers the digest of the body, so that whoever has no secret need not even send one. Returns the parameters
    /// as the sender meant them, in the order of the request, with lower-case names.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn verify(self, app: &App, method: &str, path: &str, now: SystemTime) -> Result<Vec<Pair<'a>>, RequestError> {
        let key = self.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
        let mac = app.mac(key).ok_or(RequestError::UnknownKey)?;
        match self.get("auth_version") {
            None => return Err(RequestError::NoVersion),
            Some("1.0") => {}
            Some(_) => return Err(RequestError::Version),
        }
        let timestamp = self.get("auth_timestamp").and_then(|text| text.parse::<i64>().ok());
        let timestamp = timestamp.ok_or(RequestError::NoTimestamp)?;
        let skew = check_clock(timestamp, now, app.config().limits.auth_timestamp_window)?;
        let signature = self.get("auth_signature").unwrap_or_default();
        let signs = |path: &str, pairs: &[Pair<'_>]| super::verify(mac, &canonical(method, path, pairs), signature);
        if signs(path, &self.pairs) {
            return Ok(self.pairs);
        }
        for (path, pairs) in self.other_readings(path) {
            if signs(&path, pairs.as_deref().unwrap_or(&self.pairs)) {
                return Ok(pairs.unwrap_or(self.pairs));
            }
        }
        Err(RequestError::Signature {
            text: canonical(method, path, &self.pairs).replace('\n', "\\n"),
            signature: signature.chars().take(128).collect(),
            detail: match app.config().debug {
                true => format!(" (the server's clock is {skew:+} s from auth_timestamp)"),
                false => String::new(),
            },
        })
    }

    /// The other ways in which libraries understand one request: most sign the path as sent and a `+` in the query as a
    /// space, some the decoded path, some the `+` itself. No pairs are those that are known.
    fn other_readings<'p>(&self, path: &'p str) -> Vec<(Cow<'p, str>, Option<Vec<Pair<'a>>>)> {
        let decoded = Some(percent_decode_str(path).decode_utf8_lossy()).filter(|decoded| decoded != path);
        let literal_plus = self.raw.contains('+').then(|| query_pairs(self.raw, false));
        let mut readings = Vec::new();
        readings.extend(literal_plus.clone().map(|pairs| (Cow::Borrowed(path), Some(pairs))));
        readings.extend(decoded.clone().map(|path| (path, None)));
        readings.extend(decoded.zip(literal_plus).map(|(path, pairs)| (path, Some(pairs))));
        readings
    }
}

/// Verifies that this is the body whose digest was signed with the query.
///
/// # Errors
/// [`RequestError::BodyMd5`], or the digest is missing.
pub fn verify_body(query: &[Pair<'_>], body: &[u8]) -> Result<(), RequestError> {
    match query.iter().find(|(name, _)| name == "body_md5") {
        Some((_, digest)) if super::is_md5(digest, body) => Ok(()),
        Some(_) => Err(RequestError::BodyMd5),
        None if body.is_empty() => Ok(()),
        None => Err(RequestError::Missing("body_md5")),
    }
}

/// Signs a request as the server libraries do: the query string to send.
pub fn sign_request(
    key: &str,
    secret: &str,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &[u8],
    now: SystemTime,
) -> String {
    let seconds = seconds_since_epoch(now).to_string();
    let digest = super::md5_hex(body);
    let mut pairs = vec![("auth_key", key), ("auth_timestamp", &seconds), ("auth_version", "1.0")];
    if !body.is_empty() {
        pairs.push(("body_md5", &digest));
    }
    pairs.extend(query);
    let signed: Vec<Pair<'_>> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let signature = super::sign(secret, &canonical(method, path, &signed));
    pairs.push(("auth_signature", &signature));
    let encode = |text| percent_encoding::utf8_percent_encode(text, &RESERVED);
    // Parameter names are plain words and underscores, which need no encoding.
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// The parameters of a query string, decoded, in order, with lower-case names.
pub fn query_pairs(raw: &str, plus_is_space: bool) -> Vec<Pair<'_>> {
    let mut pairs = form_pairs(raw, plus_is_space);
    for (name, _) in &mut pairs {
        // All bytes rather than up to the first one: without a branch for each that is faster.
        if name.bytes().fold(false, |unusual, b| unusual | b.is_ascii_uppercase() | !b.is_ascii()) {
            *name = name.to_lowercase().into();
        }
    }
    pairs
}

/// The fields of a form, or of a query string, decoded, in order.
pub fn form_pairs(raw: &str, plus_is_space: bool) -> Vec<Pair<'_>> {
    // Room for the parameters of a signature, and some more.
    let mut pairs = Vec::with_capacity(8);
    let is_plain = memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none();
    let decode = |text| if is_plain { Cow::Borrowed(text) } else { decode(text, plus_is_space) };
    let mut rest = raw;
    while !rest.is_empty() {
        let (pair, others) = cut(rest, b'&');
        if !pair.is_empty() {
            let (name, value) = cut(pair, b'=');
            pairs.push((decode(name), decode(value)));
        }
        rest = others;
    }
    pairs
}

/// What is before and after the first of these bytes, which are ASCII. Every request has many, and the standard library
/// looks for them one by one.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

fn decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if plus_is_space && text.contains('+') {
        let text = text.replace('+', " ");
        return percent_decode_str(&text).decode_utf8_lossy().into_owned().into();
    }
    percent_decode_str(text).decode_utf8_lossy()
}

/// The text to sign.
fn canonical(method: &str, path: &str, pairs: &[Pair<'_>]) -> String {
    let mut signed: Vec<_> = pairs.iter().filter(|(name, _)| name != "auth_signature").collect();
    // Stable: the values of an array stay in the order of the request.
    signed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let length: usize = signed.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut text = String::with_capacity(method.len() + path.len() + length + 2);
    text.push_str(method);
    text.make_ascii_uppercase();
    text.push('\n');
    text.push_str(path);
    for (index, (name, value)) in signed.iter().enumerate() {
        text.push(if index == 0 { '\n' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    if signed.is_empty() {
        text.push('\n');
    }
    text
}

/// Seconds from the request's time to ours.
fn check_clock(timestamp: i64, now: SystemTime, window: Duration) -> Result<i64, RequestError> {
    let seconds = seconds_since_epoch(now);
    let skew = seconds.saturating_sub(timestamp);
    if skew.unsigned_abs() < window.as_secs() {
        return Ok(skew);
    }
    Err(RequestError::Expired { given: date(timestamp), window: window.as_secs(), now: date(seconds) })
}

fn seconds_since_epoch(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// `2015-01-01T00:00:00Z`, or the bare number for a year that has no such form.
fn date(timestamp: i64) -> String {
    OffsetDateTime::from_unix_timestamp(timestamp)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| timestamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AppConfig;

    fn verify<'q>(
        (key, secret): (&str, &str),
        method: &str,
        path: &str,
        query: &'q str,
        time: u64,
        body: &str,
    ) -> Result<Vec<Pair<'q>>, RequestError> {
        let app = App::new(AppConfig::new("1", key, secret));
        let now = UNIX_EPOCH + Duration::from_secs(time);
        let query = SignedQuery::parse(query).verify(&app, method, path, now)?;
        verify_body(&query, body.as_bytes()).map(|()| query)
    }

    #[test]
    fn worked_examples_verify() {
        let docs = ("278d425bdf160c739803", "7ad3773142a6692b25b8");
        let (plain, node, ours) = (("key", "secret"), ("f00d", "tofu"), ("app-key-1", "app-secret-1"));
        let common = "auth_key=app-key-1&auth_timestamp=1700000000&auth_version=1.0";
        let greet = r#"{"name":"greet","channels":["room-1","room-2"],"data":"{\"msg\":\"héllo\"}","socket_id":"123.456","info":"subscription_count"}"#;
        let batch = r#"{"batch":[{"channel":"room-1","name":"greet","data":"{}"},{"channel":"room-2","name":"greet","data":"{}"}]}"#;
        let table = [
            (docs, "POST", "/apps/3/events", "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f".to_owned(), r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#, "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"),
            (plain, "POST", "/some/path", "auth_key=key&auth_timestamp=1234&auth_version=1.0&QUERY=params&go=here".into(), "", "3b237953a5ba6619875cbb2a2d43e8da9ef5824e8a2c689f6284ac85bc1ea0db"),
            (plain, "post", "/some/path", "auth_key=key&auth_timestamp=1234&auth_version=1.0&query=params".into(), "", "da078fcedd72941b6c873caa40d0d6b2000ebfc700cee802b128dd20f72e74e9"),
            (node, "GET", "/event", "auth_key=f00d&auth_timestamp=1234567890&auth_version=1.0&foo=bar&baz=123454321".into(), "", "d8bdbd31911fb7400a14fbd36fd7de053494725b64400ae5856deafe304b34a9"),
            (node, "GET", "/event", "auth_key=f00d&auth_timestamp=1234567890&auth_version=1.0&body_md5=165d5e6d7ca8f73b3853ce45addf42fc".into(), "example body", "a650196dc427ebe837226f8565ca9232198c6d1b9455eaa72374a9dc0b620e7b"),
            (plain, "GET", "/some/obscure/api", "auth_key=key&auth_timestamp=1000&auth_version=1.0&body_md5=d41d8cd98f00b204e9800998ecf8427e&foo=bar".into(), "", "5c49f04a95eedc9028b1e0e8de7c2c7ad63504a0e3b5c145d2accaef6c14dbac"),
            (plain, "POST", "/some/obscure/api", "auth_key=key&auth_timestamp=1000&auth_version=1.0&body_md5=94232c5b8fc9272f6f73a1e36eb68fcf".into(), r#"{"foo": "bar"}"#, "e05fa4cafee86311746ee3981d5581a5e4e87c27bbab0aeb1059e2df5c90258b"),
            (ours, "GET", "/apps/42/channels", format!("{common}&info=user_count%2Csubscription_count&filter_by_prefix=presence-"), "", "77a98fc5f38b7a0b562eb01226e4ef248250ed87a39f9e3ea64cc86e48af9cfc"),
            (ours, "GET", "/apps/42/channels/presence-room%401%2C2", format!("{common}&info=user_count"), "", "51d7555a1d643247b5f51b8acd38e5d444eb2bb0b62196832b52b7232147a810"),
            (ours, "POST", "/apps/42/events", format!("{common}&body_md5=7c3d0946da4a3551325fc43c1d91bffc"), greet, "6f8c470157dd571f2429c9ba31f53a72ef67d236ef2a1a6c05e85acb16d0b956"),
            (ours, "POST", "/apps/42/batch_events", format!("{common}&body_md5=45315d7b8324360aaf02b48a6d9011c4"), batch, "38671bf1839932f8d24fddc5c5468cb1a097e91dd3d392ea80652e519f70bc1d"),
            (ours, "POST", "/apps/42/users/u-1/terminate_connections", format!("{common}&body_md5=99914b932bd37a50b983c5e7c90ae93b"), "{}", "9edea49b3b9598fe91026fb42fa81c2e39424421bf8c3213aad899cce97f0e1f"),
            (ours, "POST", "/users/u-1/terminate_connections", format!("{common}&body_md5=99914b932bd37a50b983c5e7c90ae93b"), "{}", "a17d49f45b561cc3010c1a6d42df7bd9299ada49cb4f5f11f4fe2275fa0e8cec"),
            (ours, "POST", "/apps/42/events", format!("{common}&channels[]=a&channels[]=b&name=x"), "", "da81baabe79ed8ccf06dee6ac71bcd7e6d5f8650d009ea800bb8aa5614d8b9f9"),
            (ours, "POST", "/apps/42/events", format!("name=x&channels%5B%5D=a&channels%5B%5D=b&{common}"), "", "da81baabe79ed8ccf06dee6ac71bcd7e6d5f8650d009ea800bb8aa5614d8b9f9"),
        ];
        for (credentials, method, path, query, body, signature) in table {
            let parsed = SignedQuery::parse(&query);
            let time = parsed.get("auth_timestamp").unwrap().parse().unwrap();
            let signed = format!("{query}&auth_signature={signature}");
            let verdict = verify(credentials, method, path, &signed, time, body);
            assert!(verdict.is_ok(), "{method} {path} {query}: {}", verdict.unwrap_err());
            let verdict = verify(credentials, method, "/other", &signed, time, body);
            assert!(matches!(verdict, Err(RequestError::Signature { .. })));
        }
    }

    #[test]
    fn a_plus_is_a_space_or_itself() {
        let common = "auth_key=k&auth_timestamp=1&auth_version=1.0";
        for signed in ["a b", "a+b"] {
            let signature = crate::auth::sign("s", &format!("GET\n/p\n{common}&q={signed}"));
            let query = format!("{common}&q=a+b&auth_signature={signature}");
            let pairs = verify(("k", "s"), "GET", "/p", &query, 1, "").unwrap();
            assert!(pairs.contains(&("q".into(), signed.into())), "{pairs:?}");
        }
    }

    #[test]
    fn our_own_signature_verifies() {
        let body = b"{}";
        let now = SystemTime::now();
        let query = sign_request("k", "s", "POST", "/apps/1/events", &[("info", "user_count,x y")], body, now);
        let app = App::new(AppConfig::new("1", "k", "s"));
        let query = SignedQuery::parse(&query).verify(&app, "POST", "/apps/1/events", now).unwrap();
        assert!(verify_body(&query, body).is_ok());
    }

    #[test]
    fn a_request_is_valid_for_less_than_the_window() {
        for (now, fine) in [(1, true), (1_600, false), (1_599, true), (401, true), (400, false)] {
            let query = "auth_key=k&auth_timestamp=1000&auth_version=1.0";
            let expired = matches!(verify(("k", "s"), "GET", "/", query, now, ""), Err(RequestError::Expired { .. }));
            assert_eq!(expired, !fine || now == 1, "{now}");
        }
        let far = "auth_key=k&auth_timestamp=-9223372036854775808&auth_version=1.0";
        assert!(matches!(verify(("k", "s"), "GET", "/", far, 5, ""), Err(RequestError::Expired { .. })));
    }
}
