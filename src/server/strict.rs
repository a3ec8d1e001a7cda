//! What RFC 9112 tells a server to refuse and hyper lets pass: two readings of one request are how requests are smuggled
//! past a proxy, and how one host's pages speak for another.

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, Response, StatusCode, Version};

use crate::response::{Answer, Body, TEXT, any_body};

/// Headers of a head that [`has_two_lengths`] looks through; hyper takes as many.
const MAX_HEADERS: usize = 100;

const TWO_LENGTHS: &str = "both Transfer-Encoding and Content-Length";

/// Bytes that a host may consist of, outside the brackets of an IPv6 address. A table: every request is asked.
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Why a request that hyper has read is refused with 400; `None` for one that is in order.
pub(super) fn mistake<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    host_mistake(request.version(), request.uri().authority(), headers).or_else(|| length_mistake(headers))
}

/// The answer to such a request. It is the last one of its connection: where the request ends may be a matter of opinion.
pub(super) fn refuse(version: Version, mistake: &'static str) -> Response<Body> {
    let mut response = Response::from(answer(mistake)).map(any_body);
    // HTTP/2 knows where a request ends.
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a request with both `Transfer-Encoding` and `Content-Length`.
pub(super) fn two_lengths() -> Answer {
    answer(TWO_LENGTHS)
}

/// Whether a head, if it is all there, has both `Transfer-Encoding` and `Content-Length`. hyper believes the first, forgets
/// the second and closes the connection after the answer; nobody behind it could see that there were two.
pub(super) fn has_two_lengths(bytes: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let complete = matches!(request.parse(bytes), Ok(httparse::Status::Complete(_)));
    let has = |name: &str| request.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    complete && has("transfer-encoding") && has("content-length")
}

/// Whether this is the value of a `Host` header: a host, perhaps none, and perhaps a port (RFC 9112, 3.2).
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => {
                let (address, after) = (&rest[..end], &rest[end + 1..]);
                if address.is_empty() || !address.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                    return false;
                }
                (&[][..], after)
            }
            None => return false,
        },
        value => value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len())),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && host.iter().fold(true, |fits, byte| fits & HOST_BYTES[usize::from(*byte)])
}

fn host_mistake(version: Version, authority: Option<&Authority>, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Some("more than one Host");
    }
    match (host, authority) {
        (Some(host), _) if !is_host(host.as_bytes()) => Some("an invalid Host"),
        (None, None) if version >= Version::HTTP_11 => Some("no Host"),
        // A target with a host of its own does not make up for it; with HTTP/2 it is where the host belongs.
        (None, Some(_)) if version == Version::HTTP_11 => Some("no Host"),
        (Some(host), Some(authority)) if version >= Version::HTTP_2 => {
            let same = host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
            (!same).then_some("a Host that is not the :authority")
        }
        _ => None,
    }
}

fn length_mistake(headers: &HeaderMap) -> Option<&'static str> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let encoding = encodings.next()?;
    if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Some("a Transfer-Encoding other than chunked");
    }
    headers.contains_key(CONTENT_LENGTH).then_some(TWO_LENGTHS)
}

fn answer(mistake: &'static str) -> Answer {
    Answer::new(StatusCode::BAD_REQUEST, TEXT, format!("Bad request: {mistake}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_grammar() {
        for host in
            ["", "a", "A.example:80", "127.0.0.1:", "[::1]", "[::ffff:1.2.3.4]:6001", "my_host", "%41", "a:65535"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a/b", "a@b", "a, b", "a:b", "a:1:2", "a:123456", "::1", "[::1", "[]", "[::1]a", "[g]", "a\t", "é",
            "a\"", "<a>",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn two_lengths_are_seen_in_any_order_and_case() {
        let head = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\nbody");
        for headers in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: x\r\n",
        ] {
            assert!(has_two_lengths(head(headers).as_bytes()), "{headers}");
        }
        for headers in ["Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n", ""] {
            assert!(!has_two_lengths(head(headers).as_bytes()), "{headers}");
        }
        assert!(!has_two_lengths(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"));
    }
}
