//! `fanfare config`: what the server would run with, or a file to start from.

use crate::Config;

use super::settings::SourceArgs;
use super::{CliError, output};

/// Every key, commented, with its default.
const DEFAULTS: &str = include_str!("../../config/default.toml");

const EXAMPLES: &str = "\
Examples:
  fanfare config --defaults > fanfare.toml        a commented file to start from
  fanfare config --config fanfare.toml            file, environment and --set together, secrets masked";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Print every key with its explanation and its default, whatever is configured.
    #[arg(long)]
    defaults: bool,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        if self.defaults {
            return output::line(DEFAULTS.trim_end());
        }
        let loaded = Config::load(&self.sources.sources(Vec::new()))?;
        output::warnings(&loaded.warnings);
        output::line(loaded.config.to_toml().trim_end())
    }
}
