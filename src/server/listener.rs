//! Accepts connections and serves HTTP on them.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error};

use crate::admin;
use crate::fallback::HangUp;
use crate::rewound::Rewound;
use crate::shutdown::Shutdown;
use crate::socket::{PeerAddress, Socket};

use super::lane::{self, Exit};
use super::router::{Peer, Router};

/// The pause after a failed accept: the reason, usually too many open files, needs time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the operator's own tools may take for a request.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;

/// Serves clients and backends until the process stops.
pub(super) async fn serve_public(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, shutdown: Shutdown) {
    let mut stop = pin!(shutdown.requested());
    while let Some((stream, address)) = accept(&listener, stop.as_mut()).await {
        let (tls, router, stop) = (tls.clone(), router.clone(), shutdown.clone());
        // Spawned at once: a slow TLS handshake delays only itself.
        shutdown.spawn(async move {
            // Boxed, like all that follows: most connections soon fall silent, and need not keep what they needed before.
            if let Some(rest) = Box::pin(begin(stream, tls, address, router, stop)).await {
                rest.await;
            }
        });
    }
}

/// What is left to do for a connection.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a new connection as long as it is like most others. Returns what it has become.
async fn begin(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    router: Router,
    shutdown: Shutdown,
) -> Option<Rest> {
    let deadline = router.request_timeout();
    let socket = handshake(stream, tls, deadline, address).await?;
    match lane::drive(socket, address, &router, &shutdown).await {
        Exit::Closed => None,
        Exit::Upgraded(conversation) => Some(conversation),
        Exit::Unusual(socket, early, first) => Some(Box::pin(async move {
            let peer = Peer { address: PeerAddress::Direct(address), secure: socket.is_tls() };
            let hang_up = HangUp::new();
            let answer = |request| {
                let (router, peer, hang_up) = (router.clone(), peer.clone(), hang_up.clone());
                async move { router.route(peer, request, &hang_up).await }
            };
            let served = serve(Rewound::new(socket, early), first, deadline, &shutdown, answer);
            select! {
                () = served => {}
                () = hang_up.cancelled() => {}
            }
        })),
    }
}

/// Serves the operator until it is told to stop, which is after everything else has.
pub(super) async fn serve_admin(listener: TcpListener, pages: admin::Context, shutdown: Shutdown) {
    let mut stop = pin!(shutdown.requested());
    while let Some((stream, _)) = accept(&listener, stop.as_mut()).await {
        let (pages, stop) = (pages.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let answer = |request| {
                let pages = pages.clone();
                async move { admin::handle(&pages, request).await }
            };
            let socket = Rewound::new(stream.into(), Bytes::new());
            serve(socket, Instant::now() + ADMIN_TIMEOUT, ADMIN_TIMEOUT, &stop, answer).await;
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
    tls: Option<TlsAcceptor>,
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

/// Serves HTTP/1.1 or HTTP/2 on one connection: the first request must come until `first`, others within `deadline`. When
/// the process stops, requests that are under way are finished.
async fn serve<F, B>(
    socket: Rewound,
    first: Instant,
    deadline: Duration,
    shutdown: &Shutdown,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(deadline).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(deadline).max_header_list_size(MAX_HEAD as u32);
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let response = answer(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    let mut first_request = pin!(sleep_until(first));
    let mut stop = pin!(shutdown.requested());
    let (mut waiting, mut stopping) = (true, false);
    loop {
        select! {
            result = &mut connection => {
                if let Err(error) = result {
                    debug!(%error, "HTTP connection failed");
                }
                return;
            }
            // hyper's own timer starts only when it knows which protocol it reads.
            () = &mut first_request, if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    return debug!("no request in time");
                }
            }
            () = &mut stop, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
