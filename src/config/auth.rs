//! `[apps.auth]`: who decides whether a client may subscribe or sign in, if Fanfare is asked (protocol §3.3).

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `[apps.auth]`: at most one of the three.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthConfig {
    /// Sign everything for everybody: for development.
    pub dev: bool,
    /// Decide by the claims of a JWT.
    pub jwt: Option<JwtConfig>,
    /// Ask the app's backend.
    pub forward: Option<ForwardConfig>,
}

/// `[apps.auth.jwt]`. The key is exactly one of `secret`, `public_key_file` and `jwks_url`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtConfig {
    /// The algorithms that are accepted: HS256 alone, or some of the others.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The key of HS256.
    pub secret: Option<Secret>,
    /// A public key in PEM.
    pub public_key_file: Option<PathBuf>,
    /// Where the issuer publishes its public keys; empty for nowhere.
    pub jwks_url: String,
    /// How long keys from there are used before they are fetched again.
    pub jwks_max_age: Duration,
    /// The least time between two requests for them.
    pub jwks_min_interval: Duration,
    /// Values of `aud` of which a token must have one; empty = not checked.
    pub audience: Vec<String>,
    /// The value that `iss` must have; empty = not checked.
    pub issuer: String,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
    /// The cookie that may hold the token; empty for none.
    pub cookie: String,
    /// The request parameter that may hold the token; empty for none.
    pub parameter: String,
    /// Patterns of the channels that the token's owner may subscribe to, with claims in braces.
    pub channels: Vec<String>,
    /// Who the token's owner is, with claims in braces.
    pub user_id: String,
    /// The claims that become the user's `user_info`.
    pub user_info: Vec<String>,
    /// The claim with the ids of the users to watch; empty for none.
    pub watchlist: String,
}

/// A signature algorithm of JWTs. `none` is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: a secret that issuer and Fanfare share.
    Hs256,
    /// RSA (PKCS #1) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// All of them, with the names they have in settings and tokens.
    pub const ALL: [(&'static str, Self); 4] =
        [("HS256", Self::Hs256), ("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

/// `[apps.auth.forward]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardConfig {
    /// Who is asked about channels.
    pub url: String,
    /// Who is asked about sign-ins; empty: nobody may sign in.
    pub user_url: String,
    /// How long the backend may take.
    pub timeout: Duration,
    /// Questions to the backend at the same time, of which one address has half at most.
    pub concurrency: usize,
    /// How long an answer is good for the same question; 0 = it is asked each time.
    pub cache: Duration,
    /// Headers of the client's request that go along, besides its cookies and its authorization.
    pub headers: Vec<String>,
    /// Parameters of the client's request that go along. Plain names, none of which a framework could take for one of
    /// [`AUTH_PARAMETERS`](crate::protocol::AUTH_PARAMETERS).
    pub params: Vec<String>,
    /// Whether the answers of broadcasters that sign nothing count as a yes: `true`, and an object with `channel_data`
    /// alone.
    pub accept_true: bool,
}

impl JwtConfig {
    /// No key and no channels yet, and the default of everything else.
    pub fn new(algorithms: Vec<JwtAlgorithm>) -> Self {
        Self {
            algorithms,
            secret: None,
            public_key_file: None,
            jwks_url: String::new(),
            jwks_max_age: Duration::from_secs(10 * 60),
            jwks_min_interval: Duration::from_secs(10),
            audience: Vec::new(),
            issuer: String::new(),
            leeway: Duration::from_secs(30),
            cookie: String::new(),
            parameter: String::new(),
            channels: Vec::new(),
            user_id: "{sub}".to_owned(),
            user_info: Vec::new(),
            watchlist: String::new(),
        }
    }
}

impl ForwardConfig {
    /// The default of everything but the URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user_url: String::new(),
            timeout: Duration::from_secs(5),
            concurrency: 64,
            cache: Duration::ZERO,
            headers: vec!["X-CSRF-Token".to_owned(), "X-XSRF-Token".to_owned()],
            params: Vec::new(),
            accept_true: false,
        }
    }
}
