//! Decides by a token: it says who its owner is, and the configuration says what follows from that.

use serde_json::{Map, Value};

use crate::config::{ClaimPattern, JwtConfig, member_name};
use crate::shutdown::Shutdown;

use super::claims::Claims;
use super::identity::Identity;
use super::tokens::{TokenError, Tokens};
use super::{Caller, Question, Refused, SetupError, Wish, grants};

/// The authorizer of an app whose login issues tokens.
#[derive(Debug)]
pub struct Jwt {
    tokens: Tokens,
    cookie: String,
    parameter: String,
    channels: Vec<ClaimPattern>,
    user_id: ClaimPattern,
    user_info: Vec<String>,
    watchlist: String,
}

impl Jwt {
    pub(super) fn new(app: usize, config: &JwtConfig, shutdown: &Shutdown) -> Result<Self, SetupError> {
        let pattern = |text: &String| ClaimPattern::parse(text).expect("the configuration holds patterns only");
        Ok(Self {
            tokens: Tokens::new(app, config, shutdown)?,
            cookie: config.cookie.clone(),
            parameter: config.parameter.clone(),
            channels: config.channels.iter().map(pattern).collect(),
            user_id: pattern(&config.user_id),
            user_info: config.user_info.clone(),
            watchlist: config.watchlist.clone(),
        })
    }

    /// The user that the token names, if the channel is theirs. Nothing but the token counts: not what else the request
    /// says about a user.
    pub(super) async fn decide(&self, question: &Question<'_>) -> Result<Option<String>, Refused> {
        let claims = self.tokens.verify(self.token(question.caller)?).await?;
        let named = match question.wish {
            Wish::Subscribe(channel) => {
                if !self.channels.iter().any(|pattern| grants::fits(pattern, &claims, channel)) {
                    return Err(Refused::Channel);
                }
                channel.is_presence()
            }
            Wish::SignIn => true,
        };
        match named {
            true => Ok(Some(self.identity(&claims)?.data(question.wish))),
            false => Ok(None),
        }
    }

    /// The header's token, else the parameter's, else the cookie's: a bad one is not made good by another.
    fn token<'a>(&'a self, caller: &'a Caller) -> Result<&'a str, TokenError> {
        let bearer = |header: &'a str| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        };
        if let Some(token) = caller.authorization.as_deref().and_then(bearer) {
            return Ok(token);
        }
        let mut given = caller.param(&self.parameter).filter(|_| !self.parameter.is_empty());
        match (given.next(), given.next()) {
            (Some(token), None) => return Ok(token),
            (Some(_), Some(_)) => return Err(TokenError::Ambiguous),
            (None, _) => {}
        }
        let cookie = Some(&self.cookie).filter(|name| !name.is_empty());
        cookie.and_then(|name| caller.cookie(name)).ok_or(TokenError::Missing)
    }

    fn identity(&self, claims: &Claims) -> Result<Identity, Refused> {
        let member = |claim: &String| Some((member_name(claim).to_owned(), claims.value(claim)?.clone()));
        let info: Map<String, Value> = self.user_info.iter().filter_map(member).collect();
        Ok(Identity {
            id: grants::render(&self.user_id, claims).ok_or(Refused::NoUserId)?,
            info: Some(Value::Object(info)).filter(|_| !self.user_info.is_empty()),
            watchlist: claims.value(&self.watchlist).map(|_| claims.texts(&format!("{}[*]", self.watchlist)).into()),
        })
    }
}
