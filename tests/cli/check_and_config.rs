//! `fanfare check` and `fanfare config`, and the configuration that the manual shows.

use std::fs;
use std::path::Path;

use crate::support::{APP, Folder, Server, fanfare};

fn repository(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn the_defaults_are_printed_as_they_are_in_the_repository_whatever_is_configured() {
    let expected = repository("config/default.toml");
    let broken = [("FANFARE_SERVER_LISTEN", "!"), ("FANFARE_CONFIG", "/nowhere")];
    assert_eq!(fanfare(&["config", "--defaults"]).run().succeeded(), expected);
    assert_eq!(fanfare(&["config", "--defaults"]).envs(&broken).run().succeeded(), expected);
}

#[test]
fn the_printed_defaults_are_a_file_to_start_from() {
    let folder = Folder::new();
    let defaults = fanfare(&["config", "--defaults"]).run();
    let file = folder.write("fanfare.toml", format!("{}{APP}", defaults.succeeded()));
    assert_eq!(fanfare(&["check", "--config", &file]).run().succeeded(), format!("{file}: ok (1 app)\n"));
}

#[test]
fn the_printed_configuration_is_what_all_sources_make_together() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("[server]\npath_prefix = \"/file\"\nmax_connections = 7\n{APP}"));
    let output = fanfare(&["config", "--config", &file, "--set", "server.drain_period=90s"])
        .env("FANFARE_SERVER_PATH_PREFIX", "/env")
        .env("FANFARE_APP_DEFAULTS_CLIENT_EVENTS", "true")
        .run();
    let printed: Vec<&str> = output.succeeded().lines().collect();
    let expected = [
        "listen = \"0.0.0.0:6001\"",
        "path_prefix = \"/env\"",
        "max_connections = 7",
        "drain_period = \"90s\"",
        "id = \"1\"",
        "key = \"file-key\"",
        "secret = \"********\"",
        "client_events = true",
        "channel_name_length = 164",
    ];
    for line in expected {
        assert!(printed.contains(&line), "no {line} in {output}");
    }
}

#[test]
fn the_printed_configuration_loads_again_once_the_secrets_are_put_in() {
    let folder = Folder::new();
    let text = "[server]\npath_prefix = \"/rt\"\nrequest_timeout = \"1500ms\"\n[app_defaults]\nallowed_origins = [\"*\"]\n\
                [app_defaults.limits]\nevent_data = 12345\n";
    let rotated = "[[apps.keys]]\nkey = \"next\"\nsecret = \"next-secret\"\n";
    let second = "[[apps]]\nid = \"2\"\nkey = \"k2\"\nsecret = \"s2\"\n";
    let original = folder.write("original.toml", format!("{text}{APP}{rotated}{second}"));
    let first = fanfare(&["config", "--config", &original]).run();
    let printed = first.succeeded();
    assert_eq!(printed.matches("\"********\"").count(), 3, "{first}");

    let masked = folder.write("masked.toml", printed);
    let refused = fanfare(&["check", "--config", &masked]).run();
    assert_eq!(refused.failed(2).matches("secret: the mask of a printed configuration").count(), 3, "{refused}");

    let filled = folder.write("filled.toml", printed.replace("********", "a secret"));
    assert_eq!(fanfare(&["check", "--config", &filled]).run().succeeded(), format!("{filled}: ok (2 apps)\n"));
    assert_eq!(fanfare(&["config", "--config", &filled]).run().succeeded(), printed);
}

#[test]
fn a_configuration_without_apps_can_be_printed_but_not_checked() {
    assert!(fanfare(&["config"]).run().succeeded().starts_with("[server]\n"));
    assert!(fanfare(&["check"]).run().failed(2).contains("apps: there is none"));
}

#[test]
fn an_environment_can_be_checked_without_a_file() {
    let env = [("FANFARE_APPS_0_ID", "1"), ("FANFARE_APPS_0_KEY", "k"), ("FANFARE_APPS_0_SECRET", "s")];
    assert_eq!(fanfare(&["check"]).envs(&env).run().succeeded(), "environment: ok (1 app)\n");
    let unknown = fanfare(&["check"]).envs(&env).env("FANFARE_APPS_0_LIMIT", "1").run();
    assert!(unknown.failed(2).starts_with("FANFARE_APPS_0_LIMIT: unknown variable"), "{unknown}");
}

#[test]
fn the_configuration_that_the_readme_shows_is_a_good_one() {
    let readme = repository("README.md");
    let (_, block) = readme.split_once("```toml\n").expect("README.md shows a configuration");
    let (block, _) = block.split_once("```").unwrap();
    let folder = Folder::new();
    let secret = folder.write("secret", "the secret\n");
    assert_eq!(block.matches("\"/run/secrets/fanfare\"").count(), 1, "{block}");
    let file = folder.write("fanfare.toml", block.replace("/run/secrets/fanfare", &secret));
    let output = fanfare(&["check", "--config", &file]).run();
    assert_eq!((output.succeeded(), output.stderr.as_str()), (&*format!("{file}: ok (1 app)\n"), ""));
    // Without the file it is not: the path counts.
    let file = folder.write("without.toml", block.replace("/run/secrets/fanfare", &folder.path("missing")));
    assert!(
        fanfare(&["check", "--config", &file]).run().failed(2).contains("apps.0.secret_file: the file cannot be read")
    );
}

#[test]
fn the_readme_names_the_variables_that_make_an_app() {
    let readme = repository("README.md");
    let variables = ["FANFARE_APPS_0_ID=1001", "FANFARE_APPS_0_KEY=…", "FANFARE_APPS_0_SECRET=…"];
    assert!(readme.contains(&format!("{} fanfare serve", variables.join(" "))));
    let given = |variable: &'static str| (variable.split_once('=').unwrap().0, "1001");
    let args = ["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"];
    Server::start(fanfare(&args).envs(&variables.map(given))).connect("1001");
}
