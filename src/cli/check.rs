//! `fanfare check`: what `serve` would say about a configuration, without serving.

use crate::{Config, Server};

use super::settings::{SourceArgs, machine};
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare check --config fanfare.toml

Prints every mistake, not only the first one, and warns of what is allowed but
probably not meant. FANFARE_ variables count, as they do for `fanfare serve`, and
so does the open-file limit: check with the one that the server will have.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        let file = self.sources.config.clone();
        let loaded = Config::load_for_server(&self.sources.sources(Vec::new()), &machine(true))?;
        if let Err(mistake) = Server::check(&loaded.config) {
            return Err(CliError::Unfit(mistake, loaded.warnings));
        }
        output::warnings(&loaded.warnings);
        let name = file.map_or("environment".to_owned(), |file| file.display().to_string());
        let apps = match loaded.config.apps.len() {
            1 => "1 app".to_owned(),
            n => format!("{n} apps"),
        };
        output::line(format_args!("{name}: ok ({apps})"))
    }
}
