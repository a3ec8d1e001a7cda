//! Asking about channels (§4.6, §4.7).

use std::sync::Arc;

use crate::channels::Occupancy;
use crate::node::Node;
use crate::protocol::ChannelName;

use super::error::ApiError;
use super::listing::ChannelList;
use super::params::{Info, parse_channel, query_value};
use super::signed::Signed;
use super::{Reply, object};

/// `GET /apps/{id}/channels`: all occupied channels, in no particular order.
pub(super) async fn list(node: &Arc<Node>, signed: &Signed<'_>) -> Result<Reply, ApiError> {
    let prefix = query_value(&signed.query, "filter_by_prefix").unwrap_or_default();
    let info = requested(signed, &["user_count", "subscription_count"])?;
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(ApiError::UserCountPrefix);
    }
    let mut list = ChannelList::new(node.list_channels(&signed.tenant, prefix).await?, info);
    Ok(match list.chunk().await? {
        (whole, true) => Reply::ok(whole),
        (first, false) => Reply::streamed(list.into_body(first)),
    })
}

/// `GET /apps/{id}/channels/{channel}`: one channel, occupied or not.
pub(super) async fn show(node: &Arc<Node>, signed: &Signed<'_>, channel: &str) -> Result<Reply, ApiError> {
    let name = parse_channel(channel, &signed.tenant.app.config().limits)?;
    let info = requested(signed, &["user_count", "subscription_count", "cache"])?;
    if info.user_count && !name.is_presence() {
        return Err(ApiError::Info("user_count is only available for presence channels".to_owned()));
    }
    if info.cache && !name.is_cache() {
        return Err(ApiError::Info("cache is only available for cache channels".to_owned()));
    }
    describe(node, signed, &name, info).await
}

/// `GET /apps/{id}/channels/{channel}/stats`: the old form.
pub(super) async fn stats(node: &Arc<Node>, signed: &Signed<'_>, channel: &str) -> Result<Reply, ApiError> {
    let name = parse_channel(channel, &signed.tenant.app.config().limits)?;
    let info = Info { user_count: name.is_presence(), ..Info::default() };
    describe(node, signed, &name, info).await
}

/// The counts asked for, as far as the channel has them.
pub(super) fn counts(name: &ChannelName, occupancy: &Occupancy, info: Info) -> Vec<(&'static str, String)> {
    let mut counts = Vec::new();
    if info.user_count && name.is_presence() {
        counts.push(("user_count", occupancy.users.to_string()));
    }
    if info.subscription_count {
        counts.push(("subscription_count", occupancy.subscriptions.to_string()));
    }
    counts
}

async fn describe(node: &Arc<Node>, signed: &Signed<'_>, name: &ChannelName, info: Info) -> Result<Reply, ApiError> {
    let occupancy = node.occupancy(&signed.tenant, name).await?;
    let mut members = vec![("occupied", (occupancy.subscriptions > 0).to_string())];
    members.extend(counts(name, &occupancy, info));
    if info.cache {
        let cached = node.cached(&signed.tenant, name).await?.map(|(data, left)| {
            let seconds = left.as_secs_f64().ceil().to_string();
            object([("data", data.literal().to_owned()), ("ttl", seconds)])
        });
        members.push(("cache", cached.unwrap_or_else(|| "null".to_owned())));
    }
    Ok(Reply::ok(object(members)))
}

fn requested(signed: &Signed<'_>, known: &[&str]) -> Result<Info, ApiError> {
    Info::parse(query_value(&signed.query, "info").unwrap_or_default(), known)
}
