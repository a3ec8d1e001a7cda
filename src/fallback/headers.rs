//! What all answers say besides: who may read them, and that nobody keeps them (§7.3).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, COOKIE,
    EXPIRES, HeaderValue, ORIGIN, SET_COOKIE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::response::{Body, NOSNIFF, empty};

/// Nobody between us and the client keeps or changes an answer.
const NOT_CACHED: &str = "no-store, no-cache, no-transform, must-revalidate, max-age=0";

/// For what stays as it is: a year.
pub(super) const CACHED: &str = "public, max-age=31536000";

/// That, as a date: far away.
pub(super) const LATER: &str = "Fri, 31 Dec 2049 23:59:59 GMT";

/// The cookie by which SockJS tells clients apart at a balancer.
const SESSION_COOKIE: &str = "JSESSIONID";

/// Adds what all answers have, and this one has not yet.
pub(super) fn complete(request: &HeaderMap, response: &mut HeaderMap, is_pusher: bool) {
    response.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if !response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        allow_reading(request, response, is_pusher);
    }
    if !response.contains_key(CACHE_CONTROL) {
        response.insert(CACHE_CONTROL, HeaderValue::from_static(NOT_CACHED));
        // nginx passes on what follows at once.
        response.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
}

/// Lets any page read the answer; whether it may have one is another question. The requests of SockJS come with
/// credentials, for which a browser wants the origin to be named.
fn allow_reading(request: &HeaderMap, response: &mut HeaderMap, is_pusher: bool) {
    let origin = request.get(ORIGIN).filter(|origin| !is_pusher && *origin != "null");
    let named = origin.cloned().unwrap_or_else(|| HeaderValue::from_static("*"));
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, named);
    if !is_pusher {
        response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        response.insert(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Sets the cookie that a balancer looks at, or confirms the one that is there.
pub(super) fn set_cookie(request: &HeaderMap, response: &mut HeaderMap) {
    let cookies = request.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(name, _)| *name == SESSION_COOKIE).map_or("dummy", |(_, value)| value);
    if let Ok(cookie) = HeaderValue::from_str(&format!("{SESSION_COOKIE}={value}; Path=/")) {
        response.insert(SET_COOKIE, cookie);
    }
}

/// Answers a browser that asks whether it may ask.
pub(super) fn preflight(request: &HeaderMap, is_pusher: bool) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    allow_reading(request, headers, is_pusher);
    let (methods, age) = if is_pusher { ("GET, POST, OPTIONS", "86400") } else { ("OPTIONS, GET, POST", "31536000") };
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(age));
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or_else(|| HeaderValue::from_static("content-type")));
    if !is_pusher {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHED));
        headers.insert(EXPIRES, HeaderValue::from_static(LATER));
    }
    response
}
