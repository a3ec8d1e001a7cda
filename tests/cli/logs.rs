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
    let server = Server::start(fanfare(&["serve", "--config", &file, "--set=log.repeat_limit=3"]));
    let long = format!("/app/{}?protocol=7", "x".repeat(5000));
    for _ in 0..10 {
        refused(&server, &long, &[]);
    }
    let metrics = get(server.admin, "/metrics").1;
    assert!(metrics.contains("\nfanfare_log_lines_suppressed_total 7\n"), "{metrics}");
    let output = server.stop();
    let lines = parsed(&output);
    let refused: Vec<&Value> = lines.iter().filter(|line| line["message"] == "client refused").collect();
    assert_eq!(refused.len(), 3, "{output}");
    // A stranger's text is cut.
    let path = refused[0]["path"].as_str().unwrap();
    assert!(path.len() < 250 && path.ends_with("more bytes)"), "{path}");
    // What is left out is told when its time is over, and at the latest at the end.
    let more: Vec<&Value> = lines.iter().filter(|line| line["more"].is_u64()).collect();
    assert_eq!(more.len(), 1, "{output}");
    assert_eq!(more[0]["more"], 7, "{output}");
    assert_eq!(more[0]["message"], "and 7 more like this: client refused", "{output}");
}
