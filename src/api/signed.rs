//! The one way to a request's content: through its signature.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::auth::{Pair, RequestError, SignedQuery};
use crate::config::Limits;
use crate::node::Tenant;
use crate::request_body::{BodyError, Content, RequestBody};

use super::error::ApiError;
use super::{Call, Context};

/// A request that the app's backend has signed. Only verification makes one.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    /// The app.
    pub(super) tenant: Arc<Tenant>,
    /// The query parameters, decoded, in order, with lower-case names.
    pub(super) query: Vec<Pair<'a>>,
    /// The body.
    pub(super) body: Content<'a>,
    /// When it was verified, by the calendar. The clocks are read once for a request.
    pub(super) date: SystemTime,
    /// The same moment, for measuring time.
    pub(super) now: Instant,
}

impl<'a> Signed<'a> {
    /// Reads the body, within limits, and verifies the request. The app is the one of the path, or else of the key.
    ///
    /// # Errors
    /// In this order: the body's size, who is asking, whether the app may.
    pub(super) async fn read(
        context: &Context,
        call: Call<'a>,
        body: RequestBody<'a>,
        app_id: Option<&str>,
    ) -> Result<Self, ApiError> {
        let node = &context.node;
        let named = app_id.and_then(|id| node.tenants().by_id(id));
        let limit = named.map_or(Limits::default().http_body, |tenant| tenant.app.config().limits.http_body);
        let body = body.read(limit, context.request_timeout, &context.shutdown).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge => ApiError::BodyTooLarge(limit),
            BodyError::Incomplete => ApiError::BodyIncomplete,
            BodyError::Timeout => ApiError::BodyTimeout,
        })?;

        let query = SignedQuery::parse(call.query);
        let key = query.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
        let tenant = node.tenants().by_key(key).filter(|tenant| app_id.is_none_or(|id| id == tenant.app.id()));
        let tenant = tenant.ok_or(RequestError::UnknownKey)?;
        let (date, now) = (SystemTime::now(), Instant::now());
        let query = query.verify(&tenant.app, call.method.as_str(), call.path, &body, date)?;

        if !tenant.app.config().enabled {
            return Err(ApiError::AppDisabled);
        }
        tenant.app.take_api_request(now).map_err(ApiError::RateLimit)?;
        Ok(Self { tenant: Arc::clone(tenant), query, body, date, now })
    }
}
