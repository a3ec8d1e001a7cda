//! The command line: reads arguments, runs one command, picks the exit code. A file per command; what several share is
//! in `settings` (where a configuration comes from), `target` (which server and app the tools speak to), `api_client`
//! (signed requests to it), `admin` (requests to its admin listener) and `url`.
//!
//! Standard output carries results only. Logs, notes and errors go to standard error.

mod admin;
mod api_client;
mod bench;
mod channels;
mod check;
mod dev;
mod error;
mod health;
mod listen;
mod logging;
mod nodes;
mod output;
mod serve;
mod settings;
mod show_config;
mod sign;
mod signals;
mod target;
mod terminate;
mod trigger;
mod url;
mod users;
mod webhooks;

use std::process::ExitCode;

use clap::Parser;

use error::CliError;

/// A self-hosted realtime server that speaks the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it, with no configuration at all:
  fanfare dev                                                 in one terminal
  fanfare listen my-channel                                   in a second one
  fanfare trigger my-channel my-event '{\"hello\":\"world\"}'     in a third one

In production:
  fanfare config --defaults > fanfare.toml                    then add an app
  fanfare check --config fanfare.toml
  fanfare serve --config fanfare.toml

Exit codes: 0 fine, 1 failure, 2 a mistake in the arguments or the configuration.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Run the server for development: one app, everything enabled, this machine only.
    Dev(dev::Args),
    /// Say everything that is wrong with a configuration, without starting anything.
    Check(check::Args),
    /// Print the effective configuration, or the commented defaults.
    Config(show_config::Args),
    /// Send an event to one or more channels.
    Trigger(trigger::Args),
    /// Show the occupied channels, or the state of one.
    Channels(channels::Args),
    /// Show who is in a presence channel.
    Users(users::Args),
    /// Close all connections of a signed-in user.
    Terminate(terminate::Args),
    /// Subscribe to channels and print events as they arrive.
    Listen(listen::Args),
    /// Make the answer of an authorization endpoint, for a channel or a user.
    Sign(sign::Args),
    /// Show webhooks that wait or failed, send them again, or send a test.
    Webhooks(webhooks::Args),
    /// Show the nodes of a cluster, as one of them sees it.
    Nodes(nodes::Args),
    /// Measure what a server makes of load: processor time, latency, memory, and whether every delivery is right.
    Bench(bench::Args),
    /// Ask a server whether it is ready; for container health checks.
    Health(health::Args),
}

impl Command {
    fn run(self) -> Result<(), CliError> {
        match self {
            Self::Serve(args) => args.run(),
            Self::Dev(args) => args.run(),
            Self::Check(args) => args.run(),
            Self::Config(args) => args.run(),
            Self::Trigger(args) => tool(args.run()),
            Self::Channels(args) => tool(args.run()),
            Self::Users(args) => tool(args.run()),
            Self::Terminate(args) => tool(args.run()),
            Self::Listen(args) => tool(args.run()),
            Self::Sign(args) => args.run(),
            Self::Webhooks(args) => tool(args.run()),
            Self::Nodes(args) => tool(args.run()),
            Self::Bench(args) => args.run(),
            Self::Health(args) => tool(args.run()),
        }
    }
}

/// Runs the program: everything `main` does.
pub fn run() -> ExitCode {
    // Wrong arguments end the process here, with usage on standard error and exit code 2.
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// Runs a tool that speaks to a server: one thread is plenty.
fn tool(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_flag_is_explained_and_every_command_shows_an_example() {
        let cli = Cli::command();
        assert!(cli.get_subcommands().count() > 0);
        for command in cli.get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says nothing");
            assert!(command.get_after_help().is_some_and(|help| help.to_string().contains("fanfare ")), "{name}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {argument}");
            }
        }
    }
}
