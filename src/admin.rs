//! Health and metrics, for the operator alone: on a listener of their own, never on the public one.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode};

use crate::node::Node;
use crate::response::{OPEN_METRICS, TEXT, respond};
use crate::shutdown::Shutdown;

/// Answers a request to the admin listener.
pub fn handle<B>(node: &Arc<Node>, shutdown: &Shutdown, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method not allowed, use GET\n");
    }
    match request.uri().path() {
        "/" => respond(StatusCode::OK, TEXT, "Fanfare: /live, /ready, /metrics\n"),
        "/live" => respond(StatusCode::OK, TEXT, "live\n"),
        "/ready" if shutdown.is_requested() => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n"),
        "/ready" => respond(StatusCode::OK, TEXT, "ready\n"),
        "/metrics" => respond(StatusCode::OK, OPEN_METRICS, node.metrics().render()),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "Not found\n"),
    }
}
