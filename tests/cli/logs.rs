//! What a server logs: lines for people or for machines, and one line for each client that it refuses.

use serde_json::Value;

use crate::support::{APP, Client, Folder, Heard, LISTENERS, Output, Server, fanfare, get};

/// Every line as JSON.
#[track_caller]
fn parsed(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?} in {output}"));
    let lines: Vec<Value> = output.stderr.lines().map(parse).collect();
    assert!(!lines.is_empty(), "{output}");
    lines
}

/// The close code that a refused client hears, and the reason.
#[track_caller]
fn refused(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut client = Client::try_open(server.public, path, headers).unwrap();
    match client.hear() {
        Heard::Close(code, reason) => (code, reason),
        // Up to protocol 5 it is an event first.
        Heard::Event(event) => {
            let code = client.closed();
            assert_eq!(event["data"]["code"], code, "{event}");
            (code, event["data"]["message"].as_str().unwrap().to_owned())
        }
    }
}

#[test]
fn every_line_of_a_json_log_is_an_object_with_time_level_and_message() {
    let args = ["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json", "--log-level=trace"];
    let server = Server::start(fanfare(&args));
    // A message and a path that would break a line or a string.
    let mut client = server.connect("app-key");
    client.send_text("not \"JSON\"\nat\tall \u{1b}[31m\\");
    client.event("pusher:error");
    refused(&server, "/app/%0A%22%5C?protocol=7", &[]);
    assert_eq!(get(server.public, "/apps/1%0a/channels?auth_key=%22").0, 401);
    assert_eq!(get(server.admin, "/metrics").0, 200);
    drop(client);
    let output = server.stop();
    for line in parsed(&output) {
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
        assert!(line["message"].is_string() || line.as_object().unwrap().len() > 3, "{line}");
    }
    let traced = parsed(&output).iter().any(|line| line["message"] == "received" && line["level"] == "TRACE");
    assert!(traced, "{output}");
}

#[test]
fn a_text_log_is_for_reading_and_without_colours_where_nobody_sees_them() {
    let args = ["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=text"];
    let mut process = fanfare(&args).start();
    let line = process.expect_err("listening");
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {line}"));
        rest.split(' ').next().unwrap().parse().unwrap_or_else(|error| panic!("{name}: {error}: {line}"))
    };
    assert!(line.contains("INFO"), "{line}");
    assert_eq!(get(field("admin"), "/ready"), (200, "ready\n".to_owned()));
    Client::open(field("public"), "/app/app-key?protocol=7").greeted();
    process.signal("TERM");
    let output = process.wait();
    output.exited(0);
    assert!(!output.stderr.contains('\u{1b}'), "{output}");
    // Text is the default.
    let mut process = fanfare(&["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]).start();
    assert!(process.expect_err("listening").contains(" INFO "));
}

#[test]
fn the_level_decides_what_is_logged() {
    let run = |level: &str| {
        let listeners = LISTENERS.replace("format = \"json\"\n", "");
        let folder = Folder::new();
        let file = folder.write("fanfare.toml", format!("{listeners}{APP}").replace("id = \"1\"", "id = \"shop\""));
        let process = fanfare(&["serve", "--config", &file, "--log-level", level]).start();
        (folder, process)
    };
    let (_folder, mut process) = run("off,fanfare::server=info");
    assert!(process.expect_err("listening").contains("fanfare::server"));
    process.signal("TERM");
    let output = process.wait();
    assert!(output.stderr.lines().all(|line| line.contains(" fanfare::server: ")), "{output}");
    let (_folder, mut process) = run("warn");
    process.expect_err("Python");
    process.signal("TERM");
    let output = process.wait();
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
}

#[test]
fn each_refused_client_is_one_line_with_the_reason_and_the_code() {
    let folder = Folder::new();
    let app = |index: u32, setting: &str| {
        format!("[[apps]]\nid = \"{index}\"\nkey = \"key-{index}\"\nsecret = \"s\"\n{setting}\n")
    };
    let apps = [
        app(1, "allowed_origins = [\"https://good.example\"]"),
        app(2, "enabled = false"),
        app(3, "require_tls = true"),
        app(4, "limits.connections = 1"),
    ];
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{}", apps.concat()));
    let server = Server::start(fanfare(&["serve", "--config", &file]));
    let only = server.connect("key-4");
    let no_headers: &[(&str, &str)] = &[];
    let evil: &[(&str, &str)] = &[("Origin", "https://evil.example")];
    let attempts = [
        ("/app/nobody?protocol=7", no_headers, 4001),
        ("/app/nobody?protocol=5", no_headers, 4001),
        ("/app/key-1", no_headers, 4008),
        ("/app/key-1?protocol=x", no_headers, 4006),
        ("/app/key-1?protocol=3", no_headers, 4007),
        ("/elsewhere?protocol=7", no_headers, 4005),
        ("/app/key-1?protocol=7", evil, 4009),
        ("/app/key-2?protocol=7", no_headers, 4003),
        ("/app/key-3?protocol=7", no_headers, 4000),
        ("/app/key-4?protocol=7", no_headers, 4004),
    ];
    let heard: Vec<_> = attempts.iter().map(|(path, headers, _)| refused(&server, path, headers)).collect();
    drop(only);
    let output = server.stop();
    // The log has these lines and no others about clients: the one that was let in is not news.
    let lines: Vec<Value> = parsed(&output).into_iter().filter(|line| line.to_string().contains("client")).collect();
    assert_eq!(lines.len(), attempts.len(), "{output}");
    for ((line, (path, _, code)), (heard_code, heard_reason)) in lines.iter().zip(attempts).zip(heard) {
        assert_eq!((line["code"].as_u64(), heard_code), (Some(code.into()), code), "{line}");
        assert_eq!(line["reason"], heard_reason.as_str(), "{line}");
        assert_eq!(line["message"], "client refused", "{line}");
        assert_eq!(line["path"], path.split('?').next().unwrap(), "{line}");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert_eq!(line["level"], "INFO", "{line}");
    }
}

#[test]
fn lines_of_one_kind_are_limited_and_those_left_out_are_counted() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    let sets = ["--set=log.repeat_limit=4", "--set=server.trust_forwarded_headers=true"];
    let server = Server::start(fanfare(&["serve", "--config", &file, sets[0], sets[1]]));
    let long = format!("/app/{}?protocol=7", "x".repeat(5000));
    for host in 1..=10 {
        refused(&server, &long, &[("X-Forwarded-For", &format!("192.0.2.{host}"))]);
    }
    let metrics = get(server.admin, "/metrics").1;
    assert!(metrics.contains("\nfanfare_log_lines_suppressed_total 6\n"), "{metrics}");
    let output = server.stop();
    let lines = parsed(&output);
    let refused: Vec<&Value> = lines.iter().filter(|line| line["message"] == "client refused").collect();
    assert_eq!(refused.len(), 4, "{output}");
    // A stranger's text is cut.
    let path = refused[0]["path"].as_str().unwrap();
    assert!(path.len() < 250 && path.ends_with("more bytes)"), "{path}");
    // What is left out is told when its time is over, and at the latest at the end.
    let more: Vec<&Value> = lines.iter().filter(|line| line["more"].is_u64()).collect();
    assert_eq!(more.len(), 1, "{output}");
    assert_eq!(more[0]["more"], 6, "{output}");
    assert_eq!(more[0]["message"], "and 6 more like this: client refused", "{output}");
}

#[test]
fn one_peer_does_not_hide_what_is_said_of_others_nor_one_app_of_another() {
    let folder = Folder::new();
    let app = |id| format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\nsecret = \"s\"\nallowed_origins = [\"x\"]\n");
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{}{}", app(1), app(2)));
    let sets = ["--set=log.repeat_limit=8", "--set=server.trust_forwarded_headers=true"];
    let server = Server::start(fanfare(&["serve", "--config", &file, sets[0], sets[1]]));
    let attempt = |app: u32, peer: &str, origin: &str| {
        refused(&server, &format!("/app/key-{app}?protocol=7"), &[("X-Forwarded-For", peer), ("Origin", origin)]);
    };
    // All of a household, or a machine that has a network of its own.
    (1..=20).for_each(|host| attempt(1, &format!("2001:db8::{host}"), "http://flood.example"));
    attempt(1, "192.0.2.1", "http://honest.example");
    // All that may be said of the first app.
    (1..=20).for_each(|host| attempt(1, &format!("198.51.100.{host}"), "http://flood.example"));
    attempt(2, "192.0.2.1", "http://honest.example");
    let output = server.stop();
    let lines = parsed(&output);
    let written = |app: &str, origin: &str| {
        let is_that =
            |line: &&Value| line["message"] == "client refused" && line["app"] == app && line["origin"] == origin;
        lines.iter().filter(is_that).count()
    };
    assert_eq!(written("1", "http://honest.example"), 1, "{output}");
    assert_eq!(written("1", "http://flood.example"), 2 + 5, "{output}");
    assert_eq!(written("2", "http://honest.example"), 1, "{output}");
    let more: Vec<(&Value, &Value)> =
        lines.iter().filter(|line| line["more"].is_u64()).map(|line| (&line["app"], &line["more"])).collect();
    assert_eq!(more, [(&Value::from("1"), &Value::from(41 - 8))], "{output}");
}
