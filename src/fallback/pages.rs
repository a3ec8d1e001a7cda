//! What SockJS asks for before it has a session, and the statistics of pusher-js (§7.6, §7.7).

use std::fmt::Write;

use hyper::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH};
use hyper::{HeaderMap, Response, StatusCode};

use crate::auth::query_pairs;
use crate::config::{FallbacksConfig, matches};
use crate::response::{Body, JAVASCRIPT, JSON, TEXT, empty, whole};

use super::headers::{CACHED, LATER};

/// Who asks what this is.
pub(super) fn greeting() -> Response<Body> {
    whole(StatusCode::OK, "text/plain; charset=UTF-8", "Welcome to SockJS!\n")
}

/// What a client should know before it chooses a transport.
pub(super) fn info(config: &FallbacksConfig) -> Response<Body> {
    let mut info = serde_json::json!({
        "websocket": true,
        "origins": ["*:*"],
        "cookie_needed": config.cookie,
        "entropy": rand::random::<u32>(),
        "server_heartbeat_interval": config.heartbeat.as_millis() as u64,
    });
    if !config.hostname.is_empty() {
        info["hostname"] = config.hostname.as_str().into();
    }
    whole(StatusCode::OK, "application/json; charset=UTF-8", info.to_string())
}

/// Whether a path is that of a page for iframes: what stands behind the dash is the client's version, which does not
/// matter.
pub(super) fn is_iframe(page: &str) -> bool {
    let version = page.strip_prefix("iframe").and_then(|rest| rest.strip_suffix(".html"));
    version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)))
}

/// A page of this server that loads the client, so that it speaks from here. `script` says where from, which is not just
/// anywhere: whatever it is, it is at home on this server then.
pub(super) fn iframe(config: &FallbacksConfig, query: &str, request: &HeaderMap) -> Response<Body> {
    let asked = query_pairs(query, true).into_iter().find(|(name, _)| name == "js_path").map(|(_, value)| value);
    let script = match &asked {
        Some(url) => {
            let plain = url.chars().all(|c| c.is_ascii_graphic() && !"\"'<>&\\`".contains(c));
            Some(&**url).filter(|url| plain && config.client_scripts.iter().any(|pattern| matches(pattern, url)))
        }
        None => config.client_scripts.iter().map(String::as_str).find(|url| !url.contains('*')),
    };
    let Some(script) = script else {
        let why = "fallbacks.client_scripts does not list the client's script\n";
        return whole(StatusCode::NOT_FOUND, TEXT, why);
    };
    let mut page = String::new();
    let script = script.replace('&', "&amp;").replace('"', "&quot;");
    let _ = write!(
        page,
        "<!doctype html>\n<html><head><meta charset=\"UTF-8\"><meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\">\
         <title>Fanfare</title>\n<script src=\"{script}\"></script>\n<script>\ndocument.domain = document.domain;\n\
         SockJS.bootstrap_iframe();\n</script></head><body></body></html>\n"
    );
    let tag = format!("\"{}\"", crate::auth::md5_hex(page.as_bytes()));
    let known = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
    let mut response = match known.any(|known| known == "*" || known.trim_start_matches("W/") == tag) {
        true => empty(StatusCode::NOT_MODIFIED),
        false => whole(StatusCode::OK, "text/html; charset=UTF-8", page),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHED));
    headers.insert(EXPIRES, HeaderValue::from_static(LATER));
    headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
    response
}

/// Takes note of nothing, and says so in the way that pusher-js expects.
pub(super) fn statistics(receiver: Option<&str>) -> Response<Body> {
    match receiver {
        Some(number) => whole(StatusCode::OK, JAVASCRIPT, format!("Pusher.ScriptReceivers[{number}](null,{{}});\n")),
        None => whole(StatusCode::OK, JSON, "{}"),
    }
}
