//! `fanfare check` and `fanfare config`, and the configuration that the manual shows.

use std::fs;
use std::path::Path;

use crate::support::{APP, Fanfare, Folder, LISTENERS, Server, fanfare, pem};

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
    let secret = folder.write("secret", "the output of openssl rand\n");
    assert_eq!(block.matches("\"/run/secrets/fanfare\"").count(), 1, "{block}");
    let file = folder.write("fanfare.toml", block.replace("/run/secrets/fanfare", &secret));
    let output = Fanfare::check(&["--config", &file]).run();
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

/// What `check` warns of, without the word.
fn warnings(args: &[&str]) -> Vec<String> {
    let output = Fanfare::check(args).run();
    output.succeeded();
    let warning = |line: &str| line.strip_prefix("warning: ").expect("nothing but warnings").to_owned();
    output.stderr.lines().map(warning).collect()
}

#[test]
fn a_file_with_secrets_that_everybody_can_read_brings_a_warning() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", APP);
    assert_eq!(warnings(&["--config", &file]), Vec::<String>::new());
    folder.chmod("fanfare.toml", 0o644);
    let found = warnings(&["--config", &file]);
    let expected =
        format!("{file}:4: apps.0.secret: the file has secrets in it, and every user of this machine can read it");
    assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:#?}");
    // Other commands have nothing to do with it.
    assert_eq!(fanfare(&["config", "--config", &file]).run().stderr, "");

    // The secrets are somewhere else.
    let secret = folder.write("secret", "the output of openssl rand");
    folder.write("elsewhere.toml", format!("[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = {secret:?}\n"));
    folder.chmod("elsewhere.toml", 0o644);
    assert_eq!(warnings(&["--config", &folder.path("elsewhere.toml")]), Vec::<String>::new());
    let tokens = format!("{APP}[apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret = \"{}\"\n", "x".repeat(32));
    let demo = tokens.replace("the-secret-of-the-file", "app-secret");
    folder.write("demo.toml", demo);
    folder.chmod("demo.toml", 0o644);
    let found = warnings(&["--config", &folder.path("demo.toml"), "--set", "server.listen=127.0.0.1:6001"]);
    assert!(found.len() == 1 && found[0].contains(":7: apps.0.auth.jwt.secret: the file has secrets"), "{found:#?}");
}

#[test]
fn every_file_with_a_secret_that_everybody_can_read_brings_a_warning() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = folder.write("tls.crt", pem("CERTIFICATE", made.cert.der()));
    let key = folder.write("tls.key", pem("PRIVATE KEY", &made.signing_key.serialize_der()));
    let long = "0123456789abcdef0123456789abcdef";
    let [app, next, jwt, redis, sentinel] =
        ["app", "next", "jwt", "redis", "sentinel"].map(|name| folder.write(name, long));
    let master = folder.write("master", "ZmFuZmFyZSBkZXY6IGV2ZXJ5Ym9keSBoYXMgdGhpcy4=");
    let text = format!(
        "[server.tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n\
         [cluster]\npassword_file = {redis:?}\nsentinel_password_file = {sentinel:?}\n\
         [[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = {app:?}\nencryption_master_key_file = {master:?}\n\
         [[apps.keys]]\nkey = \"next\"\nsecret_file = {next:?}\n\
         [apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret_file = {jwt:?}\n"
    );
    let file = folder.write("fanfare.toml", text);
    // What is no secret may be read by everybody, and so may the configuration then.
    folder.chmod("tls.crt", 0o644);
    folder.chmod("fanfare.toml", 0o644);
    folder.chmod("app", 0o640);
    assert_eq!(warnings(&["--config", &file]), Vec::<String>::new());
    for (name, place) in [
        ("tls.key", "3: server.tls.private_key"),
        ("redis", "5: cluster.password_file"),
        ("sentinel", "6: cluster.sentinel_password_file"),
        ("app", "10: apps.0.secret_file"),
        ("master", "11: apps.0.encryption_master_key_file"),
        ("next", "14: apps.0.keys.0.secret_file"),
        ("jwt", "17: apps.0.auth.jwt.secret_file"),
    ] {
        folder.chmod(name, 0o604);
        let secret = folder.path(name);
        let expected = format!(
            "{file}:{place}: every user of this machine can read {secret:?}, which has a secret in it; chmod o-r"
        );
        assert_eq!(warnings(&["--config", &file]), [expected]);
        folder.chmod(name, 0o600);
    }
    // A password in a URL is one, too.
    let url = folder.write("url.toml", format!("{APP}[cluster]\nurls = [\"redis://:hunter2@redis.example\"]\n"));
    folder.chmod("url.toml", 0o644);
    let secret = format!("apps.0.secret_file={app}");
    let args = ["--config", &url, "--set", &secret];
    let found = warnings(&args);
    assert!(found.len() == 1 && found[0].starts_with(&format!("{url}:4: apps.0.secret: the file has ")), "{found:#?}");
    folder.write("url.toml", fs::read_to_string(&url).unwrap().replace("secret = \"the-secret-of-the-file\"\n", ""));
    folder.chmod("url.toml", 0o644);
    let found = warnings(&args);
    assert!(found.len() == 1 && found[0].starts_with(&format!("{url}:5: cluster.urls: the file has ")), "{found:#?}");
}

#[test]
fn a_warning_about_a_secret_names_the_source_that_it_came_from() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", APP);
    let short = folder.write("short", "hunter2\n");
    let other = folder.write("other.toml", APP.replace("the-secret-of-the-file", "hunter2"));
    let set = format!("apps.0.secret_file={short}");
    let assert_named = |config: &str, env: &[(&str, &str)], args: &[&str], place: &str| {
        let output = Fanfare::check(&[&["--config", config], args].concat()).envs(env).run();
        output.succeeded();
        let expected = format!("warning: {place}: shorter than 16 characters");
        assert!(output.stderr.starts_with(&expected) && output.stderr.lines().count() == 1, "{expected}\n{output}");
    };
    assert_named(&file, &[], &["--set", &set], "--set apps.0.secret_file");
    assert_named(&file, &[("FANFARE_APPS_0_SECRET_FILE", &short)], &[], "FANFARE_APPS_0_SECRET_FILE");
    let variables = [("FANFARE_APPS_0_SECRET_ENV", "SHORT"), ("SHORT", "hunter2")];
    assert_named(&file, &variables, &[], "FANFARE_APPS_0_SECRET_ENV");
    assert_named(&file, &variables, &["--set", "apps.0.secret=hunter3"], "--set apps.0.secret");
    assert_named(&other, &[], &[], &format!("{other}:4: apps.0.secret"));
    // A file that everybody can read is the one with the secrets, whatever replaces them.
    folder.chmod("fanfare.toml", 0o644);
    let long = [("FANFARE_APPS_0_SECRET", "0123456789abcdef")];
    let output = fanfare(&["check", "--config", &file]).envs(&long).run();
    assert!(output.stderr.starts_with(&format!("warning: {file}:4: apps.0.secret: the file has secrets")), "{output}");
}

#[test]
fn a_short_secret_brings_a_warning_that_does_not_show_it() {
    let folder = Folder::new();
    let short = "[[apps.keys]]\nkey = \"next\"\nsecret = \"hunter2\"\n";
    let file = folder.write("fanfare.toml", format!("{APP}{short}"));
    let found = warnings(&["--config", &file]);
    assert!(found.len() == 1 && found[0].contains("apps.0.keys.0.secret: shorter than 16 characters"), "{found:#?}");
    assert!(!found[0].contains("hunter2"), "{found:#?}");
    // That of the examples stays on this machine.
    let demo = folder.write("demo.toml", APP.replace("the-secret-of-the-file", "app-secret"));
    assert_eq!(warnings(&["--config", &demo, "--set", "server.listen=127.0.0.1:6001"]), Vec::<String>::new());
}

#[test]
fn an_admin_listener_that_others_reach_brings_a_warning() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", APP);
    let with = |address: &str| warnings(&["--config", &file, "--set", &format!("admin.listen={address}")]);
    for address in ["127.0.0.1:9601", "[::1]:9601", "10.0.0.5:9601", "[fd00::1]:9601"] {
        assert_eq!(with(address), Vec::<String>::new(), "{address}");
    }
    for address in ["0.0.0.0:9601", "[::]:9601", "1.1.1.1:9601", "[::ffff:1.1.1.1]:9601"] {
        let found = with(address);
        assert!(found.len() == 1 && found[0].starts_with("--set admin.listen: "), "{address}: {found:#?}");
    }
}

#[test]
fn limits_that_come_to_more_than_the_memory_bring_a_warning() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", APP);
    let found = warnings(&["--config", &file, "--set", "server.max_connections=10000000"]);
    assert!(found.len() == 1 && found[0].starts_with("the limits come to "), "{found:#?}");
    assert!(found[0].contains("for 10000000 connections (server.max_connections or limits.connections;"), "{found:#?}");
    let found = warnings(&["--config", &file, "--set", "server.subscription_memory=1024 GiB"]);
    assert!(found.len() == 1 && found[0].contains("1024.0 GiB for subscriptions"), "{found:#?}");
}

#[test]
fn limits_that_fit_one_by_one_but_not_together_bring_one_warning_that_names_them_all() {
    let folder = Folder::new();
    let webhook = "[[apps.webhooks]]\nurl = \"http://127.0.0.1:1/\"\n";
    let file = folder.write("fanfare.toml", format!("{APP}{webhook}"));
    let Some(memory) = fanfare::memory::total() else { return };
    // Six tenths of it, and what one connection may have waiting.
    let (most, each) = (memory / 10 * 6, (1024 + 64 + 2 * 256) * 1024);
    let connections = format!("server.max_connections={}", most / each);
    let subscriptions = format!("server.subscription_memory={most}");
    let found = warnings(&["--config", &file, "--set", &connections, "--set", &subscriptions]);
    let [found] = &found[..] else { panic!("not one warning: {found:#?}") };
    let connections = format!(" for {} connections (", most / each);
    for part in [
        &*connections,
        " for subscriptions (server.subscription_memory)",
        " for request bodies (server.body_memory)",
        " for cached events (limits.cache_size of every app)",
        " for webhooks (webhooks.max_pending of every endpoint, max_unwritten)",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn without_a_configured_number_as_many_connections_count_as_the_open_file_limit_allows() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}[apps.limits]\noutbox = \"1 GiB\"\n"));
    let expected = "for 896 connections (as many as the open-file limit allows, because server.max_connections is 0;";
    let checked = Fanfare::with_open_files(1024, &["check", "--config", &file]).run();
    checked.succeeded();
    assert!(
        checked.stderr.starts_with("warning: the limits come to ") && checked.stderr.contains(expected),
        "{checked}"
    );
    assert_eq!(checked.stderr.lines().count(), 1, "{checked}");
    let mut server = Fanfare::with_open_files(1024, &["serve", "--config", &file]).start();
    assert!(server.expect_err("the limits come to ").contains(expected), "{server}");
    server.expect_err("listening");
    // The limit is what it can be raised to, and `serve` raises it.
    let soft = Fanfare::typed(&format!("sh -c 'ulimit -Sn 128; exec fanfare check --config {file}'")).run();
    soft.succeeded();
    assert!(soft.stderr.contains("as many as the open-file limit allows"), "{soft}");
    assert!(!soft.stderr.contains("for 64 connections"), "{soft}");
}

#[test]
fn a_server_with_nothing_but_defaults_is_quiet_about_memory() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    for server in [Server::start(fanfare(&["serve", "--config", &file])), Server::dev()] {
        let log = server.stop().stderr;
        assert!(!log.contains("of memory"), "{log}");
    }
}
