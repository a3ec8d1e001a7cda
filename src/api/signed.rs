//! The one way to a request's content: through its signature.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::auth::{RequestError, SignedQuery};
use crate::config::Limits;
use crate::node::Tenant;
use crate::request_body::{BodyError, read_body};

use super::Context;
use super::error::ApiError;

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
        let body = read_body(body, limit, context.request_timeout, &context.shutdown).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge => ApiError::BodyTooLarge(limit),
            BodyError::Incomplete => ApiError::BodyIncomplete,
            BodyError::Timeout => ApiError::BodyTimeout,
        })?;

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
