//! What waits, what failed and why; and another try.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::auth::query_pairs;
use crate::node::Node;
use crate::response::{JSON, TEXT, respond};
use crate::webhooks::{DeliveryReport, EndpointReport, ReplayError, StoreError};

/// Deliveries of each kind that are listed unless another number is asked for.
const LISTED: usize = 100;

/// What `GET /webhooks` answers.
#[derive(Serialize)]
struct Listing {
    endpoints: Vec<EndpointReport>,
    deliveries: Vec<DeliveryReport>,
}

/// The body of `POST /webhooks/replay`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayAll {
    app: Option<String>,
}

/// The body of `POST /webhooks/test`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    app: Option<String>,
    url: Option<String>,
    event: Box<RawValue>,
}

/// `GET /webhooks?app=…&limit=…`.
pub(super) async fn list(node: Arc<Node>, query: &str) -> Response<Full<Bytes>> {
    let query = query_pairs(query, true);
    let parameter = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_string());
    let app = parameter("app");
    let limit = match parameter("limit").map(|text| text.parse()) {
        None => LISTED,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return respond(StatusCode::BAD_REQUEST, TEXT, "limit must be a number\n"),
    };
    let listing = on_disk(move || {
        let webhooks = node.webhooks();
        let mut endpoints = webhooks.endpoints();
        endpoints.retain(|endpoint| app.as_ref().is_none_or(|app| *app == endpoint.app));
        Ok(Listing { endpoints, deliveries: webhooks.deliveries(app.as_deref(), limit)? })
    });
    answer(listing.await)
}

/// `GET /webhooks/{id}`.
pub(super) async fn show(node: Arc<Node>, id: String) -> Response<Full<Bytes>> {
    let unknown = format!("no webhook with the id {id} is being delivered or was given up\n");
    match on_disk(move || node.webhooks().delivery(&id)).await {
        Ok(None) => respond(StatusCode::NOT_FOUND, TEXT, unknown),
        found => answer(found),
    }
}

/// `POST /webhooks/{id}/replay`.
pub(super) async fn replay(node: &Node, id: &str) -> Response<Full<Bytes>> {
    answer(node.webhooks().replay(id).await.map(|()| json!({ "replayed": 1 })))
}

/// `POST /webhooks/replay`.
pub(super) async fn replay_all(node: Arc<Node>, body: &[u8]) -> Response<Full<Bytes>> {
    let Ok(ReplayAll { app }) = serde_json::from_slice(body) else {
        return respond(StatusCode::BAD_REQUEST, TEXT, "expected a JSON object, perhaps with the app's id as `app`\n");
    };
    let reading = Arc::clone(&node);
    let ids = match on_disk(move || reading.webhooks().dead_letters(app.as_deref())).await {
        Ok(ids) => ids,
        failed => return answer(failed.map(drop)),
    };
    let mut replayed = 0;
    for id in ids {
        // One whose endpoint is gone stays where it is.
        replayed += u32::from(node.webhooks().replay(&id).await.is_ok());
    }
    answer(Ok(json!({ "replayed": replayed })))
}

/// `POST /webhooks/test`.
pub(super) async fn test(node: &Node, body: &[u8]) -> Response<Full<Bytes>> {
    let Ok(Test { app, url, event }) = serde_json::from_slice(body) else {
        let text = "expected a JSON object with `event`, and perhaps `app` and `url`\n";
        return respond(StatusCode::BAD_REQUEST, TEXT, text);
    };
    let answers = node.webhooks().test(app.as_deref(), url.as_deref(), &event).await;
    answer(answers.map(|answers| {
        let answer = |(url, attempt)| json!({ "url": url, "attempt": attempt });
        json!({ "answers": answers.into_iter().map(answer).collect::<Vec<_>>() })
    }))
}

/// Reads from the store, away from the threads that serve clients.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ReplayError> {
    let result = tokio::task::spawn_blocking(work).await;
    Ok(result.expect("the work neither panics nor is cancelled")?)
}

fn answer(result: Result<impl Serialize, ReplayError>) -> Response<Full<Bytes>> {
    match result {
        Ok(value) => {
            let text = serde_json::to_string(&value).expect("reports have text as keys");
            respond(StatusCode::OK, JSON, text + "\n")
        }
        Err(error) => {
            let status = match error {
                ReplayError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
                ReplayError::NoEndpoint(_) => StatusCode::CONFLICT,
                ReplayError::Unknown(_) | ReplayError::NothingToTest => StatusCode::NOT_FOUND,
            };
            respond(status, TEXT, format!("{error}\n"))
        }
    }
}
