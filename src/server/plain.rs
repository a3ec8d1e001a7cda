//! The head of a plain request: HTTP/1.1, all there, and nothing in it that asks for anything special.

use std::mem::MaybeUninit;

use hyper::Method;

use crate::websocket::is_challenge;

use super::strict::is_host;

/// Headers of one request; what has more is not plain. hyper takes as many.
const MAX_HEADERS: usize = 100;

/// Bytes of a body that is read before anybody is asked about it. A full batch of the largest events fits.
const MAX_BODY: usize = 256 * 1024;

/// What a plain request says. All text in it is visible ASCII.
#[derive(Debug)]
pub(super) struct Head<'b> {
    /// `GET` or `POST`.
    pub(super) method: &'static Method,
    /// Path and query string.
    pub(super) target: &'b str,
    /// The path, not decoded.
    pub(super) path: &'b str,
    /// The query string; empty if there is none.
    pub(super) query: &'b str,
    /// Bytes of the head itself.
    pub(super) length: usize,
    /// Bytes of the body behind it.
    pub(super) body: usize,
    /// Whether the client wants no other answer on this connection.
    pub(super) close: bool,
    /// The `Sec-WebSocket-Key` of a request that is a complete and correct WebSocket handshake.
    pub(super) challenge: Option<&'b str>,
    /// `Origin`.
    pub(super) origin: Option<&'b str>,
    /// `X-Forwarded-For`.
    pub(super) forwarded_for: Option<&'b str>,
    /// `X-Forwarded-Proto`.
    pub(super) forwarded_proto: Option<&'b str>,
}

impl<'b> Head<'b> {
    /// Reads a head. `None` for whatever is incomplete, wrong or only unusual: hyper knows what to do with it, and says
    /// what is wrong.
    pub(super) fn read(bytes: &'b [u8]) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut headers);
        let Ok(httparse::Status::Complete(length)) = parsed else { return None };
        let method = match request.method? {
            "GET" => &Method::GET,
            "POST" => &Method::POST,
            _ => return None,
        };
        // All bytes rather than up to the first wrong one: without a branch for each that is faster.
        let plain = |target: &&str| target.bytes().fold(true, |plain, byte| plain & PLAIN[usize::from(byte)]);
        let target = request.path.filter(plain).filter(|target| target.starts_with('/'))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            method,
            target,
            path,
            query,
            length,
            body: 0,
            close: false,
            challenge: None,
            origin: None,
            forwarded_for: None,
            forwarded_proto: None,
        };
        let upgrade = (request.version == Some(1)).then(|| head.read_headers(request.headers))??;
        head.check_upgrade(upgrade).then_some(head)
    }

    /// Reads what concerns us, and what the request says about an upgrade.
    fn read_headers(&mut self, headers: &[httparse::Header<'b>]) -> Option<Upgrade> {
        let mut upgrade = Upgrade::default();
        let (mut length, mut key, mut hosts, mut connection) = (None, None, 0, None);
        for header in headers {
            let value = || Some(header.value).filter(|value| value.iter().all(|b| matches!(b, b'\t' | 32..127)));
            let value = || value().and_then(|value| std::str::from_utf8(value).ok());
            match Name::of(header.name) {
                Name::Other => {}
                Name::Host => {
                    hosts += 1;
                    is_host(header.value).then_some(())?;
                }
                Name::ContentLength => {
                    let digits = value()?;
                    let plain = length.is_none() && digits.bytes().all(|b| b.is_ascii_digit());
                    length = Some(digits.parse().ok().filter(|length| plain && *length <= MAX_BODY)?);
                }
                Name::Connection => {
                    // Of two, some who read on look at the first alone.
                    connection.replace(()).is_none().then_some(())?;
                    for option in value()?.split([',', ' ']).filter(|option| !option.is_empty()) {
                        match option {
                            option if option.eq_ignore_ascii_case("keep-alive") => {}
                            option if option.eq_ignore_ascii_case("close") => self.close = true,
                            option if option.eq_ignore_ascii_case("upgrade") => upgrade.announced = true,
                            _ => return None,
                        }
                    }
                }
                Name::Upgrade => {
                    upgrade.wanted = !upgrade.wanted && header.value.eq_ignore_ascii_case(b"websocket");
                    upgrade.wanted.then_some(())?;
                }
                Name::SecWebsocketVersion => {
                    upgrade.version = !upgrade.version && header.value == b"13";
                    upgrade.version.then_some(())?;
                }
                Name::SecWebsocketKey => key.replace(value()?).is_none().then_some(())?,
                Name::Origin => self.origin = self.origin.or(Some(value()?)),
                Name::XForwardedFor => self.forwarded_for = self.forwarded_for.or(Some(value()?)),
                Name::XForwardedProto => self.forwarded_proto = self.forwarded_proto.or(Some(value()?)),
                Name::Unusual => return None,
            }
        }
        self.body = length.unwrap_or(0);
        self.challenge = key;
        (hosts == 1).then_some(upgrade)
    }

    /// Whether this is a whole handshake or none at all.
    fn check_upgrade(&mut self, upgrade: Upgrade) -> bool {
        if upgrade.wanted {
            return upgrade.announced
                && upgrade.version
                && self.challenge.is_some_and(is_challenge)
                && *self.method == Method::GET
                && self.body == 0
                && !self.close;
        }
        self.challenge = None;
        !upgrade.announced
    }
}

/// The headers that concern us.
enum Name {
    Host,
    ContentLength,
    Connection,
    Upgrade,
    SecWebsocketVersion,
    SecWebsocketKey,
    Origin,
    XForwardedFor,
    XForwardedProto,
    /// One that no plain request has.
    Unusual,
    /// One of all the others.
    Other,
}

impl Name {
    fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // By length, as most headers are none of these.
        match name.len() {
            4 if is("host") => Self::Host,
            6 if is("origin") => Self::Origin,
            6 if is("expect") => Self::Unusual,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            14 if is("content-length") => Self::ContentLength,
            // Another node has passed the request on.
            15 if is("fanfare-relayed") => Self::Unusual,
            15 if is("x-forwarded-for") => Self::XForwardedFor,
            17 if is("x-forwarded-proto") => Self::XForwardedProto,
            17 if is("sec-websocket-key") => Self::SecWebsocketKey,
            17 if is("transfer-encoding") => Self::Unusual,
            21 if is("sec-websocket-version") => Self::SecWebsocketVersion,
            22 if is("sec-websocket-protocol") => Self::Unusual,
            _ => Self::Other,
        }
    }
}

/// What a request says about an upgrade to WebSocket.
#[derive(Debug, Default)]
struct Upgrade {
    /// `Upgrade: websocket`.
    wanted: bool,
    /// `Connection: upgrade`.
    announced: bool,
    /// `Sec-WebSocket-Version: 13`.
    version: bool,
}

/// What may stand in a request target without hyper having to look at it: all bytes that it takes, but for a few that no
/// client sends as they are. A table, as a signed query is long.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &str = "GET /app/k?protocol=7 HTTP/1.1\r\nHost: h\r\nOrigin: o\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

    const POST: &str = "POST /apps/1/events?a=b HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}";

    fn head(text: &str) -> Option<Head<'_>> {
        Head::read(text.as_bytes())
    }

    #[test]
    fn a_handshake_is_plain() {
        let head = head(HANDSHAKE).unwrap();
        assert_eq!((head.path, head.query, head.length), ("/app/k", "protocol=7", HANDSHAKE.len()));
        assert_eq!((head.challenge, head.origin), (Some("x3JJHMbDL1EzLkh9GBhXDw=="), Some("o")));
    }

    #[test]
    fn a_request_with_a_body_is_plain() {
        let head = head(POST).unwrap();
        assert_eq!((head.method, head.path, head.query), (&Method::POST, "/apps/1/events", "a=b"));
        assert_eq!((head.length, head.body, head.close, head.challenge), (POST.len() - 2, 2, false, None));
        assert!(self::head(&POST.replace("host: h", "host: h\r\nconnection: Close")).unwrap().close);
    }

    #[test]
    fn what_is_wrong_or_unusual_is_left_to_hyper() {
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("13", "8"),
            ("WebSocket", "h2c"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("keep-alive, Upgrade", "keep-alive\r\nConnection: Upgrade"),
            ("keep-alive, Upgrade", "close, Upgrade"),
            ("Upgrade: WebSocket\r\n", ""),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Keys"),
            ("Sec-WebSocket-Version", "Sec-WebSocket-Versions"),
            ("Host: h", "Host: h\r\nSec-WebSocket-Protocol: x"),
            ("Host: h", "Host: h\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="),
            ("Host: h", "Host: h\r\nContent-Length: 2"),
            ("x3JJHMbDL1EzLkh9GBhXDw==", "x3JJHMbDL1EzLkh9GBhXDx=="),
            ("Host: h", "X: h"),
            ("Host: h", "Host: h\r\nHost: h"),
            ("Host: h", "Host: a b"),
            ("Origin: o", "Origin: ö"),
            ("/app", "/äpp"),
            ("\r\n\r\n", "\r\n"),
        ] {
            assert!(head(&HANDSHAKE.replacen(from, to, 1)).is_none(), "{from} → {to}");
        }
        for (from, to) in [
            ("POST", "PUT"),
            ("/apps/1/events", "http://h/apps/1/events"),
            ("/apps/1/events", "/apps/1/events#"),
            ("1.1", "1.0"),
            ("content-length: 2", "content-length: +2"),
            ("content-length: 2", "content-length: 2\r\ncontent-length: 2"),
            ("content-length: 2", "content-length: 99999999"),
            ("content-length: 2", "transfer-encoding: chunked"),
            ("host: h", "host: h\r\nexpect: 100-continue"),
            ("host: h", "host: h\r\nconnection: te"),
            ("host: h", "x: h"),
            ("host: h", "host h"),
        ] {
            assert!(head(&POST.replacen(from, to, 1)).is_none(), "{from} → {to}");
        }
    }
}
