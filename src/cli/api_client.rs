//! Requests to the HTTP API, signed as a backend's library signs them (protocol §4.2).

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::auth;
use crate::http_client::{HttpClient, innermost};

use super::target::Target;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer of the API is larger; a server that sends more is not ours.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// All but what RFC 3986 never escapes, and what channel names may hold besides, which is legal in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'=')
    .remove(b'@')
    .remove(b',')
    .remove(b';');

/// A request that brought no useful answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody listens there.
    #[error("nothing listens at {0}; is the server running there? (`fanfare dev` starts one for development)")]
    Refused(String),
    /// The host is unknown, the network is down, TLS failed, or what answers does not speak HTTP.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the innermost layer said.
        cause: String,
    },
    /// Connected, but no answer came.
    #[error("no answer from {url} within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// Who was asked.
        url: String,
    },
    /// The server said no.
    #[error("the server answered {status}: {text}{}", hint(*.status))]
    Refusal {
        /// The HTTP status.
        status: StatusCode,
        /// The body: one line of text.
        text: String,
    },
    /// The server does not have what was asked about, and says so.
    #[error("{0}")]
    NotThere(String),
    /// Whatever answered is not this API.
    #[error("{0} answered, but not with the JSON of the Pusher HTTP API; is --url right?")]
    NotTheApi(String),
}

impl Target {
    /// Asks for something.
    pub(super) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, CallError> {
        self.call(Method::GET, path, parameters, Bytes::new()).await
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, &[], body.to_string().into()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Value, CallError> {
        let path = format!("/apps/{}{path}", escape(&self.app_id));
        let secret = self.secret.expose();
        let query = auth::sign_request(&self.key, secret, method.as_str(), &path, parameters, &body, SystemTime::now());
        let url = self.url.http(&format!("{path}?{query}"));
        let (status, answer) = request(method, &url, &self.url.to_string(), body).await?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&answer).trim().to_owned();
            return Err(CallError::Refusal { status, text });
        }
        serde_json::from_slice(&answer).map_err(|_| CallError::NotTheApi(self.url.to_string()))
    }
}

/// Sends one request and reads the whole answer. `server` is what errors call the other side.
pub(super) async fn request(
    method: Method,
    url: &str,
    server: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), CallError> {
    let unreachable = |cause: &(dyn Error + 'static)| unreachable(server, cause);
    let client = HttpClient::new(url.starts_with("https:")).map_err(|error| unreachable(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .header("X-Pusher-Library", concat!("fanfare-cli ", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|error| unreachable(&error))?;
    let exchange = async {
        let response = client.begin(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| unreachable(&*error))?.to_bytes()))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(CallError::Timeout { url: server.to_owned() }))
}

/// A text as one segment of a path.
pub(super) fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, ESCAPED).to_string()
}

/// What went wrong underneath, and what to look at.
pub(super) fn unreachable(server: &str, error: &(dyn Error + 'static)) -> CallError {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let refused = |error: &(dyn Error + 'static)| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if causes().any(refused) {
        return CallError::Refused(server.to_owned());
    }
    let mut cause = innermost(error);
    // What TLS says to a plain server, and HTTP to one that speaks TLS.
    if server.starts_with("https:") && cause.contains("corrupt message") {
        cause.push_str("; is it an http:// server?");
    } else if server.starts_with("http:") && cause.contains("invalid HTTP version") {
        cause.push_str("; is it an https:// server?");
    }
    CallError::Unreachable { url: server.to_owned(), cause }
}

/// What to look at first, after this status.
fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "\n(check --app-id, --key and --secret, and the clocks)",
        // The second one is what other servers say to a POST.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "\n(is --url right, path prefix included?)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_name_stands_in_the_path_as_it_is() {
        assert_eq!(escape("presence-room_1.2@=,;"), "presence-room_1.2@=,;");
        assert_eq!(escape("a/b ?é"), "a%2Fb%20%3F%C3%A9");
    }

    #[test]
    fn a_refused_connection_asks_whether_the_server_runs() {
        let refused = tokio_tungstenite::tungstenite::Error::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = unreachable("http://127.0.0.1:6001", &refused);
        assert!(matches!(error, CallError::Refused(_)), "{error}");
        let error = unreachable("http://127.0.0.1:6001", &io::Error::other("no such host"));
        assert_eq!(error.to_string(), "cannot reach http://127.0.0.1:6001: no such host");
    }
}
