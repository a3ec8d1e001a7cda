//! The HTTP API that Pusher's server libraries call (§4): one function per endpoint, and nothing is looked at before the
//! signature is verified.

mod channels;
mod error;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listing;
mod params;
mod signed;
mod users;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tracing::debug;

use crate::addresses::{Addresses, Network};
use crate::body_budget::BodyBudget;
use crate::node::Node;
use crate::request_body::RequestBody;
use crate::response::{Answer, Body, JSON, TEXT, any_body};
use crate::shutdown::Shutdown;
use crate::untrusted::Untrusted;

use error::ApiError;
use signed::Signed;

/// Seconds after which it is worth trying again when the cluster is out of reach, or others have to end first.
const RETRY_UNAVAILABLE: u8 = 1;

/// Segments of the longest path there is.
const MAX_SEGMENTS: usize = 5;

/// What all requests have in common.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node.
    pub node: Arc<Node>,
    /// Sockets by address.
    pub sockets: Arc<Addresses>,
    /// The memory for bodies.
    pub bodies: BodyBudget,
    /// Who says stop.
    pub shutdown: Shutdown,
    /// How long a client may take for the body of a request.
    pub request_timeout: Duration,
}

/// What the head of a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What to do.
    pub method: &'a Method,
    /// The path that the client signed: without the configured prefix, and not decoded. Begins with `/apps` or `/users`.
    pub path: &'a str,
    /// The query string; empty if there is none.
    pub query: &'a str,
    /// The address of its socket, where sockets are counted by address.
    pub from: Option<Network>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum ApiResponse {
    /// Nearly all are short, and there as a whole.
    Whole(Answer),
    /// The list of very many channels is made while it is sent.
    Streamed(Box<Response<Body>>),
}

/// What an endpoint answers: a JSON object, and its status.
struct Reply {
    status: StatusCode,
    body: Content,
}

/// The text of an answer.
enum Content {
    Whole(Cow<'static, str>),
    Streamed(Body),
}

/// An endpoint, and what its path says.
#[derive(Debug)]
enum Endpoint {
    Events,
    BatchEvents,
    Channels,
    Channel(String),
    ChannelUsers(String),
    ChannelEvents(String),
    ChannelStats(String),
    Terminate(String),
}

/// Answers a request.
pub async fn handle(context: &Context, call: Call<'_>, body: RequestBody<'_>) -> ApiResponse {
    let node = &context.node;
    let (app_id, result) = match route(call.method, call.path) {
        Ok((app_id, endpoint)) => (app_id, serve(context, call, body, app_id, endpoint).await),
        Err(error) => (None, Err(error)),
    };
    match result {
        Ok(Reply { status, body }) => {
            count(node, app_id, status);
            match body {
                Content::Whole(Cow::Borrowed(body)) => ApiResponse::Whole(Answer::new(status, JSON, body)),
                Content::Whole(Cow::Owned(body)) => ApiResponse::Whole(Answer::new(status, JSON, body)),
                Content::Streamed(body) => {
                    let mut response = Response::new(body);
                    *response.status_mut() = status;
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
                    ApiResponse::Streamed(Box::new(response))
                }
            }
        }
        Err(error) => ApiResponse::Whole(refused(node, call, app_id, &error)),
    }
}

/// The answer to a request that cannot be authentic, before anybody reads its body of this `length`.
pub fn refuse_by_head(context: &Context, call: Call<'_>, length: usize) -> Option<Answer> {
    let node = &context.node;
    let (app_id, error) = match route(call.method, call.path) {
        Ok((app_id, _)) => (app_id, signed::precheck(context, call, length, app_id).err()?),
        Err(error) => (None, error),
    };
    Some(refused(node, call, app_id, &error))
}

/// Refuses a request, and counts that.
fn refused(node: &Node, call: Call<'_>, app_id: Option<&str>, error: &ApiError) -> Answer {
    debug!(path = %Untrusted(call.path), error = %Untrusted(&error.to_string()), "API request refused");
    let answer = refuse(error);
    count(node, app_id, answer.status);
    answer
}

/// Counts an answer. Only known apps get a label: anybody can ask for any other.
fn count(node: &Node, app_id: Option<&str>, status: StatusCode) {
    let status = status.as_u16();
    match app_id.and_then(|id| node.tenants().by_id(id)) {
        Some(tenant) => tenant.metrics.api_request(status),
        None => node.metrics().stray_api_request(status),
    }
}

/// The URL table: who is asked, for which app. The official Python library leaves the app out when it terminates
/// connections; it is found by key then.
fn route<'p>(method: &Method, path: &'p str) -> Result<(Option<&'p str>, Endpoint), ApiError> {
    let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let mut segments = [""; MAX_SEGMENTS];
    let (mut count, mut start) = (0, 0);
    let path = path.strip_prefix('/').ok_or(ApiError::NotFound)?;
    for end in memchr::memchr_iter(b'/', path.as_bytes()).chain([path.len()]) {
        *segments.get_mut(count).ok_or(ApiError::NotFound)? = &path[start..end];
        (count, start) = (count + 1, end + 1);
    }
    let (app_id, rest) = match &segments[..count] {
        ["apps", app_id, rest @ ..] => (Some(*app_id), rest),
        rest => (None, rest),
    };
    let (allowed, endpoint) = match (app_id, rest) {
        (Some(_), ["events"]) => (Method::POST, Endpoint::Events),
        (Some(_), ["batch_events"]) => (Method::POST, Endpoint::BatchEvents),
        (Some(_), ["channels"]) => (Method::GET, Endpoint::Channels),
        (Some(_), ["channels", channel]) => (Method::GET, Endpoint::Channel(decoded(channel))),
        (Some(_), ["channels", channel, "users"]) => (Method::GET, Endpoint::ChannelUsers(decoded(channel))),
        (Some(_), ["channels", channel, "events"]) => (Method::POST, Endpoint::ChannelEvents(decoded(channel))),
        (Some(_), ["channels", channel, "stats"]) => (Method::GET, Endpoint::ChannelStats(decoded(channel))),
        (_, ["users", user, "terminate_connections"]) => (Method::POST, Endpoint::Terminate(decoded(user))),
        _ => return Err(ApiError::NotFound),
    };
    match *method == allowed {
        true => Ok((app_id, endpoint)),
        false => Err(ApiError::MethodNotAllowed(allowed)),
    }
}

async fn serve(
    context: &Context,
    call: Call<'_>,
    body: RequestBody<'_>,
    app_id: Option<&str>,
    endpoint: Endpoint,
) -> Result<Reply, ApiError> {
    let node = &context.node;
    let signed = Signed::read(context, call, body, app_id).await?;
    match endpoint {
        Endpoint::Events => events::trigger(node, &signed).await,
        Endpoint::BatchEvents => events::trigger_batch(node, &signed).await,
        Endpoint::ChannelEvents(channel) => events::trigger_raw(node, &signed, &channel).await,
        Endpoint::Channels => channels::list(node, &signed).await,
        Endpoint::Channel(channel) => channels::show(node, &signed, &channel).await,
        Endpoint::ChannelStats(channel) => channels::stats(node, &signed, &channel).await,
        Endpoint::ChannelUsers(channel) => users::list(node, &signed, &channel).await,
        Endpoint::Terminate(user_id) => users::terminate(node, &signed, &user_id).await,
    }
}

impl From<ApiResponse> for Response<Body> {
    fn from(response: ApiResponse) -> Self {
        match response {
            ApiResponse::Whole(answer) => Response::<http_body_util::Full<bytes::Bytes>>::from(answer).map(any_body),
            ApiResponse::Streamed(response) => *response,
        }
    }
}

impl Reply {
    fn ok(body: String) -> Self {
        Self { status: StatusCode::OK, body: Content::Whole(body.into()) }
    }

    fn streamed(body: Body) -> Self {
        Self { status: StatusCode::OK, body: Content::Streamed(body) }
    }

    /// Nothing is to be told.
    fn empty(status: StatusCode) -> Self {
        Self { status, body: Content::Whole("{}".into()) }
    }
}

/// A JSON object of values that are JSON already.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("{}:{value}", crate::protocol::json::quoted(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn refuse(error: &ApiError) -> Answer {
    // One line, whatever a stranger wrote into the parameter that the text repeats.
    let text = error.to_string().replace(char::is_control, " ");
    let answer = Answer::new(error.status(), TEXT, format!("{text}\n"));
    let (name, value) = match error {
        ApiError::MethodNotAllowed(allowed) => (ALLOW, allowed.to_string()),
        ApiError::RateLimit(wait) => (RETRY_AFTER, wait.as_secs_f64().ceil().to_string()),
        ApiError::Unavailable(_) | ApiError::BodyCrowded | ApiError::TooManyListings(_) => {
            (RETRY_AFTER, RETRY_UNAVAILABLE.to_string())
        }
        _ => return answer,
    };
    let value = HeaderValue::from_str(&value).expect("a method and a number are valid header values");
    Answer { header: Some((name, value)), ..answer }
}
