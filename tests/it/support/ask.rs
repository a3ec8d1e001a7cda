//! Requests to the auth endpoint, as pusher-js sends them unless a test says otherwise.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Client, Response, TestServer};

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    method: &'static str,
    path: String,
    content_type: &'static str,
    headers: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
}

impl Ask {
    /// To subscribe to this channel.
    pub fn channel(socket_id: &str, channel: &str) -> Self {
        Self::new("/pusher/auth").field("socket_id", socket_id).field("channel_name", channel)
    }

    /// To sign in.
    pub fn user(socket_id: &str) -> Self {
        Self::new("/pusher/user-auth").field("socket_id", socket_id)
    }

    /// With no fields yet.
    pub fn new(path: &str) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            content_type: "application/x-www-form-urlencoded",
            headers: String::new(),
            fields: Vec::new(),
            body: None,
        }
    }

    /// With one more field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// With a token, where most clients put it.
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With a query of its own, besides the form.
    pub fn query(mut self, query: &str) -> Self {
        self.path += &format!("?{query}");
        self
    }

    /// As JSON; replaces the form.
    pub fn json(mut self, body: &Value) -> Self {
        self.content_type = "application/json";
        self.body = Some(body.to_string());
        self
    }

    /// With this body, whatever the fields are.
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// With another method.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// As a script of old clients: everything is in the query.
    pub fn jsonp(mut self, callback: &str) -> Self {
        self.fields.insert(0, ("callback".to_owned(), callback.to_owned()));
        self.path = format!("{}?{}", self.path, self.form());
        self.fields.clear();
        self.method("GET")
    }

    fn form(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = self.fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// The request as sent.
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body.clone().unwrap_or_else(|| self.form());
        let body_headers = match self.method {
            "POST" => format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, body.len()),
            _ => String::new(),
        };
        let head =
            format!("{} {} HTTP/1.1\r\nHost: test\r\n{body_headers}{}\r\n", self.method, self.path, self.headers);
        if self.method == "POST" { (head + &body).into_bytes() } else { head.into_bytes() }
    }

    /// Sends it over a connection of its own.
    pub async fn send(&self, server: &TestServer) -> Response {
        server.http().await.send(&self.bytes()).await
    }

    /// The answer to a request that is allowed.
    pub async fn allowed(&self, server: &TestServer) -> Value {
        self.send(server).await.json()
    }

    /// Expects to be refused, without a reason.
    #[track_caller]
    pub fn forbidden(&self, server: &TestServer) -> impl Future<Output = ()> {
        let (sent, place) = (self.bytes(), std::panic::Location::caller());
        let http = server.http();
        async move {
            let response = http.await.send(&sent).await;
            let shown = String::from_utf8_lossy(&sent);
            assert_eq!((response.status, response.body.as_str()), (403, "Forbidden\n"), "at {place}: {shown}");
        }
    }
}

impl Client {
    /// Subscribes with what the auth endpoint answered.
    pub async fn subscribe_authorized(&mut self, channel: &str, answer: &Value) {
        let mut data = answer.clone();
        // As pusher-js does: it must never reach the server.
        data.as_object_mut().unwrap().remove("shared_secret");
        data["channel"] = channel.into();
        self.send(serde_json::json!({ "event": "pusher:subscribe", "data": data })).await;
        self.expect_on(channel, "pusher_internal:subscription_succeeded").await;
    }

    /// Signs in with what the auth endpoint answered.
    pub async fn sign_in_authorized(&mut self, answer: &Value) {
        self.send(serde_json::json!({ "event": "pusher:signin", "data": answer })).await;
        let success = self.expect("pusher:signin_success").await;
        assert_eq!(success.data()["user_data"], answer["user_data"]);
    }
}
