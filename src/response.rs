//! An HTTP answer: a status, a media type and a body, which usually is there already.

use std::cell::Cell;
use std::error::Error;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use httpdate::HttpDate;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

/// Text for people.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// JSON. Without a `charset`, which some libraries do not expect.
pub const JSON: &str = "application/json";

/// A script.
pub const JAVASCRIPT: &str = "application/javascript";

/// The media type of OpenMetrics, which Prometheus asks for.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The value of `X-Content-Type-Options` in all responses: a browser takes none for something else than it says it is.
pub const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// An answer in the form in which both can send it that serve HTTP here: hyper, and the lane in front of it.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: &'static str,
    /// What else the head says.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// An answer whose head says nothing else.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, header: None, body: body.into() }
    }
}

/// The current second as the `Date` header has it. Formatted once a second by each thread: at full speed that would be
/// time lost.
#[derive(Debug, Clone, Copy)]
pub struct Date([u8; 29]);

impl Date {
    /// What the clock says.
    pub fn now() -> Self {
        thread_local! {
            static LAST: Cell<(u64, Date)> = const { Cell::new((0, Date([b' '; 29]))) };
        }
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        LAST.with(|last| {
            if last.get().0 != second {
                let mut date = Date([b' '; 29]);
                write!(&mut date.0[..], "{}", HttpDate::from(now)).expect("an HTTP date has 29 characters");
                last.set((second, date));
            }
            last.get().1
        })
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        response.headers_mut().extend(answer.header);
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        response
    }
}

/// A body as one of any kind.
pub fn any_body<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(any_body(Full::default()));
    *response.status_mut() = status;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// An answer whose body is there, among others whose body is not.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, content_type, body).map(any_body)
}

/// Makes an answer for hyper.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Answer::new(status, content_type, body).into()
}
