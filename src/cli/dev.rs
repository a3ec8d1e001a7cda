//! `fanfare dev`: a server that is ready before anything is configured, and what to paste where.

use std::net::SocketAddr;

use crate::Config;
use crate::config::{AppConfig, AuthConfig, Secret, Sources, WebhookConfig, WebhookEvent, is_url};

use super::logging::{self, LogArgs};
use super::serve::serve;
use super::url::BaseUrl;
use super::{CliError, output};

/// The app of `fanfare dev`, which the tools use unless told otherwise.
pub(super) const APP_ID: &str = "1001";
/// Its key.
pub(super) const APP_KEY: &str = "app-key";
/// Its secret: in every copy of the documentation, and so only good for this machine.
pub(super) const APP_SECRET: &str = "app-secret";
/// What its encrypted channels are made of: no more secret than the secret.
const MASTER_KEY: &str = "ZmFuZmFyZSBkZXY6IGV2ZXJ5Ym9keSBoYXMgdGhpcy4=";
/// Where it listens, which the tools use unless told otherwise.
pub(super) const PUBLIC: &str = "127.0.0.1:6001";

const EXAMPLES: &str = "\
Examples:
  fanfare dev
  fanfare dev --listen 127.0.0.1:8080
  fanfare dev --webhook http://127.0.0.1:3000/pusher/webhook

Prints settings to paste for pusher-js, Laravel, Node and Python. /pusher/auth
and /pusher/user-auth sign everything for everybody.
No configuration file and no FANFARE_ variable is read.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The address for clients and the HTTP API: a loopback one.
    #[arg(long, value_name = "ADDR", default_value = PUBLIC, value_parser = loopback)]
    listen: SocketAddr,
    /// The address for health checks and metrics: a loopback one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9601", value_parser = loopback)]
    admin_listen: SocketAddr,
    /// Where your backend is told what happens on its channels, about everything there is to tell; repeatable.
    #[arg(long = "webhook", value_name = "URL", value_parser = webhook)]
    webhooks: Vec<WebhookConfig>,
    #[command(flatten)]
    log: LogArgs,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        let log = Config::load(&Sources { overrides: self.log.overrides(), ..Sources::default() })?.config.log;
        logging::start(&log)?;
        let mut config = Config { log, ..Config::default() };
        config.server.listen = self.listen;
        config.admin.listen = self.admin_listen;
        // A try leaves nothing behind.
        config.webhooks.data_dir = None;
        config.apps = vec![AppConfig { webhooks: self.webhooks, ..app() }];
        serve(config, |address| output::line(banner(address, &program())))
    }
}

/// The app, with everything that can be switched on.
pub(super) fn app() -> AppConfig {
    AppConfig {
        client_events: true,
        subscription_counts: true,
        debug: true,
        encryption_master_key: Some(Secret::new(MASTER_KEY)),
        auth: AuthConfig { dev: true, ..AuthConfig::default() },
        ..AppConfig::new(APP_ID, APP_KEY, APP_SECRET)
    }
}

/// An endpoint that hears of everything.
fn webhook(url: &str) -> Result<WebhookConfig, &'static str> {
    match is_url(url) {
        true => {
            Ok(WebhookConfig { events: WebhookEvent::ALL.map(|(_, event)| event).to_vec(), ..WebhookConfig::new(url) })
        }
        false => Err("expected an http:// or https:// URL such as http://127.0.0.1:3000/pusher/webhook"),
    }
}

/// The credentials are public, so the server must not be.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address and a port such as 127.0.0.1:6001")?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("`fanfare dev` uses credentials that everybody knows and therefore listens on loopback addresses only; \
         use `fanfare serve` to be reachable from elsewhere"
        .to_owned())
}

/// How this program was called, so that the printed commands work in a terminal with the same working directory.
fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(char::is_whitespace)).unwrap_or_else(|| "fanfare".to_owned())
}

/// What to paste where. Each block stands between a line `=== Name ===` and the next such line, and works as it is.
fn banner(address: SocketAddr, program: &str) -> String {
    // Brackets around an IPv6 address: all of these build a URL from host and port.
    let host = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    let url = if address.to_string() == PUBLIC { String::new() } else { format!(" --url {}", BaseUrl::plain(address)) };
    TEMPLATE
        .replace("@HOST", &host)
        .replace("@PORT", &address.port().to_string())
        .replace("@ID", APP_ID)
        .replace("@KEY", APP_KEY)
        .replace("@SECRET", APP_SECRET)
        .replace("@MASTER", MASTER_KEY)
        .replace("@URL", &url)
        .replace("@FANFARE", program)
}

const TEMPLATE: &str = r#"Fanfare for development: http://@HOST:@PORT (app @ID). Ctrl-C stops it.

=== pusher-js ===
import Pusher from "pusher-js";

const pusher = new Pusher("@KEY", {
  wsHost: "@HOST",
  wsPort: @PORT,
  httpHost: "@HOST", // where WebSockets are blocked
  httpPort: @PORT,
  forceTLS: false,
  cluster: "mt1",
  // `fanfare dev` lets everybody do everything, as whoever they say they are. Without user_id you are a guest.
  channelAuthorization: { transport: "ajax", endpoint: "http://@HOST:@PORT/pusher/auth", params: { user_id: "ann" } },
  userAuthentication: { transport: "ajax", endpoint: "http://@HOST:@PORT/pusher/user-auth", params: { user_id: "ann" } },
});

pusher.subscribe("my-channel").bind("my-event", (data) => console.log(data));
pusher.subscribe("presence-my-room").bind("pusher:subscription_succeeded", ({ me }) => console.log("I am", me.id));
pusher.bind("pusher:signin_success", () => console.log("signed in"));
pusher.signin();

=== Laravel .env ===
BROADCAST_CONNECTION=pusher
PUSHER_APP_ID=@ID
PUSHER_APP_KEY=@KEY
PUSHER_APP_SECRET=@SECRET
PUSHER_HOST=@HOST
PUSHER_PORT=@PORT
PUSHER_SCHEME=http
PUSHER_APP_CLUSTER=mt1
VITE_PUSHER_APP_KEY="${PUSHER_APP_KEY}"
VITE_PUSHER_HOST="${PUSHER_HOST}"
VITE_PUSHER_PORT="${PUSHER_PORT}"
VITE_PUSHER_SCHEME="${PUSHER_SCHEME}"
VITE_PUSHER_APP_CLUSTER="${PUSHER_APP_CLUSTER}"

=== Node ===
const Pusher = require("pusher");

const pusher = new Pusher({
  appId: "@ID",
  key: "@KEY",
  secret: "@SECRET",
  host: "@HOST",
  port: @PORT,
  useTLS: false,
  encryptionMasterKeyBase64: "@MASTER", // for private-encrypted-… channels
});

pusher.trigger("my-channel", "my-event", { hello: "world" });

=== Python ===
import pusher

client = pusher.Pusher(
    app_id="@ID",
    key="@KEY",
    secret="@SECRET",
    host="@HOST",
    port=@PORT,
    ssl=False,
)

client.trigger("my-channel", "my-event", {"hello": "world"})

=== Try it, in two other terminals ===
@FANFARE listen my-channel@URL
@FANFARE trigger my-channel my-event '{"hello":"world"}'@URL
=== End ==="#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_know_the_demo_credentials() {
        assert!(loopback("127.0.0.1:0").is_ok());
        assert!(loopback("[::1]:6001").is_ok());
        for open in ["0.0.0.0:6001", "10.0.0.1:6001", "[::]:6001"] {
            assert!(loopback(open).unwrap_err().contains("fanfare serve"), "{open}");
        }
        assert!(loopback("localhost").unwrap_err().contains("127.0.0.1:6001"));
    }

    #[test]
    fn the_banner_names_the_bound_address_and_leaves_no_blank() {
        let text = banner("127.0.0.1:40123".parse().unwrap(), "fanfare");
        assert!(text.contains("wsPort: 40123") && text.contains("--url http://127.0.0.1:40123"), "{text}");
        assert!(!text.contains('@'), "{text}");
    }

    #[test]
    fn at_the_usual_address_the_commands_need_no_url() {
        assert!(!banner(PUBLIC.parse().unwrap(), "fanfare").contains("--url"));
        assert!(banner("[::1]:6001".parse().unwrap(), "fanfare").contains("wsHost: \"[::1]\""));
    }
}
