//! Who may do what, where Fanfare itself is asked (§3.3): by the claims of a JWT, by the app's backend or, for
//! development, everybody. An authorizer says yes or no, and who the user is; it signs nothing.
//!
//! Nothing here trusts the one who asks: channel and socket are checked before, and what an authorizer says of a user is
//! checked after, by the rules that the user will meet when it subscribes or signs in.

mod backend_answer;
mod cache;
mod claims;
mod dev;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gauges;
mod grants;
mod identity;
mod jwks;
mod jwt;
mod jwt_crypto;
mod public_key;
mod refused;
mod tokens;
mod turns;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use hyper::HeaderMap;
use tracing::warn;

use crate::addresses::Network;
use crate::config::AppConfig;
use crate::protocol::{ChannelName, SocketId};
use crate::shutdown::Shutdown;

use forward::Forward;
use jwt::Jwt;

pub use gauges::Gauges;
pub use refused::{Blame, Refused};

/// The authorizers of all apps that have one.
#[derive(Debug)]
pub struct Authorizers(HashMap<String, Authorizer>);

/// Decides for one app.
#[derive(Debug)]
pub enum Authorizer {
    /// By the claims of a token.
    Jwt(Box<Jwt>),
    /// By asking the app's backend.
    Forward(Box<Forward>),
    /// Everybody may everything.
    Dev,
}

/// What somebody wants, and all that an authorizer may know about it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The app.
    pub app: &'a AppConfig,
    /// The connection that the answer will be good for.
    pub socket_id: SocketId,
    /// What for.
    pub wish: Wish<'a>,
    /// Who asks.
    pub caller: &'a Caller,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Subscribe to a channel that is not public.
    Subscribe(&'a ChannelName),
    /// Sign in.
    SignIn,
}

/// What a request says about who sent it.
#[derive(Debug)]
pub struct Caller {
    /// Where it is, as far as that is known.
    pub network: Network,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Cookie` header, if its page may use it.
    pub cookies: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The parameters that are not Fanfare's own, in order.
    pub params: Vec<(String, String)>,
}

/// Why an authorizer cannot be made; the text names the setting.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A public key that cannot be used.
    #[error("apps.{app}.auth.jwt.public_key_file: {}: {reason}", path.display())]
    PublicKey {
        /// The place of the app in the configuration.
        app: usize,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine has no root certificates for an https:// URL.
    #[error("apps.{app}.auth.{key}: no root certificates for https:// on this machine: {source}")]
    RootCertificates {
        /// The place of the app in the configuration.
        app: usize,
        /// The setting.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Authorizers {
    /// Those that the apps ask for. Requests to other servers end when `shutdown` says so.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(apps: &[AppConfig], shutdown: &Shutdown) -> Result<Self, SetupError> {
        let mut authorizers = HashMap::new();
        for (app, config) in apps.iter().enumerate() {
            let auth = &config.auth;
            let authorizer = if let Some(jwt) = &auth.jwt {
                Authorizer::Jwt(Box::new(Jwt::new(app, jwt, shutdown)?))
            } else if let Some(forward) = &auth.forward {
                Authorizer::Forward(Box::new(Forward::new(app, forward, shutdown)?))
            } else if auth.dev {
                Authorizer::Dev
            } else {
                continue;
            };
            authorizers.insert(config.id.clone(), authorizer);
        }
        Ok(Self(authorizers))
    }

    /// The authorizer of an app.
    pub fn of(&self, app_id: &str) -> Option<&Authorizer> {
        self.0.get(app_id)
    }

    /// Whether no app has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says aloud which apps trust everybody.
    pub fn warn_of_dev(&self) {
        for (app, authorizer) in &self.0 {
            if matches!(authorizer, Authorizer::Dev) {
                warn!(app, "auth.dev is on: everybody who reaches this server can be anybody and hear everything");
            }
        }
    }
}

impl Authorizer {
    /// Answers with the user data to sign along: always for presence channels and sign-ins, never for other channels.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn decide(&self, question: &Question<'_>) -> Result<Option<String>, Refused> {
        let data = match self {
            Self::Jwt(jwt) => jwt.decide(question).await?,
            Self::Forward(forward) => forward.decide(question).await?,
            Self::Dev => Some(dev::decide(question)),
        };
        identity::checked(question, data).map_err(|refused| match self {
            Self::Forward(_) => refused.by_backend(),
            _ => refused,
        })
    }
}

impl Caller {
    /// The value of a cookie. `None` also if it is there twice: a neighbouring domain can add one of the same name, and
    /// nobody can tell which is which.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.cookies.as_deref()?.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut values = cookies.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
        values.next().filter(|_| values.next().is_none())
    }

    /// The values of a parameter.
    pub fn param<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.params.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
