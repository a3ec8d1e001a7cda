//! `fanfare trigger`: one event, as a backend sends it (protocol §4.4).

use std::io::Read;

use serde_json::{Value, json};

use super::target::TargetArgs;
use super::{CliError, output};

const EXAMPLES: &str = r#"Examples:
  fanfare trigger my-channel my-event '{"hello":"world"}'
  fanfare trigger room-1,room-2 greet '"hi"'
  generate-report | fanfare trigger reports finished -
  fanfare trigger presence-room typing --info user_count,subscription_count
  fanfare trigger '#server-to-user-7' note '{"text":"for user 7 only"}'"#;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The channel, or several with commas between them.
    #[arg(value_name = "CHANNEL[,CHANNEL…]")]
    channels: String,
    /// The event's name.
    event: String,
    /// The event's data, sent as it is; JSON by convention. `-` reads it from standard input.
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    data: String,
    /// The connection that does not get the event: usually the one that caused it.
    #[arg(long, value_name = "SOCKET_ID")]
    socket_id: Option<String>,
    /// What to answer about each channel: user_count, subscription_count or both, with a comma.
    #[arg(long, value_name = "ATTRIBUTES")]
    info: Option<String>,
    /// CHANNEL is one name, commas and all.
    #[arg(long)]
    one_channel: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let channels = if self.one_channel { vec![self.channels.as_str()] } else { names(&self.channels) };
        let data = if self.data == "-" { standard_input()? } else { self.data };
        let body = body(&channels, &self.event, &data, self.socket_id.as_deref(), self.info.as_deref());
        let answer = target.post("/events", &body).await?;
        if self.info.is_some() {
            return output::line(answer);
        }
        output::line(format_args!("triggered {} on {}", self.event, channels.join(", ")))
    }
}

fn names(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

fn standard_input() -> Result<String, CliError> {
    let mut data = String::new();
    std::io::stdin().read_to_string(&mut data).map_err(CliError::Input)?;
    Ok(data)
}

fn body(channels: &[&str], event: &str, data: &str, socket_id: Option<&str>, info: Option<&str>) -> Value {
    let mut body = json!({ "name": event, "channels": channels, "data": data });
    for (name, value) in [("socket_id", socket_id), ("info", info)] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_sent() {
        assert_eq!(body(&["a"], "e", "{}", None, None), json!({ "name": "e", "channels": ["a"], "data": "{}" }));
        let full = body(&names("a, b,"), "e", "", Some("1.2"), Some("user_count"));
        let expected = json!({
            "name": "e", "channels": ["a", "b"], "data": "", "socket_id": "1.2", "info": "user_count",
        });
        assert_eq!(full, expected);
    }
}
