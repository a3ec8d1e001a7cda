//! The fast lane: plain requests, on which a server of this kind spends its life, are answered without hyper. Everything
//! else is hyper's from its first byte on, so that nothing here has to know what is right or wrong in HTTP.
//!
//! It is worth its code: hyper needs as much time for a request of the API as the kernel does, and as much memory and
//! time again for a connection that it only ever reads one head from.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::CONTENT_LENGTH;
use hyper::http::response;
use hyper::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::select;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::api::ApiResponse;
use crate::body_budget::Reservation;
use crate::fallback::HangUp;
use crate::open_sockets::HttpConnection;
use crate::request_body::{BodyError, Content, RequestBody};
use crate::response::{Answer, Body, Date};
use crate::shutdown::Shutdown;
use crate::socket::{PeerAddress, Socket};

use super::plain::Head;
use super::router::{Peer, Route, Router};
use super::strict;

/// Bytes read at once. A head that does not fit is not plain.
const CHUNK: usize = 8 * 1024;

/// Bytes of an answer's head, and a short body.
const ANSWER: usize = 256;

/// Bytes of a body for which room is made before it is there.
const MAX_RESERVED: u64 = 64 * 1024;

/// How long a client may take to let the encryption say good-bye.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a connection leaves the lane.
pub(super) enum Exit {
    /// It is over.
    Closed,
    /// It has become a WebSocket, or carries an answer that goes on and on: this is what is left to do.
    Upgraded(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It has become a WebSocket, but may not stay: this tells the client why.
    Refused(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// What comes next is not plain: these bytes, and the time by which the whole head must have come.
    Unusual(Socket, Vec<u8>, Instant),
}

/// Answers plain requests until the connection ends or something else comes. `connection` may be told to make room while it
/// waits for the client.
pub(super) async fn drive(
    mut socket: Socket,
    address: SocketAddr,
    router: &Router,
    shutdown: &Shutdown,
    connection: &HttpConnection,
) -> Exit {
    let patience = router.request_timeout();
    let mut buffer = Vec::new();
    let mut deadline = Instant::now() + patience;
    let mut alarm = pin!(sleep_until(deadline));
    let mut stop = pin!(shutdown.requested());
    'requests: loop {
        while buffer.is_empty() {
            select! {
                biased;
                read = read(&mut socket, &mut buffer) => match read {
                    Ok(0) | Err(_) => return Exit::Closed,
                    Ok(_) => {}
                },
                // Set again only here, and not for every request.
                () = &mut alarm => match deadline <= Instant::now() {
                    true => {
                        debug!(peer = %address, "no request in time");
                        break 'requests;
                    }
                    false => alarm.as_mut().reset(deadline),
                },
                () = connection.evicted() => {
                    debug!(peer = %address, "idle connection closed to make room");
                    break 'requests;
                }
                () = &mut stop => break 'requests,
            }
        }
        let plain = Head::read(&buffer).and_then(|head| Some((router.plain(&head)?, head)));
        let Some((route, mut head)) = plain else {
            if strict::has_two_lengths(&buffer) {
                send(&mut socket, &encode(&strict::two_lengths(), true), patience).await;
                break 'requests;
            }
            return Exit::Unusual(socket, buffer, deadline);
        };
        match route {
            Route::WebSocket(key) => {
                connection.works();
                let peer = Peer { address: PeerAddress::Direct(address), secure: socket.is_tls(), place: None };
                let (answer, upgraded) = router.switch(peer, &head, key).await;
                let early = buffer[head.length..].to_vec();
                if send(&mut socket, &answer, patience).await {
                    let exit = if upgraded.is_refusal() { Exit::Refused } else { Exit::Upgraded };
                    return exit(upgraded.serve(socket, early));
                }
                debug!(peer = %address, "client went while it was answered");
                return Exit::Closed;
            }
            Route::Api | Route::Fallback => {
                let is_api = matches!(route, Route::Api);
                let total = head.length + head.body;
                let mut body = Ok(());
                let mut reservation = None;
                if buffer.len() < total {
                    if is_api && let Some(answer) = router.refuse_by_head(&head) {
                        let close = head.close || shutdown.is_requested();
                        let answered = send(&mut socket, &encode(&answer, close), patience).await
                            && discard(&mut socket, &mut buffer, total, patience, connection).await;
                        if close || !answered {
                            break 'requests;
                        }
                        deadline = Instant::now() + patience;
                        continue 'requests;
                    }
                    let reserved = reservation.insert(router.bodies().reserve());
                    body = receive(&mut socket, &mut buffer, total, patience, connection, reserved).await;
                    if connection.is_evicted() {
                        // Somebody waits for its place: no time for an answer.
                        return Exit::Closed;
                    }
                    head = Head::read(&buffer).expect("nothing but the body has changed");
                }
                connection.works();
                let broken = body.is_err();
                // The bytes behind this request.
                let mut later = Vec::new();
                let (answer, close) = if is_api {
                    let content = body.map(|()| Content::borrowed(&buffer[head.length..total], reservation));
                    let answer = match router.call(address, &head, RequestBody::Read(content)).await {
                        ApiResponse::Whole(answer) => answer,
                        ApiResponse::Streamed(answer) => {
                            return Exit::Upgraded(Box::pin(stream(socket, *answer, HangUp::new(), patience)));
                        }
                    };
                    let close = broken || head.close || shutdown.is_requested();
                    buffer.drain(..total.min(buffer.len()));
                    (encode(&answer, close), close)
                } else {
                    // Nothing but the head is kept for as long as a poll is held.
                    let length = head.length;
                    let content = body.map(|()| {
                        later = buffer.split_off(total);
                        Content::owned(buffer.split_off(length).into(), reservation)
                    });
                    buffer.truncate(length);
                    buffer.shrink_to(CHUNK);
                    let head = Head::read(&buffer).expect("nothing but the body is gone");
                    let body = RequestBody::Read(content);
                    let peer = Peer { address: PeerAddress::Direct(address), secure: socket.is_tls(), place: None };
                    let hang_up = HangUp::new();
                    // Boxed: connections that never ask for this need not have room for it.
                    let answer = Box::pin(router.fall_back(peer, &head, body, &hang_up));
                    let Some(answer) = watch(&mut socket, &mut later, answer).await else { return Exit::Closed };
                    let Some(length) = answer.body().size_hint().exact() else {
                        return Exit::Upgraded(Box::pin(stream(socket, answer, hang_up, patience)));
                    };
                    let close = broken || head.close || shutdown.is_requested();
                    let Some(answer) = encode_whole(answer, length, close, patience).await else { break 'requests };
                    buffer.clear();
                    (answer, close)
                };
                // A client that does not read its answer, or says no more, has no body waiting with it.
                buffer.append(&mut later);
                buffer.shrink_to(CHUNK);
                let sent = send(&mut socket, &answer, patience).await;
                if close || !sent {
                    break 'requests;
                }
                let now = Instant::now();
                connection.waits(now.into_std());
                deadline = now + patience;
            }
        }
    }
    // An error means that the peer is gone already.
    let _ = timeout(LAST_WORDS, socket.shutdown()).await;
    Exit::Closed
}

/// Waits for something as long as the client is there; `None` if it goes before. What it sends meanwhile is kept, if it is
/// not too much.
async fn watch<T>(socket: &mut Socket, meanwhile: &mut Vec<u8>, something: impl Future<Output = T>) -> Option<T> {
    let mut something = pin!(something);
    loop {
        select! {
            biased;
            something = &mut something => return Some(something),
            read = read(socket, meanwhile), if meanwhile.len() < CHUNK => {
                if matches!(read, Ok(0) | Err(_)) {
                    return None;
                }
            }
        }
    }
}

/// Writes an answer that goes on and on, part by part, until it ends or somebody hangs up. It is the last one of its
/// connection.
async fn stream(mut socket: Socket, answer: Response<Body>, hang_up: HangUp, patience: Duration) {
    let (parts, mut body) = answer.into_parts();
    let mut bytes = encode_head(&parts, None, true);
    drop(parts);
    let mut meanwhile = Vec::new();
    loop {
        let Some(frame) = watch(&mut socket, &mut meanwhile, body.frame()).await else { return };
        let over = frame.is_none();
        match frame {
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { continue };
                bytes.reserve(data.len() + 16);
                bytes.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                bytes.extend_from_slice(data);
                bytes.extend_from_slice(b"\r\n");
            }
            // The client must not take it for the end.
            Some(Err(error)) => return debug!(%error, "an answer broke off"),
            None => bytes.extend_from_slice(b"0\r\n\r\n"),
        }
        let part = std::mem::take(&mut bytes);
        let sent = select! {
            biased;
            sent = send(&mut socket, &part, patience) => sent,
            () = hang_up.cancelled() => false,
        };
        if !sent {
            return;
        }
        if over {
            // An error means that the peer is gone already.
            let _ = socket.shutdown().await;
            return;
        }
    }
}

/// Reads until the buffer holds `total` bytes.
async fn receive(
    socket: &mut Socket,
    buffer: &mut Vec<u8>,
    total: usize,
    patience: Duration,
    connection: &HttpConnection,
    reservation: &Reservation,
) -> Result<(), BodyError> {
    let reading = async {
        while buffer.len() < total {
            match read(socket, buffer).await {
                Ok(0) | Err(_) => return Err(BodyError::Incomplete),
                Ok(bytes) => reservation.grow(bytes)?,
            }
        }
        Ok(())
    };
    select! {
        read = timeout(patience, reading) => read.unwrap_or(Err(BodyError::Timeout)),
        () = reservation.evicted() => Err(BodyError::Crowded),
        () = connection.evicted() => Err(BodyError::Crowded),
    }
}

/// Reads up to the end of a request of `total` bytes and throws them away: most libraries read no answer before they have
/// sent everything. False if the client does not get there.
async fn discard(
    socket: &mut Socket,
    buffer: &mut Vec<u8>,
    total: usize,
    patience: Duration,
    connection: &HttpConnection,
) -> bool {
    let mut left = total - buffer.len();
    buffer.clear();
    let reading = async {
        while left > 0 {
            let bytes = match read(socket, buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(bytes) => bytes.min(left),
            };
            buffer.drain(..bytes);
            left -= bytes;
        }
        true
    };
    select! {
        done = timeout(patience, reading) => done.unwrap_or(false),
        () = connection.evicted() => false,
    }
}

/// Reads what is there, through the stack: a buffer that waited with the connection would be memory that silent clients
/// hold, and one that is freed when they upgrade a hole between what they go on holding. 0 at the end of the stream.
async fn read(socket: &mut Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut chunk))?;
        buffer.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    })
    .await
}

/// Writes everything, at once wherever the system takes it. False if the peer is gone, or does not read.
async fn send(socket: &mut Socket, bytes: &[u8], patience: Duration) -> bool {
    let written = match socket.write_at_once(&[IoSlice::new(bytes)]) {
        Some(Ok(written)) if written == bytes.len() => return true,
        Some(Ok(written)) => written,
        // If the connection is broken, the next attempt says so, too.
        Some(Err(_)) | None => 0,
    };
    let rest = async {
        socket.write_all(&bytes[written..]).await?;
        socket.flush().await
    };
    matches!(timeout(patience, rest).await, Ok(Ok(())))
}

/// The bytes of an answer's head, with the length of its body, or for one in chunks.
fn encode_head(answer: &response::Parts, length: Option<u64>, close: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * ANSWER + length.unwrap_or(0).min(MAX_RESERVED) as usize);
    let mut line = |parts: [&[u8]; 4]| parts.into_iter().for_each(|part| bytes.extend_from_slice(part));
    let reason = answer.status.canonical_reason().unwrap_or_default();
    line([b"HTTP/1.1 ", answer.status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    line([b"\r\n", b"", b"", b""]);
    for (name, value) in &answer.headers {
        line([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    match length {
        // It has no body by its status.
        Some(_) if answer.status == StatusCode::NO_CONTENT => {}
        Some(_) if answer.headers.contains_key(CONTENT_LENGTH) => {}
        Some(length) => line([b"content-length: ", length.to_string().as_bytes(), b"\r\n", b""]),
        None => line([b"transfer-encoding: chunked\r\n", b"", b"", b""]),
    }
    if close {
        line([b"connection: close\r\n", b"", b"", b""]);
    }
    line([b"date: ", Date::now().as_bytes(), b"\r\n\r\n", b""]);
    bytes
}

/// The bytes of an answer of this length. It is there already, or another node has promised it; `None` if it breaks that.
async fn encode_whole(answer: Response<Body>, length: u64, close: bool, patience: Duration) -> Option<Vec<u8>> {
    let (parts, body) = answer.into_parts();
    let mut bytes = encode_head(&parts, Some(length), close);
    bytes.extend_from_slice(&timeout(patience, body.collect()).await.ok()?.ok()?.to_bytes());
    Some(bytes)
}

/// The bytes of an answer, as hyper would write them.
fn encode(answer: &Answer, close: bool) -> Vec<u8> {
    let Answer { status, content_type, header, body } = answer;
    let mut bytes = Vec::with_capacity(ANSWER + body.len());
    let mut line = |parts: [&[u8]; 4]| parts.into_iter().for_each(|part| bytes.extend_from_slice(part));
    let reason = status.canonical_reason().unwrap_or_default();
    line([b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    line([b"\r\ncontent-type: ", content_type.as_bytes(), b"\r\n", b""]);
    if let Some((name, value)) = header {
        line([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if close {
        line([b"connection: close\r\n", b"", b"", b""]);
    }
    line([b"x-content-type-options: nosniff\r\ndate: ", Date::now().as_bytes(), b"\r\n", b""]);
    line([b"content-length: ", body.len().to_string().as_bytes(), b"\r\n\r\n", body]);
    bytes
}
