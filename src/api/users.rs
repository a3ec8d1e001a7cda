//! Members of presence channels, and the end of a user's connections (§4.8, §4.9).

use std::sync::Arc;

use hyper::StatusCode;

use crate::node::Node;
use crate::protocol::json;

use super::error::ApiError;
use super::params::{Params, parse_channel, parse_user_id};
use super::signed::Signed;
use super::{Reply, object};

/// `GET /apps/{id}/channels/{channel}/users`: who is there.
pub(super) async fn list(node: &Arc<Node>, signed: &Signed<'_>, channel: &str) -> Result<Reply, ApiError> {
    let name = parse_channel(channel, &signed.tenant.app.config().limits)?;
    if !name.is_presence() {
        return Err(ApiError::NotPresence);
    }
    let members = node.members(&signed.tenant, &name).await?;
    let users: Vec<String> = members.iter().map(|id| object([("id", json::quoted(id.as_str()))])).collect();
    Ok(Reply::ok(object([("users", format!("[{}]", users.join(",")))])))
}

/// `POST /apps/{id}/users/{user_id}/terminate_connections`: closes what is signed in as this user.
pub(super) async fn terminate(node: &Arc<Node>, signed: &Signed<'_>, user_id: &str) -> Result<Reply, ApiError> {
    Params::read(&signed.body, &signed.query, &[])?;
    let user_id = parse_user_id(user_id, &signed.tenant.app.config().limits)?;
    node.terminate(&signed.tenant, &user_id).await?;
    Ok(Reply::empty(StatusCode::OK))
}
