//! Health and metrics, for the operator alone: on a listener of their own, never on the public one.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::node::Node;
use crate::shutdown::Shutdown;

/// The media type of OpenMetrics, which Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

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

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
