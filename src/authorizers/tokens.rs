//! Verifies JSON Web Tokens: which key, which algorithm, which times, from whom and for whom.

use hyper::Uri;
use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::config::{JwtAlgorithm, JwtConfig};
use crate::http_client::HttpClient;
use crate::shutdown::Shutdown;

use super::claims::Claims;
use super::jwks::{KeySet, Unreachable};
use super::public_key::PublicKey;
use super::{SetupError, jwt_crypto};

/// Bytes of a token.
const MAX_TOKEN: usize = 16 * 1024;

/// What tokens are held to.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Keys,
    /// One each: what a token says about its algorithm only chooses among them.
    rules: Vec<Validation>,
}

#[derive(Debug)]
enum Keys {
    Fixed(PublicKey),
    Published(KeySet),
}

/// Why a token is no good, or there is none.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The request has none, in none of the places where it may be.
    #[error("the request has no token")]
    Missing,
    /// The parameter is there more than once.
    #[error("the request has more than one token")]
    Ambiguous,
    /// It is longer than any that makes sense.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// It has an algorithm that is not allowed here; `none` ends up in `Invalid`.
    #[error("the token is signed with {0:?}, which is not in auth.jwt.algorithms")]
    Algorithm(Algorithm),
    /// It demands extensions (`crit`) that nobody here knows.
    #[error("the token has critical extensions")]
    Critical,
    /// There is no key of that name, or, if it names none, for that algorithm.
    #[error("there is no key for the token ({0:?})")]
    NoKey(Option<String>),
    /// There may be one that the issuer could not tell us about.
    #[error("there is no key for the token, and auth.jwt.jwks_url cannot be reached")]
    Unreachable,
    /// The form, the signature, a time, the issuer or the audience is wrong.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] Error),
}

impl Tokens {
    pub(super) fn new(app: usize, config: &JwtConfig, shutdown: &Shutdown) -> Result<Self, SetupError> {
        jwt_crypto::install();
        let mut algorithms: Vec<_> = config.algorithms.iter().copied().map(algorithm).collect();
        let keys = if let Some(secret) = &config.secret {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            Keys::Fixed(PublicKey { algorithm: Algorithm::HS256, id: None, key })
        } else if let Some(path) = &config.public_key_file {
            let refuse = |reason| SetupError::PublicKey { app, path: path.clone(), reason };
            let key = PublicKey::read(path).map_err(refuse)?;
            if !algorithms.contains(&key.algorithm) {
                return Err(refuse(format!("a key for {:?}, which is not in auth.jwt.algorithms", key.algorithm)));
            }
            algorithms.retain(|algorithm| *algorithm == key.algorithm);
            Keys::Fixed(key)
        } else {
            let url: Uri = config.jwks_url.parse().expect("the configuration holds URLs only");
            let client = HttpClient::new(url.scheme_str() == Some("https"))
                .map_err(|source| SetupError::RootCertificates { app, key: "jwt.jwks_url", source })?;
            let (max_age, min_interval) = (config.jwks_max_age, config.jwks_min_interval);
            Keys::Published(KeySet::new(url, max_age, min_interval, client, shutdown.clone()))
        };
        let rules = algorithms.into_iter().map(|algorithm| rules(config, algorithm)).collect();
        Ok(Self { keys, rules })
    }

    /// The claims of a token that is good now.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub(super) async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let header = decode_header(token)?;
        let rules = self.rules.iter().find(|rules| rules.algorithms.contains(&header.alg));
        let rules = rules.ok_or(TokenError::Algorithm(header.alg))?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let keys = match &self.keys {
            Keys::Fixed(key) => vec![key.clone()],
            Keys::Published(set) => {
                let found = set.find(header.alg, header.kid.as_deref()).await;
                found.map_err(|Unreachable| TokenError::Unreachable)?
            }
        };
        // There is more than one only if the token does not name its key.
        let mut refused = TokenError::NoKey(header.kid);
        for PublicKey { key, .. } in &keys {
            match decode::<Map<String, Value>>(token, key, rules) {
                Ok(token) => return Ok(Claims(token.claims)),
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }
}

fn rules(config: &JwtConfig, algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    let mut required = vec!["exp"];
    rules.leeway = config.leeway.as_secs();
    rules.validate_nbf = true;
    rules.validate_aud = !config.audience.is_empty();
    if rules.validate_aud {
        rules.set_audience(&config.audience);
        required.push("aud");
    }
    if !config.issuer.is_empty() {
        rules.set_issuer(&[&config.issuer]);
        required.push("iss");
    }
    rules.set_required_spec_claims(&required);
    rules
}

fn algorithm(configured: JwtAlgorithm) -> Algorithm {
    match configured {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
