//! One request to an endpoint, and what came of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use serde::{Deserialize, Serialize};

use crate::auth;
use crate::config::Secret;
use crate::http_client::HttpClient;
use crate::response::JSON;

use super::unix_ms;

/// Bytes of an answer's body that are kept for the operator to read.
const SHOWN: usize = 256;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began, in milliseconds since 1970.
    pub time_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The beginning of the answer's body.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub answer: String,
}

/// Where requests go, and what they have in common.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) key: String,
    pub(super) secret: Secret,
    pub(super) timeout: Duration,
}

impl Target {
    /// Sends these events, signed. Never takes longer than the time-out.
    pub(super) async fn send(&self, client: &HttpClient, delivery_id: &str, body: String) -> Attempt {
        let (time_ms, start) = (unix_ms(), Instant::now());
        let signature = auth::sign(self.secret.expose(), &body);
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, concat!("Fanfare/", env!("CARGO_PKG_VERSION")))
            .header("X-Pusher-Key", &self.key)
            .header("X-Pusher-Signature", signature)
            .header("X-Fanfare-Delivery", delivery_id)
            .body(Full::new(Bytes::from(body)))
            .expect("a configured URL and key, and hex digits, make a valid request");
        for (name, value) in &self.headers {
            // Not `extend`, which appends: a configured user agent stands in place of ours.
            request.headers_mut().insert(name, value.clone());
        }
        let answer = client.send(request, self.timeout, SHOWN).await;
        let duration_ms = start.elapsed().as_millis() as u64;
        match answer {
            Ok(answer) => Attempt {
                time_ms,
                duration_ms,
                status: Some(answer.status.as_u16()),
                error: None,
                answer: String::from_utf8_lossy(&answer.body).into_owned(),
            },
            Err(error) => {
                Attempt { time_ms, duration_ms, status: None, error: Some(error.to_string()), answer: String::new() }
            }
        }
    }
}

impl Attempt {
    /// Whether the endpoint has taken the webhook: with any 2xx (§5.3).
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Its outcome in a few words: the status, or why there is none.
    pub fn outcome(&self) -> String {
        match (self.status, &self.error) {
            (Some(status), _) => format!("status {status}"),
            (None, error) => error.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
impl Attempt {
    /// An answer with this status.
    pub(super) fn answered(status: u16) -> Self {
        Self { time_ms: 0, duration_ms: 1, status: Some(status), error: None, answer: String::new() }
    }
}
