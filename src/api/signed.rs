//! The one way to a request's content: through its signature.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use tokio::select;
use tokio::time::timeout;

use crate::auth::{RequestError, SignedQuery};
use crate::config::Limits;
use crate::node::Tenant;

use super::Context;
use super::error::ApiError;

/// Bytes of a body that is too large which are read and thrown away.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// A request that the app's backend has signed. Only verification makes one.
#[derive(Debug)]
pub(super) struct Signed {
    /// The app.
    pub(super) tenant: Arc<Tenant>,
    /// The query parameters, decoded, in order, with lower-case names.
    pub(super) query: Vec<(String, String)>,
    /// The body.
    pub(super) body: Bytes,
}

impl Signed {
    /// Reads the body, within limits, and verifies the request. The app is the one of the path, or else of the key.
    ///
    /// # Errors
    /// In this order: the body's size, who is asking, whether the app may.
    pub(super) async fn read(
        context: &Context,
        head: &Parts,
        body: Incoming,
        path: &str,
        app_id: Option<&str>,
    ) -> Result<Self, ApiError> {
        let node = &context.node;
        let named = app_id.and_then(|id| node.tenants().by_id(id));
        let limit = named.map_or(Limits::default().http_body, |tenant| tenant.app.config().limits.http_body);
        let body = read_body(context, body, limit).await?;

        let query = SignedQuery::parse(head.uri.query().unwrap_or_default());
        let key = query.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
        let tenant = node.tenants().by_key(key).filter(|tenant| app_id.is_none_or(|id| id == tenant.app.id()));
        let tenant = tenant.ok_or(RequestError::UnknownKey)?;
        let query = query.verify(&tenant.app, head.method.as_str(), path, &body, SystemTime::now())?;

        if !tenant.app.config().enabled {
            return Err(ApiError::AppDisabled);
        }
        tenant.app.take_api_request(Instant::now()).map_err(ApiError::RateLimit)?;
        Ok(Self { tenant: Arc::clone(tenant), query, body })
    }
}

/// Bounded while it is read: no more than `limit` bytes are ever held.
async fn read_body(context: &Context, mut body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        discard(context, body);
        return Err(ApiError::BodyTooLarge(limit));
    }
    match timeout(context.request_timeout, Limited::new(&mut body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(context, body);
            Err(ApiError::BodyTooLarge(limit))
        }
        Ok(Err(_)) => Err(ApiError::BodyIncomplete),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}

/// Lets a client go on sending what it is being told is too much, within reason: most libraries read no answer before
/// they have sent everything, and would only see a broken connection.
fn discard(context: &Context, body: Incoming) {
    let (stop, deadline) = (context.shutdown.clone(), context.request_timeout);
    context.shutdown.spawn(async move {
        let mut body = Limited::new(body, MAX_DISCARDED);
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        select! {
            _ = timeout(deadline, rest) => {}
            () = stop.requested() => {}
        }
    });
}
