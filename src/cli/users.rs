//! `fanfare users`: who is in a presence channel (protocol §4.8).

use super::api_client::escape;
use super::target::TargetArgs;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare users presence-room
  fanfare users presence-room --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A presence channel.
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// Print the server's answer instead of one id a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let answer = target.get(&format!("/channels/{}/users", escape(&self.channel)), &[]).await?;
        if self.json {
            return output::line(answer);
        }
        for user in answer["users"].as_array().into_iter().flatten() {
            output::line(output::on_one_line(user["id"].as_str().unwrap_or_default()))?;
        }
        Ok(())
    }
}
