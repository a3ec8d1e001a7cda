//! `fanfare health`: is a server ready for clients? For container health checks, where no other tool may be installed.

use std::path::PathBuf;

use bytes::Bytes;
use hyper::Method;

use crate::Config;
use crate::config::Sources;

use super::api_client::{self, CallError};
use super::url::{BaseUrl, from_here};
use super::{CliError, output, settings};

const EXAMPLES: &str = "\
Examples:
  fanfare health
  fanfare health --url http://10.0.0.5:9601
  HEALTHCHECK CMD [\"fanfare\", \"health\"]                      in a Dockerfile

Exit code 0: ready. 1: not ready, or not reachable.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The admin listener [default: http://127.0.0.1:9601, or where the configuration says]
    #[arg(long, value_name = "URL")]
    url: Option<BaseUrl>,
    /// The server's configuration file, which says where its admin listener is.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let url = match self.url {
            Some(url) => url,
            // The same sources as the server in the same container, so that the same address comes out.
            None => {
                let sources = Sources { file: self.config, env: settings::environment(), overrides: Vec::new() };
                BaseUrl::plain(from_here(Config::load(&sources)?.config.admin.listen))
            }
        };
        let (status, answer) =
            api_client::request(Method::GET, &url.http("/ready"), &url.to_string(), Bytes::new()).await?;
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        if !status.is_success() {
            return Err(CallError::Refusal { status, text }.into());
        }
        output::line("ready")
    }
}
