//! The fast path against hyper. See [`crate::fuzzing`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ORIGIN, SEC_WEBSOCKET_KEY};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::plain::Head;
use super::strict;

/// What comes behind a request, so that it is seen whether hyper ends the request where the fast path does.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n";

/// Polls after which hyper should have read and answered everything: it reads a body in parts, 256 KiB at most.
const POLLS: usize = 1000;

pub(crate) fn request_heads(bytes: &[u8]) {
    let Some(head) = Head::read(bytes) else { return };
    assert!(!strict::has_two_lengths(bytes), "two lengths");
    let mut stream = bytes[..head.length].to_vec();
    stream.resize(head.length + head.body, b'x');
    stream.extend_from_slice(NEXT);
    let (seen, written) = serve(&stream);
    let [first, rest @ ..] = &seen[..] else { panic!("hyper refuses it: {}", String::from_utf8_lossy(&written)) };
    let expected = Seen {
        method: head.method.to_string(),
        target: head.target.to_owned(),
        path: head.path.to_owned(),
        query: head.query.to_owned(),
        body: Some(head.body as u64),
        challenge: head.challenge.map(str::to_owned),
        origin: head.origin.map(str::to_owned),
        forwarded_for: head.forwarded_for.map(str::to_owned),
        forwarded_proto: head.forwarded_proto.map(str::to_owned),
        mistake: None,
    };
    assert_eq!(*first, expected);
    if head.challenge.is_some() {
        // What follows a handshake is no request.
        return;
    }
    match rest {
        [] => assert!(head.close, "hyper ends the connection: {}", String::from_utf8_lossy(&written)),
        [next] => assert!(!head.close && next.target == "/next", "{head:?} {next:?}"),
        _ => panic!("more requests than were sent: {seen:?}"),
    }
}

/// What a service hears of a request.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    path: String,
    query: String,
    body: Option<u64>,
    challenge: Option<String>,
    origin: Option<String>,
    forwarded_for: Option<String>,
    forwarded_proto: Option<String>,
    mistake: Option<&'static str>,
}

impl Seen {
    fn of(request: &Request<Incoming>) -> Self {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
        let is_handshake = create_response_with_body(request, || ()).is_ok();
        Self {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            body: request.body().size_hint().exact(),
            challenge: header(SEC_WEBSOCKET_KEY.as_str()).filter(|_| is_handshake),
            origin: header(ORIGIN.as_str()),
            forwarded_for: header("x-forwarded-for"),
            forwarded_proto: header("x-forwarded-proto"),
            mistake: strict::mistake(request),
        }
    }
}

/// What hyper makes of a stream of bytes: the requests, and what it writes.
fn serve(stream: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let (seen, written) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        seen.borrow_mut().push(Seen::of(&request));
        async move {
            // hyper would not wait for the rest of a long one before the next request.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let memory = Memory { unread: stream, written: &written };
    {
        let mut connection = pin!(http1::Builder::new().serve_connection(memory, service));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..POLLS {
            if connection.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    (seen.into_inner(), written.into_inner())
}

/// A connection whose client has sent everything, and reads everything.
struct Memory<'a> {
    unread: &'a [u8],
    written: &'a RefCell<Vec<u8>>,
}

impl Read for Memory<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
