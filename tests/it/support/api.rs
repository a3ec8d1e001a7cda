//! HTTP/1.1 by hand over one kept connection, and the requests of the HTTP API, signed in every way the official
//! libraries sign them.

use serde_json::Value;

use super::wire::Wire;
use super::{APP_ID, DEADLINE, KEY, SECRET, sign, unix_now, within};

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// One of which only the head is here.
    pub fn begun(head: String) -> Self {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Self { status, head, body: String::new() }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body of a success: status 200 exactly and a JSON object.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}\n\n{}", self.head, self.body);
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        let json: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body));
        assert!(json.is_object(), "not an object: {}", self.body);
        json
    }

    /// The success that has nothing to tell.
    pub fn ok(&self) {
        assert_eq!(self.json(), serde_json::json!({}), "{}", self.body);
    }

    /// The text of a refusal with this status: one line of plain text.
    pub fn error(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}\n\n{}", self.head, self.body);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{}", self.head);
        let text = self.body.strip_suffix('\n').unwrap_or_else(|| panic!("no newline after {:?}", self.body));
        assert!(!text.is_empty() && !text.contains('\n'), "not one line: {text:?}");
        text
    }
}

/// One HTTP/1.1 connection.
pub struct Http {
    /// The bytes below.
    pub wire: Wire,
}

impl Http {
    /// A client over this connection.
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Sends a request and reads the answer.
    pub async fn send(&mut self, request: &[u8]) -> Response {
        self.wire.write(request).await;
        self.response().await
    }

    /// A plain GET.
    pub async fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await
    }

    /// Asks for readiness on a server that may be gone before it answers.
    pub async fn try_ready(&mut self) -> Option<Response> {
        self.wire.try_write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok()?;
        self.try_response().await
    }

    /// The next answer.
    pub async fn response(&mut self) -> Response {
        within("answer", self.try_response()).await.expect("the server hung up instead of answering")
    }

    /// The next answer, or `None` if the connection ends instead.
    pub async fn try_response(&mut self) -> Option<Response> {
        loop {
            let mut response = Response::begun(self.wire.head().await?);
            if response.status == 100 {
                continue;
            }
            let length = response.header("content-length").map(|length| length.parse().unwrap());
            let body = if [204, 304].contains(&response.status) {
                Vec::new()
            } else if let Some(length) = length {
                self.wire.exactly(length).await
            } else if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
                self.chunks().await
            } else {
                self.wire.rest().await
            };
            response.body = String::from_utf8(body).unwrap();
            return Some(response);
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            match self.wire.chunk().await {
                chunk if chunk.is_empty() => return body,
                chunk => body.extend(chunk),
            }
        }
    }
}

/// How a library writes query values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are: Node, Go, Python.
    Raw,
    /// `%20` for a space.
    Percent,
    /// `+` for a space: PHP, Ruby, Java.
    Plus,
}

/// An API request, complete and signed unless the test takes something away.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The path as signed, if it is another one.
    pub signed_path: Option<String>,
    /// The query without the signature, in the order it is sent.
    pub params: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The secret.
    pub secret: String,
    /// The signature, if it is not the right one.
    pub signature: Option<String>,
    /// How the query is written.
    pub encoding: Encoding,
    /// Further headers.
    pub headers: String,
}

impl Call {
    /// A request without a body.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, b"")
    }

    /// A request with a JSON body.
    pub fn post(path: &str, body: &Value) -> Self {
        Self::new("POST", path, body.to_string().as_bytes())
    }

    /// Any request, signed as the libraries do.
    pub fn new(method: &str, path: &str, body: &[u8]) -> Self {
        let mut params = vec![
            ("auth_key".to_owned(), KEY.to_owned()),
            ("auth_timestamp".to_owned(), unix_now().to_string()),
            ("auth_version".to_owned(), "1.0".to_owned()),
        ];
        if !body.is_empty() {
            params.push(("body_md5".to_owned(), sign::md5(body)));
        }
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            signed_path: None,
            params,
            body: body.to_vec(),
            secret: SECRET.to_owned(),
            signature: None,
            encoding: Encoding::Percent,
            headers: String::new(),
        }
    }

    /// With one more parameter.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.params.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Without this parameter.
    pub fn without(mut self, key: &str) -> Self {
        self.params.retain(|(name, _)| name != key);
        self
    }

    /// With another value of this parameter.
    pub fn set(self, key: &str, value: &str) -> Self {
        self.without(key).with(key, value)
    }

    /// With another key pair.
    pub fn credentials(mut self, key: &str, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self.set("auth_key", key)
    }

    /// Query values written this way.
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// The text the signature covers.
    pub fn text(&self) -> String {
        sign::request_text(&self.method, self.signed_path.as_ref().unwrap_or(&self.path), &self.params)
    }

    /// Path and query as sent.
    pub fn target(&self) -> String {
        let signature = self.signature.clone().unwrap_or_else(|| sign::hmac(&self.secret, &self.text()));
        let mut query: Vec<_> =
            self.params.iter().map(|(key, value)| format!("{key}={}", encode(value, self.encoding))).collect();
        query.push(format!("auth_signature={signature}"));
        format!("{}?{}", self.path, query.join("&"))
    }

    /// The request as sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(self.body.len()).into_bytes();
        bytes.extend(&self.body);
        bytes
    }

    /// The request's head for a body of this length.
    pub fn head(&self, length: usize) -> String {
        let length =
            if length > 0 || self.method != "GET" { format!("Content-Length: {length}\r\n") } else { "".into() };
        format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}{}\r\n",
            self.method,
            self.target(),
            self.headers
        )
    }
}

fn encode(value: &str, encoding: Encoding) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match (byte, encoding) {
            (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~', _) | (_, Encoding::Raw) => {
                encoded.push(char::from(byte));
            }
            (b' ', Encoding::Plus) => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A client of the HTTP API with one kept connection.
pub struct Api {
    /// The connection.
    pub http: Http,
}

impl Api {
    /// A client over this connection.
    pub fn new(http: Http) -> Self {
        Self { http }
    }

    /// Makes a call.
    pub async fn call(&mut self, call: &Call) -> Response {
        self.http.send(&call.bytes()).await
    }

    /// GET below the app, with these parameters.
    pub async fn get(&mut self, path: &str, params: &[(&str, &str)]) -> Response {
        let mut call = Call::get(&format!("/apps/{APP_ID}{path}"));
        for (key, value) in params {
            call = call.with(key, value);
        }
        self.call(&call).await
    }

    /// POST below the app.
    pub async fn post(&mut self, path: &str, body: &Value) -> Response {
        self.call(&Call::post(&format!("/apps/{APP_ID}{path}"), body)).await
    }

    /// Publishes an event on one channel.
    pub async fn trigger(&mut self, channel: &str, event: &str, data: &str) {
        let body = serde_json::json!({ "name": event, "channels": [channel], "data": data });
        self.post("/events", &body).await.ok();
    }

    /// Publishes an event on one channel for everybody but one connection.
    pub async fn trigger_except(&mut self, channel: &str, event: &str, data: &str, socket_id: &str) {
        let body = serde_json::json!({ "name": event, "channels": [channel], "data": data, "socket_id": socket_id });
        self.post("/events", &body).await.ok();
    }

    /// What the API says about a channel.
    pub async fn channel(&mut self, channel: &str, info: &str) -> Value {
        self.get(&format!("/channels/{channel}"), &[("info", info)]).await.json()
    }

    /// Waits until it says this. Another node than the one of the clients may take milliseconds to know.
    pub async fn expect_channel(&mut self, channel: &str, info: &str, expected: Value) {
        self.expect_answer(&format!("/channels/{channel}"), info, expected).await;
    }

    /// Waits until these are the occupied channels.
    pub async fn expect_channels(&mut self, expected: Value) {
        self.expect_answer("/channels", "", serde_json::json!({ "channels": expected })).await;
    }

    async fn expect_answer(&mut self, path: &str, info: &str, expected: Value) {
        let start = tokio::time::Instant::now();
        loop {
            let said = self.get(path, &[("info", info)]).await.json();
            if said == expected {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{path} is {said} and not {expected}");
        }
    }
}
