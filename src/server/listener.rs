//! Accepts connections and serves HTTP on them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use crate::addresses::{Addresses, Network};
use crate::admin;
use crate::fallback::HangUp;
use crate::metrics::Metrics;
use crate::open_sockets::{HttpConnection, OpenSockets, Place, Wait};
use crate::rewound::Rewound;
use crate::shutdown::Shutdown;
use crate::socket::{PeerAddress, Socket};

use super::lane::{self, Exit};
use super::router::{Peer, Router};

/// The pause after a failed accept: the reason, usually too many open files, needs time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long somebody who was accepted waits for others to make room. Until then nobody else is accepted.
const MAKING_ROOM: Duration = Duration::from_secs(1);

/// How long they may take before further ones have to go, too.
const HURRY: Duration = Duration::from_millis(100);

/// How long the operator's own tools may take for a request.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;

/// Concurrent requests on one HTTP/2 connection of the operator.
const ADMIN_STREAMS: u32 = 32;

/// Bytes that an HTTP/2 client may send of one body, and of all bodies of a connection, before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How long an HTTP/2 client may take to notice that its idle connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the public listener needs besides its sockets.
pub(super) struct Public {
    /// Who answers.
    pub(super) router: Router,
    /// TLS, if it is not left to a proxy.
    pub(super) tls: Option<TlsAcceptor>,
    /// All sockets that are open.
    pub(super) sockets: Arc<OpenSockets>,
    /// The same by their address; `None` if that is the address of a proxy.
    pub(super) addresses: Option<Arc<Addresses>>,
    /// What becomes of sockets that are not served.
    pub(super) metrics: Metrics,
    /// Concurrent requests on one HTTP/2 connection.
    pub(super) http2_streams: u32,
    /// How long a client may take for a part of an answer, which may come only with the next heartbeat.
    pub(super) answer_timeout: Duration,
}

/// Serves clients and backends until the process stops.
pub(super) async fn serve_public(listener: TcpListener, public: Public, shutdown: Shutdown) {
    let mut stop = pin!(shutdown.requested());
    // Shared: each connection has it for life.
    let public = Arc::new(public);
    while let Some((stream, address)) = accept(&listener, stop.as_mut()).await {
        // Dropped at once: whoever comes too often is not worth an answer.
        let Some(place) = public.admit(address).await else { continue };
        // Boxed, like all that follows: most connections soon fall silent, and need not keep what they needed before.
        let begin = Box::pin(begin(stream, Arc::clone(&public), address, place, shutdown.clone()));
        // Spawned at once: a slow TLS handshake delays only itself.
        shutdown.spawn(async move {
            if let Some((rest, _place)) = begin.await {
                rest.await;
            }
        });
    }
}

impl Public {
    /// A place for a socket, unless its address or the process has too many.
    async fn admit(&self, address: SocketAddr) -> Option<Place> {
        let seat = self.addresses.as_ref().map(|addresses| addresses.enter(Network::of(address.ip()), now()));
        let seat = seat.transpose().inspect_err(|excess| {
            self.metrics.connection_dropped(excess.name());
            let (peer, setting) = (Network::of(address.ip()), excess.setting());
            warn!(%peer, setting, "connection dropped: its address has more than it may have");
        });
        let mut seat = seat.ok()?;
        let deadline = Instant::now() + MAKING_ROOM;
        let mut some_take_their_time = false;
        loop {
            seat = match self.sockets.enter(seat) {
                Ok(place) => return Some(place),
                Err(seat) => seat,
            };
            if Instant::now() >= deadline {
                break;
            }
            if some_take_their_time || !self.sockets.is_making_room() {
                let evicted = self.sockets.make_room();
                if evicted > 0 {
                    self.metrics.connections_evicted(evicted);
                    warn!(evicted, "idle HTTP connections closed to make room: the open-file limit is reached");
                } else if !self.sockets.is_making_room() {
                    match self.sockets.freed().now_or_never() {
                        // One has just ended by itself.
                        Some(()) => continue,
                        None => break,
                    }
                }
            }
            some_take_their_time = timeout(HURRY, self.sockets.freed()).await.is_err();
        }
        self.metrics.connection_dropped("open_files");
        warn!(open = self.sockets.open(), "connection dropped: the open-file limit is reached");
        None
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// What is left to do for a connection.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a new connection as long as it is like most others. Returns what it has become, and its place, unless that is in
/// other hands.
async fn begin(
    stream: TcpStream,
    public: Arc<Public>,
    address: SocketAddr,
    place: Place,
    shutdown: Shutdown,
) -> Option<(Rest, Option<Place>)> {
    let router = &public.router;
    let deadline = router.request_timeout();
    let connection = public.sockets.http(now());
    let socket = select! {
        socket = handshake(stream, public.tls.as_ref(), deadline, address) => socket?,
        () = connection.evicted() => return None,
    };
    match lane::drive(socket, address, router, &shutdown, &connection).await {
        Exit::Closed => None,
        Exit::Upgraded(conversation) => Some((conversation, Some(place))),
        Exit::Refused(farewell) => {
            let rest = async move { connection.until_needed(farewell).await };
            Some((Box::pin(rest), Some(place)))
        }
        Exit::Unusual(socket, early, first) => {
            let place = Some(Arc::new(place));
            let peer = Peer { address: PeerAddress::Direct(address), secure: socket.is_tls(), place };
            let rest = async move {
                let hang_up = HangUp::new();
                let answer = |request| {
                    let (router, peer, hang_up) = (public.router.clone(), peer.clone(), hang_up.clone());
                    async move { router.route(peer, request, &hang_up).await }
                };
                let times = Times { first, deadline, answer: public.answer_timeout };
                let served =
                    serve(Rewound::new(socket, early), times, public.http2_streams, &connection, &shutdown, answer);
                select! {
                    biased;
                    () = served => {}
                    () = hang_up.cancelled() => {}
                    () = connection.evicted() => debug!(peer = %address, "idle connection closed to make room"),
                }
            };
            Some((Box::pin(rest), None))
        }
    }
}

/// Serves the operator until it is told to stop, which is after everything else has.
pub(super) async fn serve_admin(listener: TcpListener, pages: admin::Context, shutdown: Shutdown) {
    let mut stop = pin!(shutdown.requested());
    // Nobody evicts these: the operator's connections are few.
    let sockets = OpenSockets::new(usize::MAX);
    while let Some((stream, _)) = accept(&listener, stop.as_mut()).await {
        let (pages, stop, sockets) = (pages.clone(), shutdown.clone(), Arc::clone(&sockets));
        shutdown.spawn(async move {
            let answer = |request| {
                let pages = pages.clone();
                async move { admin::handle(&pages, request).await }
            };
            let socket = Rewound::new(stream.into(), Bytes::new());
            let times = Times { first: Instant::now() + ADMIN_TIMEOUT, deadline: ADMIN_TIMEOUT, answer: ADMIN_TIMEOUT };
            let connection = sockets.http(now());
            serve(socket, times, ADMIN_STREAMS, &connection, &stop, answer).await;
        });
    }
}

/// The next connection; `None` once the process stops. A failure to accept is logged and waited out.
async fn accept(
    listener: &TcpListener,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return None,
        };
        match accepted {
            Ok((stream, address)) => {
                // Small frames must not wait for more of them. Linux sees to it by what the listener is set to. An error
                // means that the peer is gone already.
                if cfg!(not(target_os = "linux")) {
                    let _ = stream.set_nodelay(true);
                }
                return Some((stream, address));
            }
            Err(error) => {
                error!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    tls: Option<&TlsAcceptor>,
    deadline: Duration,
    address: SocketAddr,
) -> Option<Socket> {
    let Some(tls) = tls else { return Some(stream.into()) };
    match Box::pin(timeout(deadline, tls.accept(stream))).await {
        Ok(Ok(stream)) => Some(stream.into()),
        Ok(Err(error)) => {
            debug!(peer = %address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(peer = %address, "TLS handshake timed out");
            None
        }
    }
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// When the first request must have come.
    first: Instant,
    /// For every further one, and how long the connection may be idle.
    deadline: Duration,
    /// To take some of an answer, which may be one that goes on and on.
    answer: Duration,
}

/// Serves HTTP/1.1 or HTTP/2 on one connection. When the process stops, requests that are under way are finished.
async fn serve<F, B>(
    socket: Rewound,
    times: Times,
    http2_streams: u32,
    connection: &HttpConnection,
    shutdown: &Shutdown,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Times { first, deadline, answer: patience } = times;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(deadline).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(deadline)
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(http2_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let requests = Arc::new(Requests::new());
    let service = service_fn(|request| {
        let running = Running::begin(&requests, connection);
        // Boxed: hyper keeps the room for it as long as the connection is open.
        let response = Box::pin(answer(request));
        async move { Ok::<_, Infallible>(response.await.map(|body| Guarded::new(body, running))) }
    });
    let mut http = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    // hyper's own timers start only when it knows which protocol it reads, and forgive whoever answers pings.
    let mut idle = pin!(sleep_until(first));
    let mut stop = pin!(shutdown.requested());
    let (mut stopping, mut leaving) = (false, false);
    loop {
        select! {
            biased;
            result = &mut http => {
                if let Err(error) = result {
                    debug!(%error, "HTTP connection failed");
                }
                return;
            }
            () = &mut idle => match requests.idle_since() {
                // With HTTP/2 a client can refuse to take an answer, and live for ever.
                None if requests.stalled_since().is_some_and(|since| since + patience <= Instant::now()) => {
                    return debug!("an answer was not taken in time");
                }
                None => idle.as_mut().reset(Instant::now() + deadline),
                Some(_) if !requests.any() => return debug!("no request in time"),
                Some(_) if leaving => return debug!("idle connection did not end"),
                Some(since) if since + deadline <= Instant::now() => {
                    leaving = true;
                    http.as_mut().graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + LAST_WORDS);
                }
                Some(since) => idle.as_mut().reset(since + deadline),
            },
            () = &mut stop, if !stopping => {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The requests of one connection that hyper serves.
#[derive(Debug)]
struct Requests(Mutex<State>);

#[derive(Debug)]
struct State {
    running: usize,
    any: bool,
    idle_since: Instant,
    /// The answers that are being sent, by their number.
    answers: HashMap<u64, Arc<LastAsked>>,
    next: u64,
}

impl Requests {
    fn new() -> Self {
        let idle_since = Instant::now();
        Self(Mutex::new(State { running: 0, any: false, idle_since, answers: HashMap::new(), next: 0 }))
    }

    /// Whether there was one.
    fn any(&self) -> bool {
        self.0.lock().any
    }

    /// Since when there is none.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.0.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    /// Since when nothing of an answer is taken, of the one of which that is longest.
    fn stalled_since(&self) -> Option<Instant> {
        self.0.lock().answers.values().map(|asked| asked.get()).min()
    }
}

/// When the next part of an answer was last asked for. That is often, where an answer is an endless stream.
#[derive(Debug)]
struct LastAsked {
    begin: Instant,
    milliseconds: AtomicU64,
}

impl LastAsked {
    fn now() -> Self {
        Self { begin: Instant::now(), milliseconds: AtomicU64::new(0) }
    }

    fn set_now(&self) {
        self.milliseconds.store(self.begin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Instant {
        self.begin + Duration::from_millis(self.milliseconds.load(Ordering::Relaxed))
    }
}

/// A request, until its answer is sent.
struct Running {
    requests: Arc<Requests>,
    wait: Arc<Wait>,
}

impl Running {
    fn begin(requests: &Arc<Requests>, connection: &HttpConnection) -> Self {
        let mut state = requests.0.lock();
        state.running += 1;
        state.any = true;
        connection.works();
        Self { requests: Arc::clone(requests), wait: connection.wait() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.requests.0.lock();
        state.running -= 1;
        if state.running == 0 {
            state.idle_since = Instant::now();
            self.wait.begin(state.idle_since.into_std());
        }
    }
}

/// The body of an answer, which tells when it is taken, and when it is sent or given up.
struct Guarded<B> {
    body: Pin<Box<B>>,
    number: u64,
    asked: Arc<LastAsked>,
    running: Running,
}

impl<B> Guarded<B> {
    fn new(body: B, running: Running) -> Self {
        let mut state = running.requests.0.lock();
        state.next += 1;
        let (number, asked) = (state.next, Arc::new(LastAsked::now()));
        state.answers.insert(number, Arc::clone(&asked));
        drop(state);
        Self { body: Box::pin(body), number, asked, running }
    }
}

impl<B> Drop for Guarded<B> {
    fn drop(&mut self) {
        self.running.requests.0.lock().answers.remove(&self.number);
    }
}

impl<B: hyper::body::Body> hyper::body::Body for Guarded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        self.asked.set_now();
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
