//! Which server and which app the tools speak to. With nothing said, that is `fanfare dev`.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::Config;
use crate::config::{AppConfig, MasterKey, Secret, Sources};

use super::url::BaseUrl;
use super::{CliError, dev, settings};

/// The flags that name a server and an app.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server and app")]
pub(super) struct TargetArgs {
    /// The server, with its path prefix if it has one [default: http://127.0.0.1:6001, or where the configuration
    /// listens]
    #[arg(long, env = "FANFARE_URL", value_name = "URL")]
    url: Option<BaseUrl>,
    /// The app [default: 1001, or the only one of the configuration]
    #[arg(long, env = "FANFARE_APP_ID", value_name = "ID")]
    app_id: Option<String>,
    /// The app's key [default: app-key, or from the configuration]
    #[arg(long, env = "FANFARE_APP_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// The app's secret; better in the variable, which other users of this machine cannot see [default: app-secret, or
    /// from the configuration]
    #[arg(long, env = "FANFARE_APP_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = secret)]
    secret: Option<Secret>,
    /// Take the credentials from the server's own configuration file.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A server, an app, and the right to speak for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Where the server is.
    pub(super) url: BaseUrl,
    /// The app's id.
    pub(super) app_id: String,
    /// One of its keys.
    pub(super) key: String,
    /// The secret that belongs to the key.
    pub(super) secret: Secret,
    /// What the keys of the app's encrypted channels are made of, if that is known.
    pub(super) master_key: Option<MasterKey>,
}

impl TargetArgs {
    /// What was given, else what the configuration says, else what `fanfare dev` uses.
    pub(super) fn resolve(self) -> Result<Target, CliError> {
        let config = self.configuration()?;
        let configured_url = config.as_ref().map(|config| BaseUrl::of_listener(&config.server));
        let dev_url = || BaseUrl::plain(dev::PUBLIC.parse().expect("a constant address"));
        let url = self.url.or(configured_url).unwrap_or_else(dev_url);
        let (app_id, key, secret, master_key) = match (config, self.key, self.secret) {
            (Some(config), key, secret) if key.is_none() || secret.is_none() => {
                let (app, pair) = choose(&config.apps, self.app_id.as_deref(), key.as_deref())?;
                (app.id.clone(), pair.key.clone(), secret.unwrap_or_else(|| pair.secret.clone()), app.master_key())
            }
            (_, key, secret) => {
                // Credentials of another app do not go with the key of this one.
                let master_key = if key.is_none() && secret.is_none() { dev::app().master_key() } else { None };
                let key = key.unwrap_or_else(|| dev::APP_KEY.to_owned());
                let secret = secret.unwrap_or_else(|| Secret::new(dev::APP_SECRET));
                (self.app_id.unwrap_or_else(|| dev::APP_ID.to_owned()), key, secret, master_key)
            }
        };
        Ok(Target { url, app_id, key, secret, master_key })
    }

    /// The server's configuration, if a file was named or the apps stand in the environment, as in a container.
    fn configuration(&self) -> Result<Option<Config>, CliError> {
        let env = settings::environment();
        if self.config.is_none() && env.iter().all(|(name, _)| !name.starts_with("FANFARE_APPS_")) {
            return Ok(None);
        }
        let sources = Sources { file: self.config.clone(), env, overrides: Vec::new() };
        Ok(Some(Config::load(&sources)?.config))
    }
}

/// The app with this id and this key, and the pair with this key; unless named, its newest one.
fn choose<'a>(
    apps: &'a [AppConfig],
    id: Option<&str>,
    key: Option<&str>,
) -> Result<(&'a AppConfig, &'a crate::config::KeyPair), CliError> {
    let has_key = |app: &AppConfig| key.is_none_or(|key| app.keys.iter().any(|pair| pair.key == key));
    let mut fitting = apps.iter().filter(|app| id.is_none_or(|id| app.id == id) && has_key(app));
    let known = || apps.iter().map(|app| app.id.as_str()).collect::<Vec<_>>().join(", ");
    let app = match (fitting.next(), fitting.next()) {
        (Some(app), None) => app,
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(format!("choose one of the configured apps with --app-id: {}", known())));
        }
        (None, _) if apps.is_empty() => return Err(CliError::Usage("the configuration has no apps".to_owned())),
        (None, _) => {
            let wanted = [id.map(|id| format!("the id {id}")), key.map(|key| format!("the key {key}"))];
            let wanted = wanted.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            return Err(CliError::Usage(format!("no configured app has {wanted}; the apps are: {}", known())));
        }
    };
    let pair = app.keys.iter().rfind(|pair| key.is_none_or(|key| pair.key == key)).expect("an app has keys");
    Ok((app, pair))
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyPair;

    fn apps() -> Vec<AppConfig> {
        let mut rotated = AppConfig::new("2", "old", "old-secret");
        rotated.keys.push(KeyPair { key: "new".to_owned(), secret: Secret::new("new-secret") });
        vec![AppConfig::new("1", "one", "one-secret"), rotated]
    }

    #[test]
    fn an_app_is_chosen_by_id_or_by_key_and_speaks_with_its_newest_key() {
        let apps = apps();
        let chosen = |id, key| choose(&apps, id, key).map(|(app, pair)| (app.id.as_str(), pair.key.as_str())).unwrap();
        assert_eq!(chosen(Some("1"), None), ("1", "one"));
        assert_eq!(chosen(Some("2"), None), ("2", "new"));
        assert_eq!(chosen(None, Some("old")), ("2", "old"));
        assert_eq!(choose(&apps[..1], None, None).unwrap().0.id, "1");
    }

    #[test]
    fn a_choice_that_cannot_be_made_names_the_apps() {
        let apps = apps();
        for (id, key) in [(None, None), (Some("3"), None), (Some("1"), Some("old"))] {
            let refused = choose(&apps, id, key).unwrap_err().to_string();
            assert!(refused.contains("1, 2"), "{refused}");
        }
        assert!(choose(&[], None, None).is_err());
    }
}
