//! Signed-in users: in, out, and out by force (§2.9, §2.10, §2.13).

use std::time::Instant;

use tracing::info;

use crate::auth;
use crate::channels::{Changed, Connection, Greeting, Life};
use crate::cluster::{Cluster, Recipient, Unavailable};
use crate::protocol::{ClientError, ServerEvent, SignIn, UserId};
use crate::untrusted::Untrusted;

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
        if let Err(error) = self.has_room(client, Recipient::User(&user.user_id), usize::MAX) {
            return Err(ClientError::SignIn(error.to_string()));
        }
        let users = &client.tenant.users;
        if before.is_some() && users.is_arriving(client.socket_id) {
            // Each that waits takes memory.
            let text = "An earlier sign-in of this connection waits for the cluster, try again later";
            return Err(ClientError::SignIn(text.to_owned()));
        }
        if let Some(before) = before {
            let changed = users.unwatch(client.socket_id, &before.watchlist);
            self.user_changed(client, &user.user_id, &changed);
        }
        let connection = Connection { socket_id: client.socket_id, outbox: client.outbox.clone() };
        let complaint = too_long.then(|| ServerEvent::Error(&ClientError::WatchlistTooLong(limit)).encode());
        let greeting = Greeting { success: ServerEvent::SignInSuccess { user_data }.encode(), complaint };
        let life = |user_id: &UserId| {
            let redis = self.cluster.redis();
            redis.map_or(Life::default(), |redis| redis.life(client.tenant.app.id(), Recipient::User(user_id)))
        };
        let changed = users.sign_in(&user.user_id, &connection, &user.watchlist, greeting, life);
        self.user_changed(client, &user.user_id, &changed);
        // Now that all it caused is on its way.
        client.outbox.flush();
        Ok(user)
    }

    /// Ends a sign-in, as the connection ends.
    pub fn sign_out(&self, client: &Client, user: &SignIn) {
        let users = &client.tenant.users;
        let unwatched = users.unwatch(client.socket_id, &user.watchlist);
        let signed_out = users.sign_out(&user.user_id, client.socket_id, Instant::now());
        for changed in [unwatched, signed_out] {
            self.user_changed(client, &user.user_id, &changed);
        }
    }

    /// Closes every connection that is signed in as this user, on all nodes.
    ///
    /// # Errors
    /// The others could not be told.
    pub async fn terminate(&self, tenant: &Tenant, user_id: &UserId) -> Result<(), Unavailable> {
        let code = tenant.app.config().terminate_code;
        match &self.cluster {
            Cluster::Redis(redis) => {
                redis.terminate(tenant.app.id(), user_id, code).await?;
                info!(app = tenant.app.id(), user_id = %Untrusted(user_id.as_str()), "user terminated, on all nodes");
            }
            Cluster::Single => {
                let closed = tenant.users.terminate(user_id, code);
                info!(app = tenant.app.id(), user_id = %Untrusted(user_id.as_str()), closed, "user terminated");
            }
        }
        Ok(())
    }

    fn user_changed(&self, client: &Client, user_id: &UserId, changed: &Changed) {
        if changed.online {
            client.tenant.user_changed(user_id, Some(client.source()));
        }
        for touched in &changed.touched {
            self.touch(&client.tenant, Recipient::User(touched), client.cause());
        }
    }
}
