//! One request that was understood: what it asks for, and the answer.

use futures_util::{StreamExt, stream};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use serde_json::Value;
use tracing::{debug, info, warn};

use crate::auth::Signer;
use crate::authorizers::{Authorizer, Blame, Caller, Question, Refused, Wish};
use crate::config::{AppConfig, KeyPair};
use crate::metrics::AuthOutcome;
use crate::protocol::{ChannelName, Kind, SocketId, json};
use crate::socket::PeerAddress;
use crate::untrusted::Untrusted;

use super::fields::{Fields, Malformed, Names};
use super::refusal::Refusal;
use super::{Context, Endpoint};

/// Channels of one batch that are decided about at the same time.
const BATCH_CONCURRENCY: usize = 8;

/// What the fields of a request say.
pub(super) struct Asked<'a> {
    /// The channels; none for a sign-in.
    pub(super) names: Option<Names>,
    pub(super) socket_id: SocketId,
    /// The key pair that the client connected with, or else the app's first.
    pub(super) pair: &'a KeyPair,
}

/// Everything about a request that does not differ between the channels of a batch.
pub(super) struct Inquiry<'a> {
    pub(super) context: &'a Context,
    pub(super) app: &'a AppConfig,
    pub(super) authorizer: &'a Authorizer,
    pub(super) pair: &'a KeyPair,
    pub(super) socket_id: SocketId,
    pub(super) caller: Caller,
    pub(super) peer: &'a PeerAddress,
}

impl<'a> Asked<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub(super) fn understand(fields: &Fields, app: &'a AppConfig, endpoint: Endpoint) -> Result<Self, Malformed> {
        let names = match endpoint {
            Endpoint::Channels => Some(fields.channels(app.limits.channels_per_event)?),
            Endpoint::Users => None,
        };
        let socket_id = fields.one("socket_id")?.ok_or(Malformed::Missing("socket_id"))?;
        let socket_id = SocketId::parse(socket_id).ok().flatten().ok_or(Malformed::SocketId)?;
        let key = fields.one("app_key")?;
        let named = app.keys.iter().find(|pair| key == Some(&pair.key));
        Ok(Self { names, socket_id, pair: named.unwrap_or(&app.keys[0]) })
    }
}

/// Who asks. What a browser attaches by itself, cookies and remembered passwords, counts only if the page may use it.
pub(super) fn caller(
    peer: &PeerAddress,
    headers: &HeaderMap,
    cookies_count: bool,
    params: Vec<(String, String)>,
) -> Caller {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let authorization = authorizations.next().filter(|_| authorizations.next().is_none()).and_then(text);
    let deliberate = |header: &String| header.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    // HTTP/2 may send them in several headers.
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().filter_map(text).collect();
    Caller {
        network: peer.network(),
        authorization: authorization.filter(|header| cookies_count || deliberate(header)),
        cookies: Some(cookies.join("; ")).filter(|cookies| cookies_count && !cookies.is_empty()),
        headers: headers.clone(),
        params,
    }
}

impl Inquiry<'_> {
    /// The body of a success.
    ///
    /// # Errors
    /// The one channel, or the sign-in, is refused. In a batch each channel has an answer of its own.
    pub(super) async fn answer(&self, names: Option<Names>) -> Result<String, Refusal> {
        match names {
            None => Ok(self.sign_in().await?.to_string()),
            Some(Names::One(name)) => Ok(self.channel(&name).await?.to_string()),
            Some(Names::Batch(names)) => Ok(self.batch(&names).await),
        }
    }

    /// Lets the connection subscribe.
    async fn channel(&self, name: &str) -> Result<Value, Refusal> {
        let decided = async {
            let channel = ChannelName::parse(name, self.app.limits.channel_name_length)?;
            if !channel.needs_auth() {
                return Err(Refusal::Public);
            }
            let data = self.decide(Wish::Subscribe(&channel)).await?;
            let master_key = self.app.master_key().filter(|_| channel.kind() == Kind::PrivateEncrypted);
            Ok(self.signer().channel(channel.as_str(), data.as_deref(), master_key.as_ref()))
        };
        self.conclude(name, decided.await)
    }

    /// Lets the connection sign in.
    async fn sign_in(&self) -> Result<Value, Refusal> {
        let data = self.decide(Wish::SignIn).await;
        let answer = data.map(|data| self.signer().user(&data.expect("a sign-in is never allowed without user data")));
        self.conclude("sign-in", answer)
    }

    /// Each channel with an answer of its own.
    async fn batch(&self, names: &[String]) -> String {
        let entry = async |name: &String| {
            let entry = match self.channel(name).await {
                Ok(answer) => format!(r#"{{"status":200,"data":{answer}}}"#),
                Err(refusal) => format!(r#"{{"status":{}}}"#, refusal.status().as_u16()),
            };
            format!("{}:{entry}", json::quoted(name))
        };
        let entries: Vec<_> = stream::iter(names).map(entry).buffered(BATCH_CONCURRENCY).collect().await;
        format!("{{{}}}", entries.join(","))
    }

    async fn decide(&self, wish: Wish<'_>) -> Result<Option<String>, Refusal> {
        let question = Question { app: self.app, socket_id: self.socket_id, wish, caller: &self.caller };
        Ok(self.authorizer.decide(&question).await?)
    }

    fn signer(&self) -> Signer<'_> {
        Signer { key: &self.pair.key, secret: &self.pair.secret, socket_id: self.socket_id }
    }

    /// Counts, and logs what was refused.
    fn conclude(&self, what: &str, answer: Result<Value, Refusal>) -> Result<Value, Refusal> {
        match answer {
            Ok(answer) => {
                self.context.node.metrics().auth_request(&self.app.id, AuthOutcome::Allowed);
                debug!(app = self.app.id, peer = %self.peer, what, socket_id = %self.socket_id, "auth request allowed");
                Ok(answer)
            }
            Err(refusal) => Err(refused(self.context, Some(self.app), self.peer, what, refusal)),
        }
    }
}

/// Counts and logs a refusal. Nobody else learns the reason, so it is not hidden among the details.
pub(super) fn refused(
    context: &Context,
    app: Option<&AppConfig>,
    peer: &PeerAddress,
    what: &str,
    refusal: Refusal,
) -> Refusal {
    let id = app.map_or("", |app| app.id.as_str());
    let blame = refusal.blame();
    let outcome = match &refusal {
        Refusal::Refused(Refused::NoTurn) => AuthOutcome::Busy,
        _ if blame == Blame::Backend => AuthOutcome::Failed,
        _ => AuthOutcome::Denied,
    };
    context.node.metrics().auth_request(id, outcome);
    let reason = refusal.to_string();
    let (what, reason) = (Untrusted(what), Untrusted(&reason));
    match (outcome, blame) {
        (_, Blame::Caller) => info!(app = id, %peer, %what, %reason, "auth request refused"),
        // A line of its own for `log.repeat_limit`: the questions of a flood that were asked fail, too, and would hide it.
        (AuthOutcome::Busy, _) => warn!(app = id, %peer, %what, %reason, "auth request refused"),
        _ => warn!(app = id, %peer, %what, %reason, "auth request refused"),
    }
    refusal
}
