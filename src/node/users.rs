//! Signed-in users: in, out, and out by force (§2.9, §2.10, §2.13).

use std::time::Instant;

use tracing::info;

use crate::auth;
use crate::channels::Connection;
use crate::protocol::{ClientError, ServerEvent, SignIn, UserId};

use super::{Client, Node, Tenant};

impl Node {
    /// Signs a connection in, or anew as the same user. Queues the success, the status of the watchlist and, if the list
    /// was too long, the error about it.
    ///
    /// # Errors
    /// [`ClientError::SignIn`] or [`ClientError::SignedInAsAnother`].
    pub fn sign_in(
        &self,
        client: &Client,
        auth: &str,
        user_data: &str,
        before: Option<&SignIn>,
    ) -> Result<SignIn, ClientError> {
        let config = client.tenant.app.config();
        let invalid = |error: String| ClientError::SignIn(format!("Invalid user_data: {error}"));
        if user_data.len() > config.limits.user_data {
            return Err(invalid(format!("longer than {} bytes", config.limits.user_data)));
        }
        let text = auth::user_text(client.socket_id, user_data);
        let verdict = auth::verify_token(&client.tenant.app, auth, text);
        verdict.map_err(|error| ClientError::SignIn(error.to_string()))?;
        let user = SignIn::parse(user_data, config.limits.user_id_length);
        let mut user = user.map_err(|error| invalid(error.to_string()))?;
        if before.is_some_and(|before| before.user_id != user.user_id) {
            return Err(ClientError::SignedInAsAnother);
        }

        let limit = config.limits.watchlist_length;
        let too_long = config.watchlists && user.watchlist.len() > limit;
        user.watchlist.truncate(if config.watchlists { limit } else { 0 });
        let users = &client.tenant.users;
        if let Some(before) = before {
            users.unwatch(client.socket_id, &before.watchlist);
        }
        let connection = Connection { socket_id: client.socket_id, outbox: client.outbox.clone() };
        let success = ServerEvent::SignInSuccess { user_data }.encode();
        if users.sign_in(&user.user_id, &connection, &user.watchlist, success) {
            client.tenant.user_changed(&user.user_id);
        }
        if too_long {
            client.outbox.push(ServerEvent::Error(&ClientError::WatchlistTooLong(limit)).encode());
        }
        Ok(user)
    }

    /// Ends a sign-in, as the connection ends.
    pub fn sign_out(&self, client: &Client, user: &SignIn) {
        let users = &client.tenant.users;
        users.unwatch(client.socket_id, &user.watchlist);
        if users.sign_out(&user.user_id, client.socket_id, Instant::now()) {
            client.tenant.user_changed(&user.user_id);
        }
    }

    /// Closes every connection that is signed in as this user.
    pub fn terminate(&self, tenant: &Tenant, user_id: &UserId) {
        let closed = tenant.users.terminate(user_id, tenant.app.config().terminate_code);
        info!(app = tenant.app.id(), %user_id, closed, "user terminated");
    }
}
