//! The one way to a request's content: through its signature.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::auth::{self, Pair, RequestError, SignedQuery};
use crate::config::Limits;
use crate::node::Tenant;
use crate::request_body::{BodyError, BodyRules, Content, RequestBody};

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
    /// Verifies the request by its head, and reads the body, within limits. The app is the one of the path, or else of the
    /// key.
    ///
    /// # Errors
    /// In this order: the body's size, who is asking, whether the app may.
    pub(super) async fn read(
        context: &Context,
        call: Call<'a>,
        body: RequestBody<'a>,
        app_id: Option<&str>,
    ) -> Result<Self, ApiError> {
        // Whoever has recorded an authentic head can send it again, with any body.
        let budget = &context.bodies;
        let rules = BodyRules { deadline: context.request_timeout, budget, shutdown: &context.shutdown };
        let Verified { tenant, query, limit, date } = match verify(context, call, &body, app_id) {
            Ok(verified) => verified,
            Err(error) => {
                body.discard(rules);
                return Err(error);
            }
        };
        let body = body.read(limit, rules).await;
        let mut body = body.map_err(|error| match error {
            BodyError::TooLarge => ApiError::BodyTooLarge(limit),
            BodyError::Incomplete => ApiError::BodyIncomplete,
            BodyError::Crowded => ApiError::BodyCrowded,
            BodyError::Timeout => ApiError::BodyTimeout,
        })?;
        auth::verify_body(&query, &body)?;
        // Whatever the request waits for from here on, others do not pay for it.
        body.verified();
        let now = Instant::now();
        if let Some(network) = call.from {
            context.sockets.trust(network, now);
        }
        if !tenant.app.config().enabled {
            return Err(ApiError::AppDisabled);
        }
        tenant.app.take_api_request(now).map_err(ApiError::RateLimit)?;
        Ok(Self { tenant: Arc::clone(tenant), query, body, date, now })
    }
}

/// What the head of a request proves.
struct Verified<'c, 'a> {
    tenant: &'c Arc<Tenant>,
    query: Vec<Pair<'a>>,
    /// Bytes that the body may have.
    limit: usize,
    date: SystemTime,
}

/// Whether a request can be authentic, before its body is there.
///
/// # Errors
/// Why it cannot.
pub(super) fn precheck(context: &Context, call: Call<'_>, length: usize, app_id: Option<&str>) -> Result<(), ApiError> {
    let coming = RequestBody::Length(length);
    verify(context, call, &coming, app_id).map(drop)
}

fn verify<'c, 'a>(
    context: &'c Context,
    call: Call<'a>,
    body: &RequestBody<'_>,
    app_id: Option<&str>,
) -> Result<Verified<'c, 'a>, ApiError> {
    let tenants = context.node.tenants();
    let named = app_id.and_then(|id| tenants.by_id(id));
    let limit = named.map_or(Limits::default().http_body, |tenant| tenant.app.config().limits.http_body);
    if body.exceeds(limit) {
        return Err(ApiError::BodyTooLarge(limit));
    }
    let query = SignedQuery::parse(call.query);
    let key = query.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
    let tenant = tenants.by_key(key).filter(|tenant| app_id.is_none_or(|id| id == tenant.app.id()));
    let tenant = tenant.ok_or(RequestError::UnknownKey)?;
    // A signature over a digest that was not sent would only be called wrong.
    if body.exceeds(0) && query.get("body_md5").is_none() {
        return Err(RequestError::Missing("body_md5").into());
    }
    let date = SystemTime::now();
    let query = query.verify(&tenant.app, call.method.as_str(), call.path, date)?;
    Ok(Verified { tenant, query, limit, date })
}
