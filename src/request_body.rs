//! Reading the body of a request: bounded in bytes and in time while it arrives.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::select;
use tokio::time::timeout;

use crate::shutdown::Shutdown;

/// Bytes of a body that is too large which are read and thrown away.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// More bytes than the limit.
    TooLarge,
    /// It broke off.
    Incomplete,
    /// It did not arrive in time.
    Timeout,
}

/// The body of a request, as whoever read the head hands it on.
#[derive(Debug)]
pub enum RequestBody<'a> {
    /// It was read, or could not be.
    Read(Result<&'a [u8], BodyError>),
    /// It is still to be read.
    Coming(Incoming),
}

/// A body that was read.
#[derive(Debug)]
pub enum Content<'a> {
    /// Somewhere else.
    There(&'a [u8]),
    /// Here.
    Here(Bytes),
}

impl Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::There(bytes) => bytes,
            Self::Here(bytes) => bytes,
        }
    }
}

impl<'a> RequestBody<'a> {
    /// Reads the body, if nobody has yet.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn read(self, limit: usize, deadline: Duration, shutdown: &Shutdown) -> Result<Content<'a>, BodyError> {
        match self {
            Self::Read(Ok(bytes)) if bytes.len() > limit => Err(BodyError::TooLarge),
            Self::Read(result) => result.map(Content::There),
            Self::Coming(body) => read_body(body, limit, deadline, shutdown).await.map(Content::Here),
        }
    }
}

/// Reads a body. No more than `limit` bytes are ever held.
///
/// # Errors
/// See [`BodyError`].
pub async fn read_body(
    mut body: Incoming,
    limit: usize,
    deadline: Duration,
    shutdown: &Shutdown,
) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        discard(body, deadline, shutdown);
        return Err(BodyError::TooLarge);
    }
    match timeout(deadline, Limited::new(&mut body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(body, deadline, shutdown);
            Err(BodyError::TooLarge)
        }
        Ok(Err(_)) => Err(BodyError::Incomplete),
        Err(_) => Err(BodyError::Timeout),
    }
}

/// Lets a client go on sending what it is being told is too much, within reason: most libraries read no answer before
/// they have sent everything, and would only see a broken connection.
fn discard(body: Incoming, deadline: Duration, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut body = Limited::new(body, MAX_DISCARDED);
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        select! {
            _ = timeout(deadline, rest) => {}
            () = stop.requested() => {}
        }
    });
}
