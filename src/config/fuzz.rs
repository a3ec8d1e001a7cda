//! Configurations out of any three sources. See [`crate::fuzzing`].

use super::layers::Layers;
use super::rule::MASK;
use super::{AppConfig, Config, ConfigError, Loaded};

/// What stands for the file in messages.
const FILE: &str = "fuzz.toml";

/// A secret of every kind: long enough, and 32 bytes in base64.
const SECRET: &str = "aHVudGVyMi1odW50ZXIyLWh1bnRlcjItaHVudGVyMi0=";

/// The input: lines of the file, `$ NAME=VALUE` for the environment and `--set KEY=VALUE` for the command line among them.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Devices may have no end; and what a secret looks like must be in nothing else.
    let refused = ["/dev", "/proc", "/sys", MASK, SECRET];
    if refused.iter().any(|refused| text.contains(refused)) {
        return;
    }
    let (mut file, mut env, mut overrides) = (String::new(), Vec::new(), Vec::new());
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        if let Some(variable) = bare.strip_prefix("$ ") {
            env.extend(pair(variable));
        } else if let Some(setting) = bare.strip_prefix("--set ") {
            overrides.extend(pair(setting));
        } else {
            file += line;
        }
    }
    if file.contains("[[apps]]") {
        env.push(("FANFARE_APPS_0_SECRET".to_owned(), SECRET.to_owned()));
    }
    match load(&file, env, overrides) {
        Ok(Loaded { config, warnings }) => {
            assert!(warnings.iter().all(|warning| is_about_a_setting(warning)), "{warnings:#?}");
            settles(&config);
        }
        Err(ConfigError { mistakes, warnings }) => {
            assert!(!mistakes.is_empty());
            assert!(
                mistakes.iter().chain(&warnings).all(|line| is_about_a_setting(line)),
                "{mistakes:#?} {warnings:#?}"
            );
        }
    }
}

/// What is printed, loads, with secrets put in, as what is printed again.
fn settles(config: &Config) {
    let printed = config.to_toml();
    assert!(!printed.contains(SECRET), "{printed}");
    let again = match load(&printed.replace(MASK, SECRET), Vec::new(), Vec::new()) {
        Ok(Loaded { config, .. }) => config,
        Err(error) => panic!("what was printed does not load:\n{error}\n{printed}"),
    };
    assert_eq!(again.to_toml(), printed);
    // All that is not secret is the same.
    assert_eq!((&again.server, &again.fallbacks, &again.admin), (&config.server, &config.fallbacks, &config.admin));
    assert_eq!((&again.log, &again.webhooks), (&config.log, &config.webhooks));
    assert_eq!(again.apps.len(), config.apps.len());
    for (app, again) in config.apps.iter().zip(&again.apps) {
        let plain = |app: &AppConfig| (app.id.clone(), app.limits.clone(), app.allowed_origins.clone());
        assert_eq!(plain(app), plain(again));
    }
}

fn load(file: &str, env: Vec<(String, String)>, overrides: Vec<(String, String)>) -> Result<Loaded, ConfigError> {
    let layers = Layers::of_text(FILE, file, &env, &overrides)
        .map_err(|mistakes| ConfigError { mistakes, warnings: Vec::new() })?;
    Config::of_layers(&layers, None)
}

/// Whether a message is one line that begins with the place of a setting, has something to say about it, and shows no secret.
fn is_about_a_setting(message: &str) -> bool {
    const TABLES: [&str; 8] = ["server", "fallbacks", "admin", "webhooks", "cluster", "log", "apps", "app_defaults"];
    let Some((place, text)) = message.split_once(": ") else { return false };
    let is_number = |text: &str| text.parse::<usize>().is_ok_and(|number| number > 0);
    let begins = |table: &&str| place.strip_prefix(*table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let has_place = match place.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(':')) {
        Some(numbers) => numbers.split(':').all(is_number),
        None => place.starts_with("FANFARE_") || place.starts_with("--set ") || TABLES.iter().any(begins),
    };
    has_place && text.len() > 3 && !message.contains('\n') && !message.contains(SECRET)
}
