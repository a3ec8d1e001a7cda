//! An HTTP answer: a status, a media type and a body that is there already.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// Text for people.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// JSON. Without a `charset`, which some libraries do not expect.
pub const JSON: &str = "application/json";

/// A script.
pub const JAVASCRIPT: &str = "application/javascript";

/// The media type of OpenMetrics, which Prometheus asks for.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes the answer.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
