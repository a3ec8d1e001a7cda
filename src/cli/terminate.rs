//! `fanfare terminate`: closes the connections of a user (protocol §4.9).

use serde_json::json;

use super::api_client::escape;
use super::target::TargetArgs;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare terminate 7

Only connections that signed in as this user are closed, and told not to come
back by themselves.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The id the user signed in with.
    #[arg(value_name = "USER_ID")]
    user: String,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        target.post(&format!("/users/{}/terminate_connections", escape(&self.user)), &json!({})).await?;
        output::line(format_args!("terminated the connections of user {}", self.user))
    }
}
