//! Secrets: three ways to give one, and no way to get it back.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Folder, KEY, LISTENERS, Server, fanfare};

/// What must not be seen anywhere.
const SECRETS: [&str; 4] = ["s3cret-in-file", "s3cret-in-secret-file", "s3cret-in-variable", "s3cret-of-the-next-key"];

/// A configuration with a secret of each kind.
fn configuration(folder: &Folder) -> String {
    let secret_file = folder.write("secret", "s3cret-in-secret-file\r\n");
    let app = |id: u32, secret: &str| format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\n{secret}\ndebug = true\n");
    let apps = [
        app(1, "secret = \"s3cret-in-file\""),
        app(2, &format!("secret_file = \"{secret_file}\"")),
        app(3, "secret_env = \"SECRET_OF_ANY_NAME\""),
        "[[apps.keys]]\nkey = \"next-key\"\nsecret = \"s3cret-of-the-next-key\"\n".to_owned(),
    ];
    format!("{LISTENERS}{}", apps.concat())
}

/// App, key and secret.
const CREDENTIALS: [[&str; 3]; 4] =
    [["1", "key-1", SECRETS[0]], ["2", "key-2", SECRETS[1]], ["3", "key-3", SECRETS[2]], ["3", "next-key", SECRETS[3]]];

const VARIABLE: (&str, &str) = ("SECRET_OF_ANY_NAME", SECRETS[2]);

#[track_caller]
fn assert_silent(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

#[test]
fn a_secret_works_however_it_is_given_and_is_never_logged() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", configuration(&folder));
    let server = Server::start(fanfare(&["serve", "--config", &file, "--log-level", "trace"]).envs(&[VARIABLE]));
    for [id, key, secret] in CREDENTIALS {
        let tool = |args: &[&str]| {
            let credentials = [("FANFARE_APP_ID", id), ("FANFARE_APP_KEY", key), ("FANFARE_APP_SECRET", secret)];
            server.tool(args).envs(&credentials)
        };
        // Clients and backends that sign …
        let mut listener = tool(&["listen", "private-a", "presence-b", "--sign-in", "7", "--count=1", "--all"]).start();
        listener.expect_err("signed in as 7");
        listener.expect_err("subscribed to private-a");
        listener.expect_err("subscribed to presence-b");
        tool(&["trigger", "private-a", "e"]).run().succeeded();
        let heard = listener.wait();
        assert!(heard.succeeded().contains("  private-a  e  "), "{heard}");
        assert_silent(&format!("{}{}", heard.stdout, heard.stderr));
        // … and those that do not know the secret.
        for args in [&["channels"][..], &["listen", "private-a"], &["listen", "--sign-in", "7"]] {
            let wrong = tool(args).env("FANFARE_APP_SECRET", "a guess").run();
            assert!(wrong.failed(1).contains("Invalid signature"), "{wrong}");
        }
        let mut client = server.connect(key);
        client.send("pusher:subscribe", json!({ "channel": "private-a", "auth": format!("{key}:00") }));
        client.event("pusher:error");
        client.event("pusher:subscription_error");
        client.event("pusher_internal:subscription_error");
        client.send_text("broken");
        client.event("pusher:error");
    }
    assert_silent(&crate::support::get(server.admin, "/metrics").1);
    let output = server.stop();
    assert!(output.stderr.contains("\"level\":\"TRACE\"") && output.stderr.contains("Invalid signature"), "{output}");
    assert_silent(&output.to_string());
}

#[test]
fn a_secret_is_not_shown_by_check_config_or_a_mistake() {
    let folder = Folder::new();
    let good = configuration(&folder);
    let file = folder.write("good.toml", &good);
    for command in ["check", "config"] {
        let output = fanfare(&[command, "--config", &file]).envs(&[VARIABLE]).run();
        output.succeeded();
        assert_silent(&output.to_string());
    }
    // Passwords in URLs are secrets like others, in good URLs and in bad ones.
    for (url, code) in [
        ("redis://ann:s3cret-in-file@redis", 0),
        ("redis://ann:s3cret-in-file/@redis:x", 2),
        ("redis:ann:s3cret-in-file@redis", 2),
        ("redis://redis?password=s3cret-in-file", 2),
        ("redis://ann:a,s3cret-in-file@redis", 2),
    ] {
        let env = [("FANFARE_CLUSTER_URLS", url), VARIABLE];
        for command in ["check", "config"] {
            let output = fanfare(&[command, "--config", &file]).envs(&env).run();
            assert_silent(&format!("{}{}", output.stdout, output.stderr));
            let _ = if code == 0 { output.succeeded() } else { output.failed(code) };
        }
    }
    // Mistakes around every secret, and a few in the secrets' own lines.
    for wrong in [
        good.replace("debug = true", "debug = 5"),
        good.replace("secret = ", "secrt = "),
        good.replace("secret = ", "secret = 5 "),
        good.replace("secret = \"s3cret", "secret = \"unclosed\" s3cret"),
        good.replace("secret = \"s3cret-in-file\"", "secret = \"s3cret-in-file"),
        good.replace("secret = ", "secret_file = "),
        good.replace("secret = ", "secret_env = "),
        good.replace("secret = ", "secret_env = \"X\"\nsecret = "),
        good.replace("secret = ", "secret.value = "),
        good.replace("secret = \"s3cret-in-file\"", "secret = [\"s3cret-in-file\"]"),
        good.replace("[[apps.keys]]", "[apps.keys]"),
        good.replace("[[apps]]", "[apps]"),
        good.replace("SECRET_OF_ANY_NAME", "ANOTHER_NAME"),
    ] {
        assert_ne!(wrong, good);
        let file = folder.write("wrong.toml", &wrong);
        for command in ["serve", "check", "config"] {
            let output = fanfare(&[command, "--config", &file]).envs(&[VARIABLE]).run();
            assert_silent(output.failed(2));
        }
    }
}

#[test]
fn a_secret_in_the_environment_or_on_the_command_line_is_not_shown_either() {
    let env = [
        ("FANFARE_APPS_0_SECRET", SECRETS[2]),
        ("FANFARE_APPS_0_SECRETS", SECRETS[2]),
        ("FANFARE_APPS_0_KEYS_0_SECRET", SECRETS[3]),
        ("FANFARE_APP_SECRET", SECRETS[1]),
    ];
    let set = ["--set=apps.0.secret=s3cret-in-file", "--set=apps.0.secrets=s3cret-in-file", "--set=apps.0.key=!"];
    for command in ["serve", "check", "config"] {
        let output = fanfare(&[&[command], &set[..]].concat()).envs(&env).run();
        // What is wrong is everything but the secrets.
        let text = output.failed(2);
        for expected in
            ["FANFARE_APPS_0_SECRETS: unknown variable", "--set apps.0.secrets: unknown key", "apps.0.key: \"!\""]
        {
            assert!(text.contains(expected), "no {expected} in {output}");
        }
        assert_silent(text);
    }
}

#[test]
fn a_stronger_source_replaces_a_secret_however_the_file_gives_it() {
    let folder = Folder::new();
    for given in ["secret = \"old\"", "secret_file = \"/nowhere\"", "secret_env = \"NOT_SET\""] {
        let app = format!("[[apps]]\nid = \"1001\"\nkey = \"{KEY}\"\n{given}\n");
        let file = folder.write("fanfare.toml", format!("{LISTENERS}{app}"));
        let server = Server::start(fanfare(&["serve", "--config", &file]).env("FANFARE_APPS_0_SECRET", SECRETS[2]));
        server.tool(&["channels"]).env("FANFARE_APP_SECRET", SECRETS[2]).run().succeeded();
        let old = server.tool(&["channels"]).env("FANFARE_APP_SECRET", "old").run();
        assert!(old.failed(1).contains("401 Unauthorized: Invalid signature"), "{old}");
    }
}

#[test]
fn what_clients_are_recognised_by_is_not_logged() {
    let folder = Folder::new();
    let master_key = "czNjcmV0LW9mLXRoZS1lbmNyeXB0ZWQtY2hhbm5lbHM=";
    let jwt = "[apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret = \"s3cret-in-file\"\ncookie = \"session\"\n";
    let app = format!(
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s3cret-in-file\"\nencryption_master_key = \"{master_key}\"\n{jwt}"
    );
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{app}"));
    let shown = fanfare(&["config", "--config", &file]).run();
    assert_silent(shown.succeeded());
    assert!(!shown.stdout.contains(master_key), "{shown}");

    let server = Server::start(fanfare(&["serve", "--config", &file, "--log-level", "trace"]));
    for credentials in ["Authorization: Bearer s3cret-in-file.x.y", "Cookie: session=s3cret-in-file.x.y"] {
        let mut stream = TcpStream::connect(server.public).unwrap();
        let body = "socket_id=1.2&channel_name=private-a";
        let request = format!(
            "POST /pusher/auth HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{credentials}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nForbidden\n"), "{answer}");
    }
    let output = server.stop();
    assert!(output.stderr.contains("the token is not valid"), "{output}");
    assert_silent(&output.to_string());
}
