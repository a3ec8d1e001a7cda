//! `fanfare serve`: from a configuration to a running server, and in order back to nothing.

use std::net::SocketAddr;

use tracing::{info, warn};

use crate::{Config, Server};

use super::CliError;
use super::logging::{self, LogArgs};
use super::settings::{SourceArgs, machine};
use super::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  fanfare serve --config /etc/fanfare.toml
  fanfare serve --config fanfare.toml --listen 127.0.0.1:8080 --log-format json
  fanfare serve --config fanfare.toml --set server.path_prefix=/realtime
  FANFARE_APPS_0_ID=1001 FANFARE_APPS_0_KEY=KEY FANFARE_APPS_0_SECRET=SECRET fanfare serve

The command line wins over FANFARE_ variables, these over the file, and the
file over the defaults. SIGTERM or Ctrl-C stops it in order: clients are told
to reconnect. A second one ends it at once.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// The public address, for clients and the HTTP API; the same as --set server.listen=ADDR.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The private address, for health checks and metrics; the same as --set admin.listen=ADDR.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        let mut flags = self.log.overrides();
        flags.extend(self.listen.map(|address| ("server.listen".to_owned(), address)));
        flags.extend(self.admin_listen.map(|address| ("admin.listen".to_owned(), address)));
        let loaded = Config::load_for_server(&self.sources.sources(flags), &machine(false))?;
        logging::start(&loaded.config.log)?;
        for warning in loaded.warnings {
            warn!("{warning}");
        }
        serve(loaded.config, |_| Ok(()))
    }
}

/// Binds, runs and drains a server; `bound` is called in between, when its public address is known.
///
/// # Errors
/// A port is taken, a certificate cannot be read, or `bound` failed.
pub(super) fn serve(config: Config, bound: impl FnOnce(SocketAddr) -> Result<(), CliError>) -> Result<(), CliError> {
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(async {
        let signals = Signals::catch()?;
        let server = Server::bind(config).await?;
        bound(server.local_addr())?;
        server.run(stop_on(signals)).await;
        Ok(())
    })
}

/// Returns at the first signal. The second one finds somebody who does not want to wait for the drain.
async fn stop_on(mut signals: Signals) {
    let signal = signals.next().await;
    info!(signal, "asked to stop; a second signal ends the process at once");
    tokio::spawn(async move {
        let signal = signals.next().await;
        warn!(signal, "ending at once");
        std::process::exit(1);
    });
}

/// Every connection is an open file, and the usual soft limit of 1,024 is no place for a server.
fn raise_open_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => info!(limit, "open files this process may have"),
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}
