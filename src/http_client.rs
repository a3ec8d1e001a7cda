//! Requests to other servers: webhook endpoints, authorizers, key sets, and the servers of the command-line tools. Whoever
//! answers may be slow, endless or hostile, so a request has one deadline for all of it, and of the answer only a bounded
//! beginning is read.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::ext::on_informational;
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::select;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

/// How long an unused connection waits for the next request to the same server.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);

/// Bytes of an answer that are read and thrown away so that its connection can be used again.
const MAX_DISCARDED: usize = 256 * 1024;

/// Bytes of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// Interim answers (`103 Early Hints`, say) before the one that counts. hyper reads over any number of them.
const MAX_INTERIM: usize = 16;

/// A client with connections of its own. Clones share them.
#[derive(Debug, Clone)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// The beginning of an answer.
#[derive(Debug)]
pub struct Answer {
    /// The status. Redirects are not followed.
    pub status: StatusCode,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The body, up to the limit of the request.
    pub body: Bytes,
    /// Whether the body is more than that, or did not arrive whole in time.
    pub truncated: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailed {
    /// The host is unknown, nothing listens, TLS failed, or what answers does not speak HTTP.
    #[error("{0}")]
    Unreachable(String),
    /// No status line and headers in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// Why there is no answer of a request without a deadline.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// See [`RequestFailed::Unreachable`].
    #[error(transparent)]
    Http(#[from] legacy::Error),
    /// The other side goes on announcing an answer.
    #[error("more than {MAX_INTERIM} interim answers (1xx)")]
    Interim,
}

impl Failed {
    /// Whether there was no connection, so that nobody has seen the request.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_connect())
    }
}

impl HttpClient {
    /// A client without connections. The system's root certificates are read if it is `secure`; a bare container may
    /// have none, and then only a client of http:// URLs can be made.
    ///
    /// # Errors
    /// There are no root certificates to be found.
    pub fn new(secure: bool) -> io::Result<Self> {
        let tls = ClientConfig::builder();
        let tls = if secure {
            tls.with_native_roots()?.with_no_client_auth()
        } else {
            tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let connector = connector.wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        // As most senders write them: not everybody on the other side looks for names in any case.
        builder.http1_title_case_headers(true);
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        builder.http1_max_buf_size(MAX_HEAD);
        Ok(Self(builder.build(connector)))
    }

    /// Sends a request. All of it, up to the end of the answer's body, takes no longer than `timeout`; of the body,
    /// `max_body` bytes are kept.
    ///
    /// # Errors
    /// See [`RequestFailed`]. An answer whose body is slow or endless is an answer all the same.
    ///
    /// # Cancel safety
    /// The request may have been sent.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
        max_body: usize,
    ) -> Result<Answer, RequestFailed> {
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, self.begin(request)).await {
            Ok(Ok(response)) => Ok(read(response, deadline, max_body).await),
            Ok(Err(error)) => Err(RequestFailed::Unreachable(innermost(&error))),
            Err(_) => Err(RequestFailed::Timeout(timeout)),
        }
    }

    /// Sends a request and returns the answer with its body still to come. Both have no end of their own: the caller's
    /// deadline is the only one.
    ///
    /// # Errors
    /// See [`Failed`]; the innermost [`Error::source`] says more.
    ///
    /// # Cancel safety
    /// The request may have been sent.
    pub async fn begin(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let (seen, enough) = (AtomicUsize::new(0), CancellationToken::new());
        let too_many = enough.clone();
        on_informational(&mut request, move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) == MAX_INTERIM {
                too_many.cancel();
            }
        });
        // What is dropped takes its connection along.
        select! {
            biased;
            () = enough.cancelled() => Err(Failed::Interim),
            answer = self.0.request(request) => Ok(answer?),
        }
    }
}

async fn read(response: Response<Incoming>, deadline: Instant, max_body: usize) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut kept = BytesMut::new();
    let mut whole = true;
    let mut total = 0;
    let rest = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let data = frame.data_ref().map_or(&[][..], |data| data);
            kept.extend_from_slice(&data[..data.len().min(max_body - kept.len())]);
            total += data.len();
            if total > max_body + MAX_DISCARDED {
                return false;
            }
        }
        true
    };
    if !timeout_at(deadline, rest).await.unwrap_or(false) || total > max_body {
        whole = false;
    }
    Answer { status: head.status, headers: head.headers, body: kept.freeze(), truncated: !whole }
}

/// What went wrong underneath: libraries wrap the operating system's word, which is the one that helps.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}
