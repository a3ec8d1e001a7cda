//! Asks the app's backend, which knows its sessions better than anybody else. The backend answers as its own auth endpoint
//! would, but need not sign: what it says of the user is signed here, for exactly the socket and channel that were asked for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tracing::debug;

use crate::addresses::Network;
use crate::config::ForwardConfig;
use crate::http_client::HttpClient;
use crate::shutdown::Shutdown;
use crate::untrusted::Untrusted;

use super::backend_answer::{Expected, Verdict};
use super::cache::Cache;
use super::turns::{Turn, Turns};
use super::{Caller, Question, Refused, SetupError, Wish};

/// Bytes of a backend's answer. A sign-in with the largest `user_data` that is allowed by default fits twice.
const MAX_ANSWER: usize = 64 * 1024;

/// The authorizer of an app whose backend decides.
#[derive(Debug)]
pub struct Forward {
    url: Uri,
    user_url: Option<Uri>,
    headers: Vec<HeaderName>,
    params: Vec<String>,
    accept_true: bool,
    backend: Backend,
    cache: Option<Cache<Verdict>>,
}

#[derive(Debug, Clone)]
struct Backend {
    client: HttpClient,
    timeout: Duration,
    turns: Turns,
}

impl Forward {
    pub(super) fn new(app: usize, config: &ForwardConfig, shutdown: &Shutdown) -> Result<Self, SetupError> {
        let url = |text: &str| text.parse::<Uri>().expect("the configuration holds URLs only");
        let user_url = Some(&config.user_url).filter(|url| !url.is_empty());
        let secure = config.url.starts_with("https:") || config.user_url.starts_with("https:");
        let client = HttpClient::new(secure).map_err(|source| SetupError::RootCertificates {
            app,
            key: "forward.url",
            source,
        })?;
        let header = |name: &String| HeaderName::try_from(name).expect("the configuration holds header names only");
        Ok(Self {
            url: url(&config.url),
            user_url: user_url.map(|text| url(text)),
            headers: config.headers.iter().map(header).collect(),
            params: config.params.clone(),
            accept_true: config.accept_true,
            backend: Backend { client, timeout: config.timeout, turns: Turns::new(config.concurrency) },
            cache: Some(Cache::new(config.cache, shutdown.clone())).filter(|_| !config.cache.is_zero()),
        })
    }

    /// The questions under way, and those that wait for a turn.
    pub(super) fn questions(&self) -> (usize, usize) {
        self.backend.turns.counts()
    }

    /// What the backend says.
    pub(super) async fn decide(&self, question: &Question<'_>) -> Result<Option<String>, Refused> {
        let url = match question.wish {
            Wish::Subscribe(_) => &self.url,
            Wish::SignIn => self.user_url.as_ref().ok_or(Refused::NoSignIn)?,
        };
        let request = self.request(url, question);
        let expected = Expected::new(question.wish, self.accept_true);
        let turn = self.backend.turn(question.caller.network);
        let ask = |turn| self.backend.clone().ask(turn, request, expected);
        let verdict = match &self.cache {
            None => ask(turn.await?).await,
            Some(cache) => {
                let keep = |verdict: &Verdict| !matches!(verdict, Verdict::Undecided(_));
                let verdict = cache.get(self.key(question), turn, ask, keep).await?;
                verdict.unwrap_or_else(|| Verdict::Undecided("the server stops".to_owned()))
            }
        };
        match verdict {
            Verdict::Allowed(data) => Ok(data.map(|data| data.to_string())),
            Verdict::Denied(what) => Err(Refused::Backend(what)),
            Verdict::Undecided(reason) => Err(Refused::Undecided(reason)),
        }
    }

    /// The parameters that go along: those that the configuration lists, under exactly the names that it has. A name that a
    /// client chose could be another one to the backend.
    fn params<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = (&'a str, &'a str)> {
        let listed = |(name, _): &&(String, String)| self.params.contains(name);
        caller.params.iter().filter(listed).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A form, as pusher-js sends it, with what says who the client is.
    fn request(&self, url: &Uri, question: &Question<'_>) -> Request<Full<Bytes>> {
        let caller = question.caller;
        let socket_id = question.socket_id.to_string();
        let mut fields = vec![("socket_id", socket_id.as_str())];
        if let Wish::Subscribe(channel) = question.wish {
            fields.push(("channel_name", channel.as_str()));
        }
        fields.extend(self.params(caller));
        if let Some((name, _)) = caller.params.iter().find(|(name, _)| !self.params.contains(name)) {
            debug!(app = question.app.id, name = %Untrusted(name), "parameter not passed on: not in auth.forward.params");
        }
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();

        let mut request = Request::post(url).body(Full::from(fields.join("&"))).expect("a URL and a method are valid");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // Frameworks answer a browser that is not logged in with a redirect, and everybody else with a status.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in [(COOKIE, &caller.cookies), (AUTHORIZATION, &caller.authorization)] {
            let value = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok());
            headers.extend(value.map(|value| (name, value)));
        }
        for name in &self.headers {
            headers.extend(caller.headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        request
    }

    /// Everything that the backend decides by, and not the socket: whoever reconnects has another one. Lengths and numbers
    /// stand in front, so that no two questions look the same.
    fn key(&self, question: &Question<'_>) -> [u8; 32] {
        let caller = question.caller;
        let mut digest = Sha256::new();
        let mut add = |text: &[u8]| digest.update([&(text.len() as u64).to_be_bytes(), text].concat());
        match question.wish {
            Wish::Subscribe(channel) => add(format!("channel {channel}").as_bytes()),
            Wish::SignIn => add(b"user"),
        }
        for value in [&caller.cookies, &caller.authorization] {
            add(value.as_ref().map_or("0".to_owned(), |value| format!("1{value}")).as_bytes());
        }
        add(self.params(caller).count().to_string().as_bytes());
        for (name, value) in self.params(caller) {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for name in &self.headers {
            for value in caller.headers.get_all(name) {
                add(name.as_str().as_bytes());
                add(value.as_bytes());
            }
        }
        digest.finalize().into()
    }
}

impl Backend {
    /// Waits for a turn, no longer than an answer may take.
    async fn turn(&self, source: Network) -> Result<Turn, Refused> {
        timeout(self.timeout, self.turns.take(source)).await.map_err(|_| Refused::NoTurn)
    }

    async fn ask(self, turn: Turn, request: Request<Full<Bytes>>, expected: Expected) -> Verdict {
        let answer = self.client.send(request, self.timeout, MAX_ANSWER).await;
        drop(turn);
        match answer {
            Ok(answer) => expected.verdict(&answer, MAX_ANSWER),
            Err(error) => Verdict::Undecided(error.to_string()),
        }
    }
}
