//! `fanfare serve`: where its settings come from, and which of them wins.

use crate::support::{APP, Client, Folder, LISTENERS, Server, fanfare, pem};

/// The settings of a whole server, as an environment has them.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("FANFARE_SERVER_LISTEN", "127.0.0.1:0"),
    ("FANFARE_ADMIN_LISTEN", "127.0.0.1:0"),
    ("FANFARE_LOG_FORMAT", "json"),
    ("FANFARE_APPS_0_ID", "2"),
    ("FANFARE_APPS_0_KEY", "env-key"),
    ("FANFARE_APPS_0_SECRET", "env-secret"),
];

#[test]
fn a_file_is_enough() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    Server::start(fanfare(&["serve", "--config", &file])).connect("file-key");
}

#[test]
fn a_variable_can_name_the_file() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    Server::start(fanfare(&["serve"]).env("FANFARE_CONFIG", &file)).connect("file-key");
    // The flag wins.
    let named = fanfare(&["serve", "--config", &file]).env("FANFARE_CONFIG", "/nowhere/fanfare.toml");
    Server::start(named).connect("file-key");
}

#[test]
fn the_environment_is_enough() {
    Server::start(fanfare(&["serve"]).envs(&ENVIRONMENT)).connect("env-key");
}

#[test]
fn the_command_line_is_enough() {
    let args = [
        "serve",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--log-format=json",
        "--set=apps.0.id=3",
        "--set=apps.0.key=set-key",
        "--set=apps.0.secret=set-secret",
    ];
    Server::start(fanfare(&args)).connect("set-key");
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default() {
    let folder = Folder::new();
    // Every layer listens on a loopback address of its own, and its app has a timeout of its own.
    let layer = |digit: char| (format!("127.0.0.{digit}:0"), format!("{digit}0s"));
    let ((file_address, file_time), (env_address, env_time)) = (layer('2'), layer('3'));
    let ((set_address, set_time), (flag_address, _)) = (layer('4'), layer('5'));
    let text = |timeout: &str| {
        format!("[server]\nlisten = \"{file_address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{APP}{timeout}")
    };
    let without_time = folder.write("without.toml", text(""));
    let with_time = folder.write("with.toml", text(&format!("limits.activity_timeout = \"{file_time}\"\n")));
    let variables = [
        ("FANFARE_SERVER_LISTEN", env_address.as_str()),
        ("FANFARE_APPS_0_LIMITS_ACTIVITY_TIMEOUT", env_time.as_str()),
    ];
    let settings =
        [format!("--set=server.listen={set_address}"), format!("--set=apps.0.limits.activity_timeout={set_time}")];
    let flag = format!("--listen={flag_address}");
    let [set_listen, set_timeout] = settings.each_ref().map(String::as_str);

    let serve = |file: &str, variables: &[(&str, &str)], args: &[&str]| {
        let args = [&["serve", "--log-format=json", "--config", file], args].concat();
        let server = Server::start(fanfare(&args).envs(variables));
        let mut client = Client::open(server.public, "/app/file-key?protocol=7");
        (server.public.ip().to_string(), client.greeted()["activity_timeout"].as_u64().unwrap())
    };
    let came_out = |address: &str, timeout: u64| (address.to_owned(), timeout);
    assert_eq!(serve(&without_time, &[], &[]), came_out("127.0.0.2", 120));
    assert_eq!(serve(&with_time, &[], &[]), came_out("127.0.0.2", 20));
    assert_eq!(serve(&with_time, &variables, &[]), came_out("127.0.0.3", 30));
    assert_eq!(serve(&with_time, &variables, &[set_listen, set_timeout]), came_out("127.0.0.4", 40));
    // A flag is the same as --set for its key, and wins over it wherever it stands.
    assert_eq!(serve(&with_time, &variables, &[&flag, set_listen, set_timeout]), came_out("127.0.0.5", 40));
    assert_eq!(serve(&with_time, &variables, &[set_listen, set_timeout, &flag]), came_out("127.0.0.5", 40));
}

#[test]
fn the_last_of_two_settings_of_one_key_counts() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    let args = ["serve", "--config", &file, "--set", "server.listen=127.0.0.2:0", "--set", "server.listen=127.0.0.3:0"];
    assert_eq!(Server::start(fanfare(&args)).public.ip().to_string(), "127.0.0.3");
}

#[test]
fn what_all_apps_inherit_can_be_changed_for_one_of_them_from_every_source() {
    let folder = Folder::new();
    let second = "[[apps]]\nid = \"2\"\nkey = \"second-key\"\nsecret = \"s\"\nlimits.activity_timeout = \"20s\"\n";
    let defaults = "[app_defaults.limits]\nactivity_timeout = \"10s\"\n";
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{defaults}{APP}{second}"));
    let third = [
        ("FANFARE_APPS_2_ID", "3"),
        ("FANFARE_APPS_2_KEY", "third-key"),
        ("FANFARE_APPS_2_SECRET", "s"),
        ("FANFARE_APPS_2_LIMITS_ACTIVITY_TIMEOUT", "30s"),
    ];
    let server = Server::start(fanfare(&["serve", "--config", &file]).envs(&third));
    for (key, expected) in [("file-key", 10), ("second-key", 20), ("third-key", 30)] {
        let mut client = Client::open(server.public, &format!("/app/{key}?protocol=7"));
        assert_eq!(client.greeted()["activity_timeout"], expected, "{key}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    for (flag, other, setting) in [
        ("--listen", "--admin-listen=127.0.0.1:0", "server.listen"),
        ("--admin-listen", "--listen=127.0.0.1:0", "admin.listen"),
    ] {
        for command in [
            fanfare(&["dev", flag, &taken.to_string(), other]),
            fanfare(&["serve", flag, &taken.to_string(), other]).envs(&ENVIRONMENT),
        ] {
            let output = command.run();
            let last = output.failed(1).lines().last().unwrap_or_default();
            let expected = format!("{setting}: cannot listen on {taken}: Address already in use");
            assert!(last.contains(&expected), "{output}");
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_with_its_setting_by_serve_and_check() {
    let folder = Folder::new();
    let [(certificate, key), (_, other_key)] = ["one", "other"].map(|name| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = folder.write(&format!("{name}.crt"), pem("CERTIFICATE", made.cert.der()));
        (certificate, folder.write(&format!("{name}.key"), pem("PRIVATE KEY", &made.signing_key.serialize_der())))
    });
    let no_pem = folder.write("no.pem", "not PEM\n");
    for (certificate, key, expected) in [
        (&no_pem, &key, format!("server.tls.certificate: {no_pem}: ")),
        (&certificate, &no_pem, format!("server.tls.private_key: {no_pem}: ")),
        (&certificate, &other_key, format!("server.tls.private_key: {other_key}: does not fit the certificate")),
    ] {
        let tls = [("FANFARE_SERVER_TLS_CERTIFICATE", certificate.as_str()), ("FANFARE_SERVER_TLS_PRIVATE_KEY", key)];
        for command in ["serve", "check"] {
            let output = fanfare(&[command]).envs(&ENVIRONMENT).envs(&tls).run();
            assert!(output.failed(1).contains(&expected), "{expected} is not in {output}");
        }
    }
    let tls = [("FANFARE_SERVER_TLS_CERTIFICATE", certificate.as_str()), ("FANFARE_SERVER_TLS_PRIVATE_KEY", &key)];
    fanfare(&["check"]).envs(&ENVIRONMENT).envs(&tls).run().succeeded();
    Server::start(fanfare(&["serve"]).envs(&ENVIRONMENT).envs(&tls));
}

#[test]
fn a_failure_to_start_is_told_in_the_format_of_the_log_and_told_even_without_a_log() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let serve = |level: &str| fanfare(&["serve", "--listen", &taken, "--log-level", level]).envs(&ENVIRONMENT).run();
    let output = serve("info");
    for line in output.failed(1).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"));
        assert!(line["message"].is_string(), "{line}");
    }
    assert!(output.stderr.lines().last().unwrap().contains("\"level\":\"ERROR\""), "{output}");
    let output = serve("off");
    assert!(output.failed(1).starts_with(&format!("fanfare: server.listen: cannot listen on {taken}")), "{output}");
}

#[test]
fn a_machine_without_root_certificates_is_told_which_setting_needs_them() {
    let folder = Folder::new();
    let jwt = "auth.jwt = { algorithms = [\"EdDSA\"], jwks_url = \"https://issuer.example/keys\" }\n";
    let forward = "auth.forward = { url = \"https://app.example/auth\" }\n";
    for (settings, key) in [(jwt, "jwt.jwks_url"), (forward, "forward.url")] {
        let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}{settings}"));
        let nowhere = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
        for command in ["serve", "check"] {
            let output = fanfare(&[command, "--config", &file]).envs(&nowhere).run();
            let expected = format!("apps.0.auth.{key}: no root certificates for https:// on this machine: ");
            assert!(output.failed(1).contains(&expected), "{output}");
        }
    }
}
