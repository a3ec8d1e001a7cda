//! Health, metrics and webhooks, for the operator alone: on a listener of their own, never on the public one.
//!
//! It has no authentication, so who may reach it is the network's business. A browser on the operator's machine reaches
//! it as well, with whatever page is open in it: such a page can cause requests, but not those that change something, and
//! it can read no answer, also if its own name leads here.

mod host;
mod webhooks;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};

use serde_json::json;

use crate::cluster::RedisCluster;
use crate::node::Node;
use crate::response::{JSON, OPEN_METRICS, TEXT, respond};
use crate::shutdown::Shutdown;

/// Bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// What all requests have in common.
#[derive(Debug, Clone)]
pub struct Context {
    /// What the pages tell about.
    pub node: Arc<Node>,
    /// Whether it is about to stop.
    pub shutdown: Shutdown,
    /// Further names by which the listener may be addressed.
    pub hosts: Arc<[String]>,
}

/// Answers a request to the admin listener.
pub async fn handle(context: &Context, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = match host::check(request.uri(), request.headers(), &context.hosts) {
        Ok(()) => answer(Arc::clone(&context.node), &context.shutdown, request).await,
        Err((status, text)) => respond(status, TEXT, text),
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn answer(node: Arc<Node>, shutdown: &Shutdown, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, [""]) => respond(StatusCode::OK, TEXT, "Fanfare: /live, /ready, /metrics, /nodes, /webhooks\n"),
        (&Method::GET, ["live"]) => respond(StatusCode::OK, TEXT, "live\n"),
        (&Method::GET, ["ready"]) if shutdown.is_requested() => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n")
        }
        (&Method::GET, ["ready"]) => match node.cluster().redis().and_then(RedisCluster::obstacle) {
            None => respond(StatusCode::OK, TEXT, "ready\n"),
            Some(reason) => {
                respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("cut off from the cluster: {reason}\n"))
            }
        },
        (&Method::GET, ["nodes"]) => nodes(&node).await,
        (&Method::GET, ["metrics"]) => respond(StatusCode::OK, OPEN_METRICS, node.metrics().render()),
        (&Method::GET, ["webhooks"]) => webhooks::list(node, request.uri().query().unwrap_or_default()).await,
        (&Method::POST, ["webhooks", "replay"]) => act(node, request, Action::ReplayAll).await,
        (&Method::POST, ["webhooks", "test"]) => act(node, request, Action::Test).await,
        (&Method::GET, ["webhooks", id]) => webhooks::show(node, (*id).to_owned()).await,
        (&Method::POST, ["webhooks", id, "replay"]) => act(node, request, Action::Replay((*id).to_owned())).await,
        (_, ["webhooks", "replay" | "test"] | ["webhooks", _, "replay"]) => wrong_method("POST"),
        (_, [""] | ["live" | "ready" | "metrics" | "nodes" | "webhooks"] | ["webhooks", _]) => wrong_method("GET"),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "Not found\n"),
    }
}

/// `GET /nodes`: who is in the cluster, as far as this node can know.
async fn nodes(node: &Node) -> Response<Full<Bytes>> {
    let redis = node.cluster().redis();
    let (state, reason, nodes) = match node.nodes().await {
        Ok(nodes) => ("connected", None, nodes),
        Err(error) => {
            ("isolated", Some(error.to_string()), vec![node.report(redis.map_or("this node", RedisCluster::node_name))])
        }
    };
    let mut report = json!({
        "driver": if redis.is_some() { "redis" } else { "single" },
        "state": state,
        "nodes": nodes,
    });
    if let Some(redis) = redis {
        report["cluster"] = redis.cluster_id().into();
    }
    if let Some(reason) = reason {
        report["reason"] = reason.into();
    }
    respond(StatusCode::OK, JSON, format!("{report}\n"))
}

/// Something that changes something.
enum Action {
    Replay(String),
    ReplayAll,
    Test,
}

async fn act(node: Arc<Node>, request: Request<Incoming>, action: Action) -> Response<Full<Bytes>> {
    // A page of a stranger can send a POST here without asking, but only with an origin and not as JSON.
    if request.headers().contains_key(ORIGIN) {
        return respond(StatusCode::FORBIDDEN, TEXT, "Not for browsers\n");
    }
    if request.headers().get(CONTENT_TYPE).is_none_or(|value| value != JSON) {
        return respond(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, "Content-Type must be application/json\n");
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return respond(
            StatusCode::BAD_REQUEST,
            TEXT,
            format!("The body is not complete, or above {MAX_BODY} bytes\n"),
        );
    };
    let body = body.to_bytes();
    match action {
        Action::Replay(id) => webhooks::replay(&node, &id).await,
        Action::ReplayAll => webhooks::replay_all(node, &body).await,
        Action::Test => webhooks::test(&node, &body).await,
    }
}

fn wrong_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("Method not allowed, use {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
