//! The public keys that an issuer publishes at a URL. They change: a token with a key that is not known makes them be
//! fetched again. They can be out of reach: then the ones from before stay in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode, Uri};
use jsonwebtoken::Algorithm;
use serde_json::Value;
use tokio::select;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::http_client::HttpClient;
use crate::shutdown::Shutdown;

use super::public_key::PublicKey;

/// How long the issuer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a key set.
const MAX_BODY: usize = 256 * 1024;

/// Keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// A key set, and when to look again. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct KeySet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    url: Uri,
    max_age: Duration,
    min_interval: Duration,
    client: HttpClient,
    shutdown: Shutdown,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<PublicKey>,
    fetched: Option<Instant>,
    attempted: Option<Instant>,
    under_way: bool,
    /// Whether the last attempt was in vain.
    failed: bool,
}

/// The key may be one that the issuer could not tell us about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreachable;

impl KeySet {
    pub(super) fn new(
        url: Uri,
        max_age: Duration,
        min_interval: Duration,
        client: HttpClient,
        shutdown: Shutdown,
    ) -> Self {
        let state = watch::Sender::new(State::default());
        Self(Arc::new(Shared { url, max_age, min_interval, client, shutdown, state }))
    }

    /// The keys that a token with this algorithm and this key id can be verified with. Waits for the issuer if there is
    /// none so far.
    ///
    /// # Errors
    /// There is none, and the issuer is out of reach.
    ///
    /// # Cancel safety
    /// Safe: the request to the issuer goes on without whoever waits for it.
    pub(super) async fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<Vec<PublicKey>, Unreachable> {
        let fitting = |state: &State| {
            let fits = |key: &&PublicKey| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id);
            state.keys.iter().filter(fits).cloned().collect::<Vec<_>>()
        };
        let (found, stale) = {
            let state = self.0.state.borrow();
            (fitting(&state), state.fetched.is_none_or(|fetched| fetched.elapsed() > self.0.max_age))
        };
        if stale || found.is_empty() {
            self.fetch();
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let mut changes = self.0.state.subscribe();
        let state = changes.wait_for(|state| !state.under_way).await.map_err(|_| Unreachable)?;
        let found = fitting(&state);
        if found.is_empty() && state.failed { Err(Unreachable) } else { Ok(found) }
    }

    /// Begins to fetch the set, unless that is under way, or was done a moment ago: whoever invents key ids does not
    /// decide how often the issuer is asked.
    fn fetch(&self) {
        let begun = self.0.state.send_if_modified(|state| {
            let recent = state.attempted.is_some_and(|attempted| attempted.elapsed() < self.0.min_interval);
            let begins = !state.under_way && !recent;
            if begins {
                state.under_way = true;
                state.attempted = Some(Instant::now());
            }
            begins
        });
        if !begun {
            return;
        }
        let shared = Arc::clone(&self.0);
        // A task of its own: the client whose token caused it may go away any time.
        self.0.shutdown.spawn(async move {
            let fetched = select! {
                fetched = shared.request() => fetched,
                () = shared.shutdown.requested() => Err("the server stops".to_owned()),
            };
            let url = &shared.url;
            match &fetched {
                Ok(keys) => info!(%url, keys = keys.len(), "keys of tokens fetched"),
                Err(error) => warn!(%url, error, "cannot fetch the keys of tokens; those from before stay in use"),
            }
            shared.state.send_modify(|state| {
                state.under_way = false;
                state.failed = fetched.is_err();
                if let Ok(keys) = fetched {
                    state.keys = keys;
                    state.fetched = Some(Instant::now());
                }
            });
        });
    }
}

impl Shared {
    async fn request(&self) -> Result<Vec<PublicKey>, String> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(ACCEPT, hyper::header::HeaderValue::from_static("application/json"));
        let answer = self.client.send(request, TIMEOUT, MAX_BODY).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("status {}", answer.status.as_u16()));
        }
        if answer.truncated {
            return Err(format!("more than {MAX_BODY} bytes, or not all of them in time"));
        }
        let set: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("not JSON: {error}"))?;
        let entries = set.get("keys").and_then(Value::as_array).ok_or("no list `keys`")?;
        let keys: Vec<_> = entries.iter().take(MAX_KEYS).filter_map(PublicKey::from_jwk).collect();
        match keys.is_empty() {
            true => Err("no key for RS256, ES256 or EdDSA".to_owned()),
            false => Ok(keys),
        }
    }
}
