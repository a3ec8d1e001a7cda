//! Loading as a whole: what the sources say, and what comes out.

mod auth;
mod between;
mod cluster;
mod default_file;
mod layers;
mod mistakes;
mod printing;
mod webhooks;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::layers::env_name;
use super::rule::MASK;
use super::schema::all_keys;
use super::{
    AppConfig, ClusterConfig, ClusterDriver, Config, ConfigError, DEFAULT_TOML, ForwardConfig, JwtAlgorithm, JwtConfig,
    KeyPair, Loaded, LogFormat, Machine, OnGap, Secret, Sources, TlsConfig, Topology, WebhookConfig, WebhookEvent,
};

const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";

/// A file that is removed with the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanfare-config-{}-{number}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn load_all(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let file = TempFile::new(file);
    let loaded = Config::load(&Sources { file: Some(file.0.clone()), env: pairs(env), overrides: pairs(overrides) });
    let short = |line: String| line.replace(file.name(), "fanfare.toml");
    match loaded {
        Ok(Loaded { config, warnings }) => Ok(Loaded { config, warnings: warnings.into_iter().map(short).collect() }),
        Err(ConfigError { mistakes, warnings }) => {
            let [mistakes, warnings] = [mistakes, warnings].map(|lines| lines.into_iter().map(short).collect());
            Err(ConfigError { mistakes, warnings })
        }
    }
}

fn load(file: &str) -> Config {
    load_all(file, &[], &[]).unwrap().config
}

fn mistakes(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Vec<String> {
    let mistakes = load_all(file, env, overrides).expect_err("a mistake must be found").mistakes;
    assert!(mistakes.iter().all(|line| !line.contains('\n')), "{mistakes:#?}");
    mistakes
}

#[track_caller]
fn assert_mistakes(file: &str, expected: &[&str]) {
    assert_eq!(mistakes(file, &[], &[]), expected);
}

/// What keeps a server from starting with this file.
fn obstacles(file: &str, overrides: &[(&str, &str)]) -> Vec<String> {
    let file = TempFile::new(file);
    let overrides = overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let sources = Sources { file: Some(file.0.clone()), env: Vec::new(), overrides };
    let mistakes =
        Config::load_for_server(&sources, &Machine::default()).map_or_else(|error| error.mistakes, |_| Vec::new());
    mistakes.into_iter().map(|line| line.replace(file.name(), "fanfare.toml")).collect()
}
