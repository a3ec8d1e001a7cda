//! The auth endpoint of Fanfare's own (§3.3): who wants to subscribe or to sign in asks here, an authorizer decides, and a
//! yes is signed. It looks like the endpoint that every app with a Pusher library has, to every version of pusher-js.
//!
//! Whoever asks in vain is not told why: the reason is in the log.

mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod inquiry;
mod jsonp;
mod origin;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::authorizers::{Authorizer, Authorizers};
use crate::body_budget::{BodyBudget, Reservation};
use crate::config::AppConfig;
use crate::node::{Node, Tenant};
use crate::request_body::{BodyError, BodyRules, read_body};
use crate::response::{JAVASCRIPT, JSON, NOSNIFF, TEXT, respond};
use crate::shutdown::Shutdown;
use crate::socket::PeerAddress;

use fields::{Fields, Malformed};
use inquiry::{Asked, Inquiry, caller, refused};
use jsonp::Callback;
use origin::Access;
use refusal::Refusal;

/// Bytes of a request's body. A batch of the longest names fits, and a long token.
const MAX_BODY: usize = 64 * 1024;

/// What all requests have in common.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    /// Who decides.
    pub authorizers: Arc<Authorizers>,
    /// The memory for bodies.
    pub bodies: BodyBudget,
    /// Who says stop.
    pub shutdown: Shutdown,
    /// How long a client may take for the body of a request.
    pub request_timeout: Duration,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/pusher/auth`: subscriptions.
    Channels,
    /// `/pusher/user-auth`: sign-ins.
    Users,
}

/// Answers a request to one of the two paths. `peer` is where it came from.
pub async fn handle(
    context: &Context,
    peer: &PeerAddress,
    request: Request<Incoming>,
    endpoint: Endpoint,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let query = Fields::of_form(head.uri.query().unwrap_or_default());
    let access = Access::of(&head.headers, &context.lists(&query));
    let mut response = match head.method {
        Method::OPTIONS => {
            let status = if access == Access::Refused { StatusCode::FORBIDDEN } else { StatusCode::NO_CONTENT };
            let mut response = Response::new(Full::default());
            *response.status_mut() = status;
            access.allow_request(&head.headers, response.headers_mut());
            response
        }
        Method::POST => {
            let (access, answer) = match read_fields(context, &head, body, query).await {
                Ok((fields, reservation)) => {
                    let answer = answer(context, peer, &head.headers, fields, endpoint, None);
                    let crowded = |evicted| {
                        (access, Err(refused(context, None, peer, "request", BodyError::from(evicted).into())))
                    };
                    reservation.race(answer).await.unwrap_or_else(crowded)
                }
                Err(refusal) => (access, Err(refused(context, None, peer, "request", refusal))),
            };
            let mut response = plain(answer);
            access.allow(response.headers_mut());
            response
        }
        Method::GET => match callback(&query) {
            Ok(callback) => {
                let (_, answer) = answer(context, peer, &head.headers, query, endpoint, Some(&callback)).await;
                script(&callback, answer)
            }
            Err(malformed) => plain(Err(refused(context, None, peer, "request", malformed.into()))),
        },
        _ => {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method not allowed, use POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

impl Context {
    /// The `allowed_origins` of all apps that a request may be for, before it is known for which it is.
    fn lists(&self, query: &Fields) -> Vec<&[String]> {
        let named = query.one("app_key").ok().flatten().and_then(|key| self.node.tenants().by_key(key));
        let possible = |tenant: &&Arc<Tenant>| match named {
            Some(named) => named.app.id() == tenant.app.id(),
            None => self.authorizers.of(tenant.app.id()).is_some(),
        };
        let tenants = self.node.tenants().all().iter().filter(possible);
        tenants.map(|tenant| &tenant.app.config().allowed_origins[..]).collect()
    }

    /// The app that a request is for: the one with the key that it names, or else the only one with an authorizer.
    fn app(&self, key: Option<&str>) -> Result<(&AppConfig, &Authorizer), Refusal> {
        let with_authorizer = |tenant: &Arc<Tenant>| self.authorizers.of(tenant.app.id()).is_some();
        let tenants = self.node.tenants();
        let tenant = match key {
            Some(key) => tenants.by_key(key).filter(|tenant| with_authorizer(tenant)).ok_or(Refusal::NoSuchApp)?,
            None => {
                let mut possible = tenants.all().iter().filter(|tenant| with_authorizer(tenant));
                let only = possible.next().filter(|_| possible.next().is_none());
                only.ok_or(Refusal::WhichApp)?
            }
        };
        let authorizer = self.authorizers.of(tenant.app.id()).ok_or(Refusal::NoSuchApp)?;
        match tenant.app.config().enabled {
            true => Ok((tenant.app.config(), authorizer)),
            false => Err(Refusal::AppDisabled),
        }
    }
}

/// The fields of query and body together. They are about as large as the body, and take its part of the budget.
async fn read_fields(
    context: &Context,
    head: &Parts,
    body: Incoming,
    query: Fields,
) -> Result<(Fields, Reservation), Refusal> {
    let rules = BodyRules { deadline: context.request_timeout, budget: &context.bodies, shutdown: &context.shutdown };
    let body = read_body(body, MAX_BODY, rules).await?;
    let (body, reservation) = body.hold(&context.bodies).map_err(BodyError::from)?;
    let text = String::from_utf8_lossy(&body);
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let fields = match kind.trim().to_ascii_lowercase().starts_with("application/json") {
        true => Fields::of_json(&text)?,
        false => Fields::of_form(&text),
    };
    let fields = query.and(fields);
    Ok((fields, reservation))
}

fn callback(query: &Fields) -> Result<Callback, Malformed> {
    let callback = query.one("callback")?.ok_or(Malformed::NoCallback)?;
    Callback::parse(callback).ok_or(Malformed::Callback)
}

/// The body of a success, and what the page may read of it.
async fn answer(
    context: &Context,
    peer: &PeerAddress,
    headers: &HeaderMap,
    fields: Fields,
    endpoint: Endpoint,
    script: Option<&Callback>,
) -> (Access, Result<String, Refusal>) {
    let key = fields.unambiguous().and_then(|()| fields.one("app_key"));
    let found = key.map_err(Refusal::from).and_then(|key| context.app(key));
    let (app, authorizer) = match found {
        Ok(found) => found,
        Err(refusal) => {
            let access = Access::of(headers, &context.lists(&fields));
            return (access, Err(refused(context, None, peer, "request", refusal)));
        }
    };
    let (access, cookies_count) = match script {
        Some(_) => origin::of_script(headers, &app.allowed_origins),
        None => {
            let access = Access::of(headers, &[&app.allowed_origins]);
            let cookies_count = access.counts_cookies(headers);
            (access, cookies_count)
        }
    };
    let asked = match access {
        Access::Refused => Err(Refusal::Origin),
        _ => Asked::understand(&fields, app, endpoint).map_err(Refusal::from),
    };
    let answer = match asked {
        Ok(Asked { names, socket_id, pair }) => {
            let caller = caller(peer, headers, cookies_count, fields.params());
            let inquiry = Inquiry { context, app, authorizer, pair, socket_id, caller, peer };
            inquiry.answer(names).await
        }
        Err(refusal) => Err(refused(context, Some(app), peer, "request", refusal)),
    };
    (access, answer)
}

fn plain(answer: Result<String, Refusal>) -> Response<Full<Bytes>> {
    match answer {
        Ok(body) => respond(StatusCode::OK, JSON, body),
        Err(refusal) => respond(refusal.status(), TEXT, refusal.public_text()),
    }
}

fn script(callback: &Callback, answer: Result<String, Refusal>) -> Response<Full<Bytes>> {
    let script = match answer {
        Ok(body) => callback.script(&body),
        Err(refusal) => callback.refusal(refusal.status().as_u16(), &refusal.public_text()),
    };
    respond(StatusCode::OK, JAVASCRIPT, script)
}
