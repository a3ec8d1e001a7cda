//! `fanfare nodes`: which nodes a cluster has, as one of them sees it.

use serde_json::Value;

use super::admin::AdminArgs;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare nodes
  fanfare nodes --url http://10.0.0.5:9601
  fanfare nodes --json

Speaks to the admin listener of one node, which is marked with a *. Exit code 1 also means that this node is cut off
from the others.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print the server's answer instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let answer = self.admin.resolve()?.get("/nodes").await?;
        output::line(if self.json { answer.to_string() } else { report(&answer) })?;
        if answer["state"] == "isolated" {
            let reason = answer["reason"].as_str().unwrap_or("for an unknown reason");
            return Err(CliError::Isolated(output::on_one_line(reason)));
        }
        Ok(())
    }
}

/// The answer to `GET /nodes`, for people.
fn report(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let header = ["", "NAME", "VERSION", "AGE", "CONNECTIONS", "LAG", "LAST SEEN"].map(str::to_owned).to_vec();
    let rows: Vec<_> = [header].into_iter().chain(nodes.iter().map(|node| row(node, nodes))).collect();
    let cluster = match answer["cluster"].as_str() {
        Some(id) => format!("in cluster {}", output::on_one_line(id)),
        None => "without a cluster".to_owned(),
    };
    let plural = if nodes.len() == 1 { "" } else { "s" };
    let connections: u64 = nodes.iter().filter_map(|node| node["connections"].as_u64()).sum();
    let total = format!("{} node{plural} {cluster}, connections: {connections}", nodes.len());
    format!("{}\n\n{total}", output::table(&rows))
}

fn row(node: &Value, nodes: &[Value]) -> Vec<String> {
    let text = |name: &str| output::on_one_line(node[name].as_str().unwrap_or_default());
    // Nodes that share a host also share its name.
    let namesakes = nodes.iter().filter(|other| other["name"] == node["name"]).count();
    vec![
        if node["this"] == true { "*" } else { "" }.to_owned(),
        text(if namesakes > 1 { "id" } else { "name" }),
        text("version"),
        node["age_seconds"].as_u64().map_or_else(unknown, age),
        node["connections"].as_u64().map_or_else(unknown, |count| count.to_string()),
        node["lag_ms"].as_f64().map_or_else(unknown, |lag| format!("{lag:.2} ms")),
        node["seen_ms"].as_f64().map_or_else(unknown, |seen| format!("{:.1} s ago", seen / 1000.0)),
    ]
}

/// What a node without a cluster does not have.
fn unknown() -> String {
    "–".to_owned()
}

/// The two largest units of a time.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (7300, "2h 1m"),
            (86_399, "23h 59m"),
            (86_400, "1d 0h"),
            (1_000_000, "11d 13h"),
        ];
        for (seconds, expected) in table {
            assert_eq!(age(seconds), expected);
        }
    }
}
