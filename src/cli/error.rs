//! Why a command did not do what it was asked to, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use tracing::{Level, enabled, error};

use crate::bench::BenchError;
use crate::config::ConfigError;
use crate::server::StartError;

use super::api_client::CallError;
use super::listen::ListenError;
use super::output;

/// The end of a command that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Arguments that are well-formed but cannot be meant; the text says what to write instead.
    #[error("{0}")]
    Usage(String),
    /// The server could not take its ports, or read its certificate.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A certificate or a key of a configuration cannot be used that was checked, with the warnings about the rest.
    #[error("{0}")]
    Unfit(#[source] StartError, Vec<String>),
    /// `log.level` is not something the log understands.
    #[error("log.level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    /// A request to a server failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A subscription ended, or never began.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A benchmark could not be carried out.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A benchmark found the server wrong; its result was printed.
    #[error("not every delivery was as it should be: {0}")]
    Findings(String),
    /// The picture of a benchmark could not be drawn or written.
    #[error("--plot {path}: {cause}")]
    Plot {
        /// The file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// An endpoint did not take a test webhook; its answer was printed.
    #[error("not every endpoint answered with a 2xx status")]
    TestRefused,
    /// A node is cut off from its cluster; what it knows was printed.
    #[error("ISOLATED, this node is cut off from the others: {0}")]
    Isolated(String),
    /// The operating system gave no thread or no signal.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// Standard input could not be read.
    #[error("cannot read the event's data from standard input: {0}")]
    Input(#[source] io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

impl CliError {
    /// Tells the person in front of the terminal, and answers with the exit code.
    pub(super) fn report(self) -> ExitCode {
        match &self {
            // `fanfare listen … | head -1`: the reader has what it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            // One line a mistake, each beginning with its place, as editors expect it.
            Self::Config(error) => output::remark(error),
            // Once a log has begun, whoever reads it expects nothing else.
            Self::Start(error) if enabled!(Level::ERROR) => error!("{error}"),
            _ => output::remark(format_args!("fanfare: {self}")),
        }
        if let Self::Config(ConfigError { warnings, .. }) | Self::Unfit(_, warnings) = &self {
            output::warnings(warnings);
        }
        match self {
            Self::Config(_) | Self::Usage(_) | Self::LogLevel(_) | Self::Bench(BenchError::Unfit(_)) => {
                ExitCode::from(2)
            }
            _ => ExitCode::FAILURE,
        }
    }
}
