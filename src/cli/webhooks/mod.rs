//! `fanfare webhooks`: what waits, what failed and why; another try, and a test.

mod report;

use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use crate::config::WebhookEvent;

use super::admin::{Admin, AdminArgs};
use super::api_client::escape;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare webhooks list
  fanfare webhooks show 5b1f0c2e-63f1c0a8b2d40
  fanfare webhooks replay 5b1f0c2e-63f1c0a8b2d40
  fanfare webhooks replay --all
  fanfare webhooks test --event member_added --channel presence-room

Speaks to the admin listener of the server, on its own machine.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the endpoints, the deliveries that are under way, and the dead letters.
    List(ListArgs),
    /// Show one delivery: its events, and every attempt with status, duration and answer.
    Show(ShowArgs),
    /// Send dead letters once more.
    Replay(ReplayArgs),
    /// Send an event that did not happen, signed like any other, and show what the endpoint answers.
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct ListArgs {
    /// Only those of this app.
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// At most so many deliveries under way, the oldest, and so many dead letters, the newest.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print the server's answer instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct ShowArgs {
    /// The delivery, as `list` and the header X-Fanfare-Delivery name it.
    #[arg(value_name = "ID")]
    id: String,
    /// Print the server's answer instead.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct ReplayArgs {
    /// The dead letters.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// With --all: those of this app.
    #[arg(long, value_name = "ID", requires = "all")]
    app_id: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct TestArgs {
    /// The app whose endpoints are tested [default: all]
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// The endpoint that is tested [default: all]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// What is said to have happened.
    #[arg(long, default_value = "channel_occupied", value_parser = event_names())]
    event: String,
    /// Where.
    #[arg(long, default_value = "fanfare-test")]
    channel: String,
    /// Who did it, for events about a user.
    #[arg(long, value_name = "ID", default_value = "fanfare-test")]
    user_id: String,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(args) => args.run().await,
            Command::Show(args) => args.run().await,
            Command::Replay(args) => args.run().await,
            Command::Test(args) => args.run().await,
        }
    }
}

impl ListArgs {
    async fn run(self) -> Result<(), CliError> {
        let app = self.app_id.map(|id| format!("&app={}", escape(&id))).unwrap_or_default();
        let listing = self.admin.resolve()?.get(&format!("/webhooks?limit={}{app}", self.limit)).await?;
        output::line(if self.json { listing.to_string() } else { report::listing(&listing) })
    }
}

impl ShowArgs {
    async fn run(self) -> Result<(), CliError> {
        let delivery = self.admin.resolve()?.get(&format!("/webhooks/{}", escape(&self.id))).await?;
        output::line(if self.json { delivery.to_string() } else { report::delivery(&delivery) })
    }
}

impl ReplayArgs {
    async fn run(self) -> Result<(), CliError> {
        let admin = self.admin.resolve()?;
        if self.all {
            let answer = admin.post("/webhooks/replay", &json!({ "app": self.app_id })).await?;
            return output::line(format_args!("dead letters that will be sent again: {}", answer["replayed"]));
        }
        for id in &self.ids {
            admin.post(&format!("/webhooks/{}/replay", escape(id)), &json!({})).await?;
            output::line(format_args!("{id} will be sent again"))?;
        }
        Ok(())
    }
}

impl TestArgs {
    async fn run(self) -> Result<(), CliError> {
        let admin = self.admin.resolve()?;
        let event = event(&self.event, &self.channel, &self.user_id);
        let answers = send_test(&admin, self.app_id, self.endpoint, event).await?;
        for answer in &answers {
            let url = answer["url"].as_str().unwrap_or_default();
            output::line(format_args!("{}  {}", output::on_one_line(url), report::attempt(&answer["attempt"])))?;
        }
        let accepted = |answer: &Value| matches!(answer["attempt"]["status"].as_u64(), Some(200..=299));
        match answers.iter().all(accepted) {
            true => Ok(()),
            false => Err(CliError::TestRefused),
        }
    }
}

async fn send_test(
    admin: &Admin,
    app: Option<String>,
    url: Option<String>,
    event: Value,
) -> Result<Vec<Value>, CliError> {
    let answer = admin.post("/webhooks/test", &json!({ "app": app, "url": url, "event": event })).await?;
    Ok(answer["answers"].as_array().cloned().unwrap_or_default())
}

/// An event of this name with the members that it always has.
fn event(name: &str, channel: &str, user_id: &str) -> Value {
    let socket_id = "1234.5678";
    match name {
        "member_added" | "member_removed" => json!({ "name": name, "channel": channel, "user_id": user_id }),
        "user_online" | "user_offline" => json!({ "name": name, "user_id": user_id }),
        "subscription_count" => json!({ "name": name, "channel": channel, "subscription_count": 1 }),
        "client_event" => {
            json!({ "name": name, "channel": channel, "event": "client-test", "data": "{}", "socket_id": socket_id })
        }
        "connection_opened" => json!({ "name": name, "socket_id": socket_id }),
        "connection_closed" => {
            json!({ "name": name, "socket_id": socket_id, "code": "0", "reason": "Closed by the client" })
        }
        _ => json!({ "name": name, "channel": channel }),
    }
}

fn event_names() -> PossibleValuesParser {
    WebhookEvent::ALL.map(|(name, _)| name).into()
}
