//! `fanfare channels`: which channels are occupied, or what one of them is like (protocol §4.6, §4.7).

use serde_json::{Map, Value};

use crate::protocol::ChannelName;

use super::api_client::escape;
use super::target::TargetArgs;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare channels
  fanfare channels --prefix presence- --info user_count,subscription_count
  fanfare channels presence-room
  fanfare channels cache-scores --info cache --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Show this channel instead of all occupied ones.
    #[arg(value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only channels whose name begins like this.
    #[arg(long, conflicts_with = "channel")]
    prefix: Option<String>,
    /// What to tell: subscription_count, user_count (presence channels), cache (one cache channel), with commas; empty
    /// for nothing [default: what applies]
    #[arg(long, value_name = "ATTRIBUTES")]
    info: Option<String>,
    /// Print the server's answer instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let prefix = self.prefix.unwrap_or_default();
        let info = self.info.unwrap_or_else(|| applicable(self.channel.as_deref(), &prefix));
        let given: Vec<_> = [("filter_by_prefix", &*prefix), ("info", &*info)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let path =
            self.channel.as_ref().map_or_else(|| "/channels".to_owned(), |name| format!("/channels/{}", escape(name)));
        let answer = target.get(&path, &given).await?;
        if self.json {
            return output::line(answer);
        }
        match self.channel {
            Some(_) => output::line(attributes(&answer)),
            None => output::line(channels(&answer, &info)),
        }
    }
}

/// The attributes that may be asked for here. Asking for others is an error.
fn applicable(channel: Option<&str>, prefix: &str) -> String {
    let name = ChannelName::parse(channel.unwrap_or(prefix), usize::MAX);
    let users = name.as_ref().is_ok_and(ChannelName::is_presence).then_some("user_count");
    let cache = (channel.is_some() && name.is_ok_and(|name| name.is_cache())).then_some("cache");
    ["subscription_count"].into_iter().chain(users).chain(cache).collect::<Vec<_>>().join(",")
}

/// A row for each channel, a column for each attribute.
fn channels(answer: &Value, info: &str) -> String {
    let empty = Map::new();
    let channels = answer["channels"].as_object().unwrap_or(&empty);
    if channels.is_empty() {
        return "no channel is occupied".to_owned();
    }
    let columns: Vec<&str> = info.split(',').filter(|name| !name.is_empty()).collect();
    let header = ["CHANNEL".to_owned()].into_iter().chain(columns.iter().map(|name| name.to_uppercase())).collect();
    let row = |(name, channel): (&String, &Value)| {
        let name = output::on_one_line(name);
        [name].into_iter().chain(columns.iter().map(|column| cell(&channel[*column]))).collect()
    };
    let mut rows: Vec<Vec<String>> = channels.iter().map(row).collect();
    rows.sort_unstable();
    rows.insert(0, header);
    output::table(&rows)
}

/// A row for each attribute.
fn attributes(answer: &Value) -> String {
    let rows = answer.as_object().into_iter().flatten();
    output::table(&rows.map(|(name, value)| vec![output::on_one_line(name), cell(value)]).collect::<Vec<_>>())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_attributes_that_exist_are_asked_for() {
        assert_eq!(applicable(None, ""), "subscription_count");
        assert_eq!(applicable(None, "presence-"), "subscription_count,user_count");
        assert_eq!(applicable(Some("presence-cache-room"), ""), "subscription_count,user_count,cache");
        assert_eq!(applicable(None, "cache-"), "subscription_count");
        assert_eq!(applicable(Some("cached"), ""), "subscription_count");
    }

    #[test]
    fn channels_are_listed_by_name_with_their_attributes() {
        let answer = json!({ "channels": { "b": { "subscription_count": 2 }, "a": {} } });
        assert_eq!(channels(&answer, "subscription_count"), "CHANNEL  SUBSCRIPTION_COUNT\na        -\nb        2");
        assert_eq!(channels(&json!({ "channels": {} }), ""), "no channel is occupied");
    }

    #[test]
    fn one_channel_is_told_line_by_line() {
        let answer = json!({ "occupied": true, "user_count": 3, "cache": null });
        assert_eq!(attributes(&answer), "cache       -\noccupied    yes\nuser_count  3");
    }
}
