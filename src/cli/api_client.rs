//! Requests to the HTTP API, signed as a backend's library signs them (protocol §4.2).

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::auth;

use super::target::Target;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer of the API is larger; a server that sends more is not ours.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// What RFC 3986 leaves as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, and what channel names may hold besides: they are legal in a path.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'=').remove(b'@').remove(b',').remove(b';');

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
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let query = signed_query(&method, &path, parameters, &body, &self.key, self.secret.expose(), now);
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
    let tls = tls(url.starts_with("https:")).map_err(|error| unreachable(&error))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .header("X-Pusher-Library", concat!("fanfare-cli ", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|error| unreachable(&error))?;
    let exchange = async {
        let response = client.request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| unreachable(&*error))?.to_bytes()))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(CallError::Timeout { url: server.to_owned() }))
}

/// A text as one segment of a path.
pub(super) fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, ESCAPED_IN_PATH).to_string()
}

/// The system's root certificates, unless no certificate will be looked at: a bare container has none.
fn tls(secure: bool) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder();
    Ok(if secure {
        builder.with_native_roots()?.with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    })
}

/// The query string of a request, signature included. The signature covers the values as they are, the URL carries
/// them escaped.
fn signed_query(
    method: &Method,
    path: &str,
    parameters: &[(&str, &str)],
    body: &[u8],
    key: &str,
    secret: &str,
    now: u64,
) -> String {
    let now = now.to_string();
    let body_md5 = hex::encode(Md5::digest(body));
    let mut all = vec![("auth_key", key), ("auth_timestamp", &now), ("auth_version", "1.0")];
    all.extend(parameters);
    if !body.is_empty() {
        all.push(("body_md5", &body_md5));
    }
    all.sort_unstable();
    let plain = all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let signature = auth::sign(secret, &format!("{method}\n{path}\n{plain}"));
    all.push(("auth_signature", &signature));
    let escaped = all.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)));
    escaped.collect::<Vec<_>>().join("&")
}

/// What went wrong underneath: libraries wrap the operating system's word, which is the one that helps.
pub(super) fn unreachable(server: &str, error: &(dyn Error + 'static)) -> CallError {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let refused = |error: &(dyn Error + 'static)| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if causes().any(refused) {
        return CallError::Refused(server.to_owned());
    }
    let cause = causes().last().map_or_else(String::new, ToString::to_string);
    CallError::Unreachable { url: server.to_owned(), cause }
}

/// What to look at first, after this status.
fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "\n(check --app-id, --key and --secret, and the clocks)",
        StatusCode::NOT_FOUND => "\n(is --url right, path prefix included?)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "app-key-1";
    const SECRET: &str = "app-secret-1";

    fn signature(query: &str) -> &str {
        query.split("auth_signature=").nth(1).unwrap()
    }

    #[test]
    fn pushers_published_example_is_reproduced() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let (key, secret) = ("278d425bdf160c739803", "7ad3773142a6692b25b8");
        let query = signed_query(&Method::POST, "/apps/3/events", &[], body, key, secret, 1_353_088_179);
        assert_eq!(
            query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn parameters_are_signed_in_order_and_unescaped() {
        let parameters = [("info", "user_count,subscription_count"), ("filter_by_prefix", "presence-")];
        let path = "/apps/42/channels";
        let query = signed_query(&Method::GET, path, &parameters, b"", KEY, SECRET, 1_700_000_000);
        assert!(query.contains("&filter_by_prefix=presence-&info=user_count%2Csubscription_count&"), "{query}");
        assert_eq!(signature(&query), "77a98fc5f38b7a0b562eb01226e4ef248250ed87a39f9e3ea64cc86e48af9cfc");
    }

    #[test]
    fn a_channel_name_stands_in_the_path_as_it_is() {
        let path = format!("/apps/42/channels/{}", escape("presence-room@1,2"));
        let parameters = [("info", "user_count")];
        let query = signed_query(&Method::GET, &path, &parameters, b"", KEY, SECRET, 1_700_000_000);
        assert_eq!(signature(&query), "51d7555a1d643247b5f51b8acd38e5d444eb2bb0b62196832b52b7232147a810");
        assert_eq!(escape("a/b ?"), "a%2Fb%20%3F");
    }
}
