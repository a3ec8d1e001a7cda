//! Requests to the admin listener, for the tools that an operator uses on the server's own machine.

use std::path::PathBuf;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::Config;
use crate::config::Sources;

use super::api_client::{self, CallError};
use super::url::{BaseUrl, from_here};
use super::{CliError, settings};

/// The flags that name the admin listener.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The admin listener [default: http://127.0.0.1:9601, or where the configuration says]
    #[arg(long, value_name = "URL")]
    url: Option<BaseUrl>,
    /// The server's configuration file, which says where its admin listener is.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The admin listener of a server.
#[derive(Debug)]
pub(super) struct Admin(BaseUrl);

impl AdminArgs {
    /// What was given, else what the configuration says.
    pub(super) fn resolve(self) -> Result<Admin, CliError> {
        if let Some(url) = self.url {
            return Ok(Admin(url));
        }
        // The same sources as the server in the same container, so that the same address comes out.
        let sources = Sources { file: self.config, env: settings::environment(), overrides: Vec::new() };
        Ok(Admin(BaseUrl::plain(from_here(Config::load(&sources)?.config.admin.listen))))
    }
}

impl Admin {
    /// The text at a path.
    pub(super) async fn text(&self, path: &str) -> Result<String, CallError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// The JSON at a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.json(&self.text(path).await?)
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.json(&self.call(Method::POST, path, body.to_string().into()).await?)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<String, CallError> {
        let (status, answer) = api_client::request(method, &self.0.http(path), &self.0.to_string(), body).await?;
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        match status {
            _ if status.is_success() => Ok(text),
            // Anything else that is not found is the page itself.
            StatusCode::NOT_FOUND | StatusCode::CONFLICT if text.starts_with("no ") => Err(CallError::NotThere(text)),
            _ => Err(CallError::Refusal { status, text }),
        }
    }

    fn json(&self, text: &str) -> Result<Value, CallError> {
        serde_json::from_str(text).map_err(|_| CallError::NotTheApi(self.0.to_string()))
    }
}
