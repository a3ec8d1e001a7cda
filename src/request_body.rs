//! Reading the body of a request: bounded in bytes and in time while it arrives.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use tokio::select;
use tokio::time::timeout;

use crate::body_budget::{BodyBudget, Evicted, Reservation};
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
    /// It had to make room for others.
    Crowded,
}

impl From<Evicted> for BodyError {
    fn from(Evicted: Evicted) -> Self {
        Self::Crowded
    }
}

/// What bounds a body besides its length.
#[derive(Debug, Clone, Copy)]
pub struct BodyRules<'a> {
    /// The time in which it has to come.
    pub deadline: Duration,
    /// The memory that it shares with others.
    pub budget: &'a BodyBudget,
    /// Who says stop.
    pub shutdown: &'a Shutdown,
}

/// The body of a request, as whoever read the head hands it on.
#[derive(Debug)]
pub enum RequestBody<'a> {
    /// It was read, or could not be.
    Read(Result<Content<'a>, BodyError>),
    /// So many bytes of it are announced, and somebody else is going to read them.
    Length(usize),
    /// It is still to be read.
    Coming(Incoming),
}

/// A body that was read, with its part of the budget.
#[derive(Debug)]
pub struct Content<'a> {
    bytes: Text<'a>,
    /// `None` if it came along with the head, or nobody else has to make room for it any more.
    reservation: Option<Reservation>,
}

#[derive(Debug)]
enum Text<'a> {
    /// In the buffer of the connection.
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl<'a> Content<'a> {
    /// A body in the buffer of its connection.
    pub fn borrowed(bytes: &'a [u8], reservation: Option<Reservation>) -> Self {
        Self { bytes: Text::Borrowed(bytes), reservation }
    }

    /// A body in memory of its own.
    pub fn owned(bytes: Bytes, reservation: Option<Reservation>) -> Self {
        Self { bytes: Text::Owned(bytes), reservation }
    }

    /// Gives its part of the budget back: the body is authentic.
    pub fn verified(&mut self) {
        self.reservation = None;
    }

    /// For whoever has to wait with the body or with what was made of it: the bytes, and their part of the budget. The wait
    /// must end when the budget asks for that: see [`Reservation::race`].
    ///
    /// # Errors
    /// The body has to make room.
    pub fn hold(self, budget: &BodyBudget) -> Result<(Bytes, Reservation), Evicted> {
        let bytes = match self.bytes {
            Text::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Text::Owned(bytes) => bytes,
        };
        let reservation = match self.reservation {
            Some(reservation) => reservation,
            None => {
                let reservation = budget.reserve();
                reservation.grow(bytes.len())?;
                reservation
            }
        };
        Ok((bytes, reservation))
    }
}

impl Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Text::Borrowed(bytes) => bytes,
            Text::Owned(bytes) => bytes,
        }
    }
}

impl<'a> RequestBody<'a> {
    /// Whether it is known to be longer than this.
    pub fn exceeds(&self, limit: usize) -> bool {
        match self {
            Self::Read(Ok(bytes)) => bytes.len() > limit,
            Self::Read(Err(_)) => false,
            Self::Length(length) => *length > limit,
            Self::Coming(body) => body.size_hint().lower() > limit as u64,
        }
    }

    /// Reads the body, if nobody has yet.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn read(self, limit: usize, rules: BodyRules<'_>) -> Result<Content<'a>, BodyError> {
        match self {
            Self::Read(Ok(bytes)) if bytes.len() > limit => Err(BodyError::TooLarge),
            Self::Read(result) => result,
            Self::Length(_) => Err(BodyError::Incomplete),
            Self::Coming(body) => read_body(body, limit, rules).await,
        }
    }

    /// Nobody wants it. What is still to come is thrown away for a while: most libraries read no answer before they have
    /// sent everything, and would only see a broken connection.
    pub fn discard(self, rules: BodyRules<'_>) {
        if let Self::Coming(body) = self
            && !body.is_end_stream()
        {
            discard(body, rules);
        }
    }
}

/// Reads a body. No more than `limit` bytes are ever held.
///
/// # Errors
/// See [`BodyError`].
pub async fn read_body(mut body: Incoming, limit: usize, rules: BodyRules<'_>) -> Result<Content<'static>, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        discard(body, rules);
        return Err(BodyError::TooLarge);
    }
    let reservation = (!body.is_end_stream()).then(|| rules.budget.reserve());
    let reading = timeout(rules.deadline, collect(&mut body, limit, reservation.as_ref()));
    let result = match &reservation {
        None => reading.await,
        Some(reservation) => select! {
            result = reading => result,
            () = reservation.evicted() => Ok(Err(BodyError::Crowded)),
        },
    };
    match result.unwrap_or(Err(BodyError::Timeout)) {
        Ok(bytes) => Ok(Content::owned(bytes.into(), reservation)),
        Err(BodyError::TooLarge) => {
            discard(body, rules);
            Err(BodyError::TooLarge)
        }
        Err(error) => Err(error),
    }
}

async fn collect(body: &mut Incoming, limit: usize, reservation: Option<&Reservation>) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        if let Some(reservation) = reservation {
            reservation.grow(data.len())?;
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// Lets a client go on sending what it is being told is too much, within reason.
fn discard(body: Incoming, rules: BodyRules<'_>) {
    let (stop, deadline) = (rules.shutdown.clone(), rules.deadline);
    rules.shutdown.spawn(async move {
        let mut body = Limited::new(body, MAX_DISCARDED);
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        select! {
            _ = timeout(deadline, rest) => {}
            () = stop.requested() => {}
        }
    });
}
