//! `fanfare health`: is a server ready for clients? For container health checks, where no other tool may be installed.

use super::admin::AdminArgs;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  fanfare health
  fanfare health --url http://10.0.0.5:9601
  HEALTHCHECK CMD [\"fanfare\", \"health\"]                      in a Dockerfile

Exit code 0: ready. 1: not ready, or not reachable.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        self.admin.resolve()?.text("/ready").await?;
        output::line("ready")
    }
}
