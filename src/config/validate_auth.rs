//! Rules between the settings of an app that concern its authorizer.

use crate::protocol::reads_as;

use super::{AppConfig, JwtAlgorithm, JwtConfig, MasterKey};

/// Bytes of a secret for HS256 below which it is weaker than the algorithm (RFC 7518 §3.2).
const STRONG_SECRET: usize = 32;

impl AppConfig {
    /// Mistakes: the key below the app's table, and the reason.
    pub(super) fn auth_conflicts(&self) -> Vec<(&'static str, String)> {
        let mut conflicts = Vec::new();
        // An empty one was refused before.
        let master_key = self.encryption_master_key.as_ref().filter(|key| !key.expose().is_empty());
        if master_key.is_some_and(|key| MasterKey::parse(key).is_none()) {
            let text = "not 32 bytes in base64; expected the output of `openssl rand -base64 32`";
            conflicts.push(("encryption_master_key", text.to_owned()));
        }
        let auth = &self.auth;
        let given = [(auth.dev, "dev"), (auth.jwt.is_some(), "jwt"), (auth.forward.is_some(), "forward")];
        let given: Vec<_> = given.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
        if given.len() > 1 {
            let text = format!("{} are given; expected one of them", given.join(" and "));
            conflicts.push(("auth", text));
        }
        conflicts.extend(auth.jwt.iter().flat_map(JwtConfig::conflicts));
        conflicts
    }

    /// What is allowed but probably not meant.
    pub(super) fn auth_warnings(&self) -> Vec<(&'static str, String)> {
        let mut warnings = Vec::new();
        if let Some(jwt) = &self.auth.jwt {
            // An empty one was refused before.
            if jwt.secret.as_ref().is_some_and(|secret| (1..STRONG_SECRET).contains(&secret.expose().len())) {
                let text = "shorter than 32 bytes, so that it can be guessed from any token; take the output of `openssl \
                            rand -hex 32`";
                warnings.push(("auth.jwt.secret", text.to_owned()));
            }
            if jwt.jwks_url.starts_with("http://") && !is_local(&jwt.jwks_url) {
                let text = "not https://: whoever is on the way can put keys of their own in place";
                warnings.push(("auth.jwt.jwks_url", text.to_owned()));
            }
        }
        warnings
    }
}

impl JwtConfig {
    fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut conflicts = Vec::new();
        let keys = [
            (self.secret.is_some(), "secret"),
            (self.public_key_file.is_some(), "public_key_file"),
            (!self.jwks_url.is_empty(), "jwks_url"),
        ];
        let keys: Vec<_> = keys.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
        match keys[..] {
            [] => {
                let text = "no key; expected `secret`, `public_key_file` or `jwks_url`";
                conflicts.push(("auth.jwt", text.to_owned()));
            }
            // With a public key as its secret, HS256 would accept tokens from everybody.
            [key] if self.algorithms.iter().any(|a| (*a == JwtAlgorithm::Hs256) != (key == "secret")) => {
                let expected = if key == "secret" { "HS256 alone" } else { "RS256, ES256 or EdDSA" };
                let text = format!("{} do not go with `{key}`; expected {expected}", self.names());
                conflicts.push(("auth.jwt.algorithms", text));
            }
            [_] => {}
            _ => {
                let text = format!("{} are given; expected one of them", keys.join(" and "));
                conflicts.push(("auth.jwt", text));
            }
        }
        if let Some(own) = reads_as(&self.parameter) {
            let text = format!("{:?} could be read as {own}, which is refused; expected another name", self.parameter);
            conflicts.push(("auth.jwt.parameter", text));
        }
        let mut members: Vec<_> = self.user_info.iter().map(|claim| member_name(claim)).collect();
        members.sort_unstable();
        if let Some(twice) = members.windows(2).find(|pair| pair[0] == pair[1]) {
            conflicts.push(("auth.jwt.user_info", format!("two claims would be called {:?}", twice[0])));
        }
        conflicts
    }

    fn names(&self) -> String {
        self.algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
    }
}

/// What a claim is called in `user_info`: the last name of its path, unless it is a URL.
pub fn member_name(claim: &str) -> &str {
    if claim.contains('/') { claim } else { claim.rsplit('.').next().unwrap_or(claim) }
}

/// Whether a URL leads to this machine.
fn is_local(url: &str) -> bool {
    let uri = url.parse::<hyper::Uri>().ok();
    let host = uri.as_ref().and_then(hyper::Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
