//! Request bodies that are promised, begun and never finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Request;
use tokio::task::JoinSet;

use crate::it::{APP_ID, Call, HttpSession, KEY, Wire, array, unix_now};
use crate::support::{Http2, MIB, Server, Siege, Unfinished, siege};

/// How long the bodies may take to arrive, and what has arrived is kept.
const ATTACK: Duration = Duration::from_secs(2);

/// What `server.http2_streams` allows on three connections. The others wait with the client until it has finished these.
const HTTP2_STREAMS: usize = 3 * 32;

/// A request whose body will not be finished.
#[derive(Clone)]
struct Begun {
    target: String,
    headers: String,
    /// Bytes that are promised; all but the last one come.
    length: usize,
}

impl Begun {
    fn new(target: impl Into<String>) -> Self {
        let headers = "Content-Type: application/json\r\n".to_owned();
        Self { target: target.into(), headers, length: MIB as usize }
    }

    /// A trigger that looks as if it were authentic, and is not.
    fn plausible() -> Self {
        Self::new(format!(
            "/apps/{APP_ID}/events?auth_key={KEY}&auth_timestamp={}&auth_version=1.0&body_md5={}&auth_signature={}",
            unix_now(),
            "0".repeat(32),
            "0".repeat(64)
        ))
    }

    /// A trigger with the head of an authentic one, as somebody might have recorded it.
    fn recorded() -> Self {
        Self::new(Call::new("POST", &format!("/apps/{APP_ID}/events"), b"a body that nobody will finish").target())
    }

    /// A poll that is held, with as much of a body as the fast lane takes.
    async fn held(addr: std::net::SocketAddr) -> Self {
        let session = HttpSession::of_pusher(addr);
        session.poll().await;
        Self { length: 256 * 1024, ..Self::new(format!("{}/xhr?{}", session.path, session.query)) }
    }

    fn request(&self, sent: &Arc<AtomicU64>) -> Request<Unfinished> {
        let mut request = Request::post(format!("http://test{}", self.target)).header("content-length", self.length);
        for line in self.headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        request.body(Unfinished::after(self.length - 1, sent)).unwrap()
    }
}

/// What attackers say of an attack.
struct Sent {
    /// Bytes that the server took.
    bytes: u64,
    /// Requests that were answered although their body was not finished.
    answered: usize,
}

/// Begins 200 requests on each of 3 connections.
async fn over_http2(server: &Server, begun: &Begun) -> Siege<Sent> {
    siege(server, async {
        let (sent, answered) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let mut attack = JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..3 {
            let http = Http2::connect(server.addr).await;
            for _ in 0..200 {
                let (mut sender, answered, request) = (http.sender.clone(), answered.clone(), begun.request(&sent));
                attack.spawn(async move {
                    if sender.send_request(request).await.is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            connections.push(http);
        }
        let _ = tokio::time::timeout(ATTACK, async { while attack.join_next().await.is_some() {} }).await;
        Sent { bytes: sent.load(Ordering::Relaxed), answered: answered.load(Ordering::Relaxed) }
    })
    .await
}

/// Begins one request on each of so many connections.
async fn over_http1(server: &Server, connections: usize, begun: &Begun) -> Siege<Sent> {
    siege(server, async {
        let (sent, answered) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{}\r\n",
            begun.target, begun.length, begun.headers
        );
        let mut attack = JoinSet::new();
        for _ in 0..connections {
            let mut wire = Wire::connect(server.addr).await;
            let (sent, answered, head, length) = (sent.clone(), answered.clone(), head.clone(), begun.length);
            attack.spawn(async move {
                if wire.try_write(head.as_bytes()).await.is_err() {
                    return;
                }
                let block = vec![b' '; 32 * 1024];
                let mut left = length - 1;
                while left > 0 {
                    let length = left.min(block.len());
                    if wire.try_write(&block[..length]).await.is_err() {
                        break;
                    }
                    sent.fetch_add(length as u64, Ordering::Relaxed);
                    left -= length;
                }
                if wire.head().await.is_some() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _ = tokio::time::timeout(ATTACK, async { while attack.join_next().await.is_some() {} }).await;
        Sent { bytes: sent.load(Ordering::Relaxed), answered: answered.load(Ordering::Relaxed) }
    })
    .await
}

/// A refused request did not wait for its body, and nothing was kept of it: a fifth of it is more than the connections and the
/// allocator take for themselves.
#[track_caller]
fn refused_by_their_heads(siege: &Siege<Sent>, at_least: usize) {
    let Sent { bytes, answered } = siege.outcome;
    assert!(answered >= at_least, "{answered} were answered; {} MiB of bodies were sent: {siege}", bytes / MIB);
    siege.cost_at_most((24 * MIB).max(bytes / 5));
}

#[tokio::test]
async fn what_has_no_signature_is_refused_by_its_head_over_http_2() {
    let server = Server::with(&[]).await;
    refused_by_their_heads(&over_http2(&server, &Begun::new(format!("/apps/{APP_ID}/events"))).await, HTTP2_STREAMS);
}

#[tokio::test]
async fn what_has_a_wrong_signature_is_refused_by_its_head_over_http_2() {
    let server = Server::with(&[]).await;
    refused_by_their_heads(&over_http2(&server, &Begun::plausible()).await, HTTP2_STREAMS);
}

#[tokio::test]
async fn what_cannot_be_authentic_is_refused_by_its_head_over_http_1() {
    let server = Server::with(&[]).await;
    refused_by_their_heads(&over_http1(&server, 200, &Begun::new(format!("/apps/{APP_ID}/events"))).await, 200);
    refused_by_their_heads(&over_http1(&server, 200, &Begun::plausible()).await, 200);
}

/// The budget, and a multiple of it for buffers that grow by doubling and an allocator that gives back memory some seconds
/// later; and what so many connections take for themselves.
#[track_caller]
fn within_the_budget(siege: &Siege<Sent>, connections: usize) {
    siege.cost_at_most(5 * 8 * MIB + connections as u64 * 48 * 1024);
}

#[tokio::test]
async fn bodies_that_may_be_authentic_share_one_budget() {
    let server = Server::with(&["server.body_memory=8MiB"]).await;
    within_the_budget(&over_http2(&server, &Begun::recorded()).await, 3);
    within_the_budget(&over_http1(&server, 200, &Begun::recorded()).await, 200);
}

#[tokio::test]
async fn bodies_of_the_auth_endpoint_share_that_budget() {
    let server = Server::with(&["server.body_memory=8MiB", "apps.0.auth.dev=true"]).await;
    let begun = |path| Begun {
        headers: "Content-Type: application/x-www-form-urlencoded\r\n".to_owned(),
        // As long as they may be there.
        length: 64 * 1024,
        ..Begun::new(path)
    };
    within_the_budget(&over_http2(&server, &begun("/pusher/auth")).await, 3);
    within_the_budget(&over_http1(&server, 1500, &begun("/pusher/user-auth")).await, 1500);
}

#[tokio::test]
async fn bodies_of_http_transports_share_that_budget() {
    let server = Server::with(&["server.body_memory=8MiB"]).await;
    // One for a session that is there, and one for none.
    let session = HttpSession::of_pusher(server.addr);
    let _stream = session.open_stream().await;
    let send = |path: &str| Begun::new(format!("{path}/xhr_send?t=1700000000000&n=2"));
    within_the_budget(&over_http2(&server, &send(&session.path)).await, 3);
    within_the_budget(&over_http1(&server, 200, &send(&session.path)).await, 200);
    within_the_budget(&over_http1(&server, 200, &send("/pusher/000/nobody-has-this-session")).await, 200);
}

/// Polls that are held, with sessions of their own.
async fn polls(server: &Server) -> Vec<Begun> {
    let mut polls = Vec::new();
    for _ in 0..600 {
        polls.push(Begun::held(server.addr).await);
    }
    polls
}

#[tokio::test]
async fn polls_keep_nothing_of_a_body_while_they_are_held() {
    let server = Server::with(&["server.body_memory=8MiB"]).await;
    let polls = polls(&server).await;
    let siege = siege(&server, async {
        let mut wires = Vec::new();
        for Begun { target, length, .. } in &polls {
            let mut wire = Wire::connect(server.addr).await;
            let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
            wire.write(head.as_bytes()).await;
            wire.write(&vec![b' '; *length]).await;
            wires.push(wire);
        }
        tokio::time::sleep(ATTACK).await;
    })
    .await;
    siege.cost_at_most(5 * 8 * MIB + polls.len() as u64 * 48 * 1024);
}

#[tokio::test]
async fn polls_keep_nothing_of_a_body_while_they_are_held_over_http_2() {
    let server = Server::with(&["server.body_memory=8MiB"]).await;
    let polls = polls(&server).await;
    let siege = siege(&server, async {
        let sent = Arc::<AtomicU64>::default();
        let mut attack = JoinSet::new();
        let mut connections = Vec::new();
        // As many as the window of a connection has room for.
        for polls in polls.chunks(4) {
            let http = Http2::connect(server.addr).await;
            for poll in polls {
                let (mut sender, request) = (http.sender.clone(), poll.request(&sent));
                attack.spawn(async move { drop(sender.send_request(request).await) });
            }
            connections.push(http);
        }
        tokio::time::sleep(ATTACK).await;
    })
    .await;
    siege.cost_at_most(5 * 8 * MIB);
}

#[tokio::test]
async fn messages_that_wait_for_their_turn_share_that_budget() {
    const SENDS: usize = 300;
    let server = Server::with(&[
        "server.body_memory=8MiB",
        "apps.0.limits.messages_per_second=1000",
        "apps.0.limits.message_burst=1",
    ])
    .await;
    // Many times as large in memory as in the body.
    let body = array(&vec![serde_json::json!(0); 9000]);
    let mut sends = Vec::new();
    for _ in 0..SENDS {
        let session = HttpSession::of_pusher(server.addr);
        session.poll().await;
        sends.push(session.request("POST", "xhr_send", body.as_bytes()));
    }
    let siege = siege(&server, async {
        let mut wires = Vec::new();
        for send in sends {
            let mut wire = Wire::connect(server.addr).await;
            wire.write(&send).await;
            wires.push(wire);
        }
        tokio::time::sleep(ATTACK).await;
    })
    .await;
    siege.cost_at_most(5 * 8 * MIB + SENDS as u64 * 48 * 1024);
}
