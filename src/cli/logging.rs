//! The log: one subscriber for the whole process, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};
use crate::log_limit::LogLimit;

use super::CliError;

/// The flags that set `log.format` and `log.level`.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// How log lines look; the same as --set log.format=FORMAT.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// What is logged: a level such as debug, or directives such as info,fanfare::session=debug; the same as
    /// --set log.level=LEVEL.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl LogArgs {
    /// What was given, as settings.
    pub(super) fn overrides(self) -> Vec<(String, String)> {
        let format = self.log_format.map(|format| ("log.format".to_owned(), format));
        let level = self.log_level.map(|level| ("log.level".to_owned(), level));
        format.into_iter().chain(level).collect()
    }
}

/// Starts logging. Called once, as soon as the configuration is known.
pub(super) fn start(config: &LogConfig) -> Result<(), CliError> {
    let filters = tracing_subscriber::registry().with(EnvFilter::try_new(&config.level)?);
    let filters = filters.with(LogLimit::new(config.repeat_limit));
    let lines = fmt::layer().with_writer(io::stderr);
    match config.format {
        LogFormat::Json => filters.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            filters.with(lines.with_ansi(colours)).init();
        }
    }
    Ok(())
}
