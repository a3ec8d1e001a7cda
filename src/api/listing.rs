//! The answer of `GET /apps/{id}/channels`: a short one as a whole, a long one in chunks, each made when the client has
//! taken the one before it.

use std::fmt::Write;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::channels::Occupancy;
use crate::cluster::Unavailable;
use crate::node::Listing;
use crate::protocol::ChannelName;
use crate::response::{Body, any_body};

use super::channels::counts;
use super::params::Info;

/// Bytes of a chunk, and of an answer that is sent as a whole: a little more at most.
const CHUNK: usize = 64 * 1024;

/// See the module.
pub(super) struct ChannelList {
    listing: Listing,
    info: Info,
    begun: bool,
    /// Whether a channel is in the answer already.
    any: bool,
    over: bool,
}

impl ChannelList {
    pub(super) fn new(listing: Listing, info: Info) -> Self {
        Self { listing, info, begun: false, any: false, over: false }
    }

    /// The next chunk, and whether it is the last one.
    pub(super) async fn chunk(&mut self) -> Result<(String, bool), Unavailable> {
        let mut chunk = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            chunk.push_str(r#"{"channels":{"#);
        }
        while chunk.len() < CHUNK {
            let Some(page) = self.listing.page().await? else {
                self.over = true;
                chunk.push_str("}}");
                break;
            };
            for (name, occupancy) in &page {
                self.entry(&mut chunk, name, occupancy);
            }
        }
        Ok((chunk, self.over))
    }

    fn entry(&mut self, chunk: &mut String, name: &ChannelName, occupancy: &Occupancy) {
        let comma = if std::mem::replace(&mut self.any, true) { "," } else { "" };
        // Names have no character that would have to be escaped. Writing to a string cannot fail.
        let _ = write!(chunk, r#"{comma}"{}":{{"#, name.as_str());
        for (place, (attribute, count)) in counts(name, occupancy, self.info).iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let _ = write!(chunk, r#"{comma}"{attribute}":{count}"#);
        }
        chunk.push('}');
    }

    /// The rest of the answer, after its first chunk. If the cluster cannot be asked any more, it breaks off.
    pub(super) fn into_body(self, first: String) -> Body {
        let chunks = stream::unfold((Some(first), self), |(ready, mut list)| async {
            let chunk = match ready {
                Some(first) => Ok(first),
                None if list.over => return None,
                None => list.chunk().await.map(|(chunk, _)| chunk),
            };
            list.over |= chunk.is_err();
            Some((chunk.map(|chunk| Frame::data(Bytes::from(chunk))), (None, list)))
        });
        any_body(StreamBody::new(chunks))
    }
}
