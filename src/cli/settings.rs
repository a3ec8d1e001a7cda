//! Where the commands that need a configuration get it from.

use std::path::PathBuf;

use crate::config::{Machine, Sources};
use crate::{Server, memory};

/// The flags that name the sources of a configuration.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// The configuration file.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Set one key, over file and environment, such as server.path_prefix=/realtime; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl SourceArgs {
    /// File, environment and command line; `flags` are settings that have a flag of their own, which wins over --set.
    pub(super) fn sources(self, flags: Vec<(String, String)>) -> Sources {
        let mut overrides = self.set;
        overrides.retain(|(key, _)| flags.iter().all(|(flag, _)| flag != key));
        overrides.extend(flags);
        Sources { file: self.config, env: environment(), overrides }
    }
}

/// The variables of this process: all of them, because a `secret_env` may name any.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// This machine, as a server finds it that is started with the limits of this process.
pub(super) fn machine(warns_of_defaults: bool) -> Machine {
    // As `serve` does, which tells if it fails.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    Machine { memory: memory::total(), connections: Server::most_connections(), warns_of_defaults }
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE such as server.path_prefix=/realtime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_equals_sign_separates() {
        assert_eq!(key_and_value("apps.0.secret=a=b").unwrap(), ("apps.0.secret".to_owned(), "a=b".to_owned()));
        assert!(key_and_value("server.listen").is_err());
        assert!(key_and_value("=x").is_err());
    }

    #[test]
    fn a_flag_wins_over_a_setting_of_the_same_key() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let args = SourceArgs { config: None, set: vec![pair("server.listen", "1"), pair("log.level", "debug")] };
        let overrides = args.sources(vec![pair("server.listen", "2")]).overrides;
        assert_eq!(overrides, [pair("log.level", "debug"), pair("server.listen", "2")]);
    }
}
