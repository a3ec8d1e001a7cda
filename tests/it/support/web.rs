//! Somebody else's web server: an issuer with a key set, or an app's backend.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::within;

/// What it answers.
pub struct Answer(pub u16, pub String);

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The path.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The fields of the form.
    pub fields: Vec<(String, String)>,
}

impl Seen {
    /// A field of the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Script = Box<dyn Fn(&Seen) -> Answer + Send>;

/// A running web server. It stops when it is dropped.
pub struct Web {
    /// Its address as a URL, without a path.
    pub url: String,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<Script>,
    seen: watch::Sender<Vec<Seen>>,
    /// Which answers are held back.
    held: watch::Sender<fn(&Seen) -> bool>,
}

impl Web {
    /// One that answers like this.
    pub async fn start(answer: impl Fn(&Seen) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Script = Box::new(answer);
        let (seen, held) = (watch::Sender::new(Vec::new()), watch::Sender::new((|_| false) as fn(&Seen) -> bool));
        let shared = Arc::new(Shared { answer: Mutex::new(answer), seen, held });
        let running = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { url, shared, running }
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: impl Fn(&Seen) -> Answer + Send + 'static) {
        *self.shared.answer.lock().unwrap() = Box::new(answer);
    }

    /// Holds all answers back, or lets them go.
    pub fn hold(&self, held: bool) {
        self.hold_only(if held { |_| true } else { |_| false });
    }

    /// Holds the answers to these requests back, and lets all others go.
    pub fn hold_only(&self, held: fn(&Seen) -> bool) {
        self.shared.held.send_replace(held);
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// Waits until there have been so many requests.
    pub async fn expect_seen(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.shared.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.len() >= count);
        within(&format!("{count} requests"), enough).await.unwrap().clone()
    }

    /// Stops listening, as if it had crashed.
    pub fn stop(&self) {
        self.running.abort();
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| reply(&shared, request));
            // A new connection for each request: one that stays open would outlive `stop`.
            let _ = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn reply(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    let fields = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
    let seen = Seen { path: head.uri.path().to_owned(), headers: head.headers, fields };
    shared.seen.send_modify(|all| all.push(seen.clone()));
    let _ = shared.held.subscribe().wait_for(|held| !held(&seen)).await;
    let Answer(status, body) = (shared.answer.lock().unwrap())(&seen);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status.try_into().unwrap();
    Ok(response)
}
