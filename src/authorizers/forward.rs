//! Asks the app's backend, which knows its sessions better than anybody else. The backend answers as its own auth endpoint
//! would, but need not sign: what it says of the user is signed here, for exactly the socket and channel that were asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::ForwardConfig;
use crate::http_client::{Answer, HttpClient};
use crate::protocol::json;
use crate::shutdown::Shutdown;

use super::cache::Cache;
use super::identity::Identity;
use super::{Question, Refused, SetupError, Wish};

/// Bytes of a backend's answer. A sign-in with the largest `user_data` that is allowed by default fits twice.
const MAX_ANSWER: usize = 64 * 1024;

/// Questions to one backend at the same time. More wait, no longer than an answer may take.
const CONCURRENCY: usize = 64;

/// The authorizer of an app whose backend decides.
#[derive(Debug)]
pub struct Forward {
    url: Uri,
    user_url: Option<Uri>,
    headers: Vec<HeaderName>,
    backend: Backend,
    cache: Option<Cache<Verdict>>,
}

#[derive(Debug, Clone)]
struct Backend {
    client: HttpClient,
    timeout: Duration,
    permits: Arc<Semaphore>,
}

/// What came back.
#[derive(Debug, Clone)]
enum Verdict {
    Allowed(Option<Arc<str>>),
    Denied(StatusCode),
    Undecided(String),
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
            backend: Backend { client, timeout: config.timeout, permits: Arc::new(Semaphore::new(CONCURRENCY)) },
            cache: Some(Cache::new(config.cache, shutdown.clone())).filter(|_| !config.cache.is_zero()),
        })
    }

    /// What the backend says.
    pub(super) async fn decide(&self, question: &Question<'_>) -> Result<Option<String>, Refused> {
        let url = match question.wish {
            Wish::Subscribe(_) => &self.url,
            Wish::SignIn => self.user_url.as_ref().ok_or(Refused::NoSignIn)?,
        };
        let request = self.request(url, question);
        let signs_in = question.wish == Wish::SignIn;
        let verdict = match &self.cache {
            None => self.backend.ask(request, signs_in).await,
            Some(cache) => {
                let backend = self.backend.clone();
                let ask = || async move { backend.ask(request, signs_in).await };
                let keep = |verdict: &Verdict| !matches!(verdict, Verdict::Undecided(_));
                let verdict = cache.get(self.key(question), ask, keep).await;
                verdict.unwrap_or_else(|| Verdict::Undecided("the server stops".to_owned()))
            }
        };
        match verdict {
            Verdict::Allowed(data) => Ok(data.map(|data| data.to_string())),
            Verdict::Denied(status) => Err(Refused::Backend(status)),
            Verdict::Undecided(reason) => Err(Refused::Undecided(reason)),
        }
    }

    /// A form, as pusher-js sends it, with what says who the client is.
    fn request(&self, url: &Uri, question: &Question<'_>) -> Request<Full<Bytes>> {
        let caller = question.caller;
        let socket_id = question.socket_id.to_string();
        let mut fields = vec![("socket_id", socket_id.as_str())];
        if let Wish::Subscribe(channel) = question.wish {
            fields.push(("channel_name", channel.as_str()));
        }
        fields.extend(caller.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
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
        add(caller.params.len().to_string().as_bytes());
        for (name, value) in &caller.params {
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
    async fn ask(&self, request: Request<Full<Bytes>>, signs_in: bool) -> Verdict {
        let Ok(permit) = timeout(self.timeout, self.permits.acquire()).await else {
            return Verdict::Undecided(format!("{CONCURRENCY} earlier questions are not answered yet"));
        };
        let answer = self.client.send(request, self.timeout, MAX_ANSWER).await;
        drop(permit);
        match answer {
            Ok(answer) => verdict(&answer, signs_in),
            Err(error) => Verdict::Undecided(error.to_string()),
        }
    }
}

/// Yes is a 200 with nothing or with a JSON object, and only that: a page that some router shows for every path is no
/// permission.
fn verdict(answer: &Answer, signs_in: bool) -> Verdict {
    match answer.status {
        StatusCode::OK => {}
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Verdict::Denied(status),
        status => return Verdict::Undecided(format!("it answered {}", status.as_u16())),
    }
    if answer.truncated {
        return Verdict::Undecided(format!("its answer is longer than {MAX_ANSWER} bytes, or did not arrive in time"));
    }
    if answer.body.trim_ascii().is_empty() {
        return Verdict::Allowed(None);
    }
    match json::object::<Map<String, Value>>(std::str::from_utf8(&answer.body).unwrap_or_default()) {
        Ok(members) => Verdict::Allowed(data(members, signs_in).map(Arc::from)),
        Err(_) => Verdict::Undecided("it answered 200 with something else than a JSON object".to_owned()),
    }
}

/// The text to sign along: `channel_data` or `user_data` as every library makes it, or else the user in plain members.
fn data(mut members: Map<String, Value>, signs_in: bool) -> Option<String> {
    let (ready, ids): (_, &[&str]) = match signs_in {
        true => ("user_data", &["id", "user_id"]),
        false => ("channel_data", &["user_id"]),
    };
    match members.remove(ready) {
        Some(Value::String(text)) => return Some(text),
        Some(object @ Value::Object(_)) => return Some(object.to_string()),
        _ => {}
    }
    let id = match ids.iter().find_map(|name| members.remove(*name))? {
        Value::String(id) => id,
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let identity = Identity { id, info: members.remove("user_info"), watchlist: members.remove("watchlist") };
    Some(if signs_in { identity.user_data() } else { identity.channel_data() })
}
