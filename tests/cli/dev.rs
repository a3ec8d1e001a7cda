//! `fanfare dev`: a server that needs nothing, for this machine only.

use serde_json::json;

use crate::support::{Backend, Fanfare, Folder, KEY, Server, fanfare};

#[test]
fn only_loopback_addresses_are_listened_on() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6001"] {
        for flag in ["--listen", "--admin-listen"] {
            let output = fanfare(&["dev", flag, address]).run();
            let text = output.failed(2);
            assert!(text.contains(&format!("'{address}'")) && text.contains("loopback addresses only"), "{output}");
            assert!(text.contains("`fanfare serve`"), "{output}");
        }
    }
    let output = fanfare(&["dev", "--listen", "localhost"]).run();
    assert!(output.failed(2).contains("expected an address and a port such as 127.0.0.1:6001"), "{output}");
}

#[test]
fn it_has_the_credentials_that_the_examples_have_and_everything_is_switched_on() {
    let server = Server::dev();
    let args = ["--app-id=1001", "--key=app-key", "--secret=app-secret", "--json"];
    let channels = server.tool(&[&["channels"], &args[..]].concat()).run();
    assert_eq!(channels.succeeded(), "{\"channels\":{}}\n");

    let mut ann = server.connect(KEY);
    ann.send("pusher:subscribe", json!({ "channel": "room" }));
    ann.event("pusher_internal:subscription_succeeded");
    assert_eq!(ann.event("pusher_internal:subscription_count")["channel"], "room");

    let mut bob = server.connect(KEY);
    for client in [&mut ann, &mut bob] {
        let sign = server.tool(&["sign", "private-room", "--socket-id", &client.socket_id]).run();
        let answer: serde_json::Value = serde_json::from_str(sign.succeeded()).unwrap();
        client.send("pusher:subscribe", json!({ "channel": "private-room", "auth": answer["auth"] }));
        client.event("pusher_internal:subscription_succeeded");
        client.event("pusher_internal:subscription_count");
    }
    ann.event("pusher_internal:subscription_count");
    let event = json!({ "event": "client-hello", "channel": "private-room", "data": {} });
    bob.send_text(&event.to_string());
    assert_eq!(ann.event("client-hello")["channel"], "private-room");

    // Debugging is on: a refused signature comes with the text that should have been signed.
    ann.send("pusher:subscribe", json!({ "channel": "private-other", "auth": "app-key:00" }));
    let expected = format!("{}:private-other", ann.socket_id);
    let refused = ann.event("pusher:error").to_string();
    assert!(refused.contains(&expected), "{refused}");
}

#[test]
fn nothing_around_it_changes_it() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", "broken");
    let args = ["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"];
    let command = fanfare(&args)
        .env("FANFARE_CONFIG", &file)
        .env("FANFARE_SERVER_LISTEN", "0.0.0.0:1")
        .env("FANFARE_APPS_0_KEY", "another-key")
        .env("FANFARE_UNKNOWN", "!");
    Server::start(command).connect(KEY);
}

/// The text between `=== name ===` and the next such line.
fn block<'a>(banner: &'a str, name: &str) -> &'a str {
    let (_, rest) = banner.split_once(&format!("=== {name} ===\n")).unwrap_or_else(|| panic!("no {name} in {banner}"));
    rest.split_once("=== ").unwrap_or_else(|| panic!("{name} does not end in {banner}")).0.trim()
}

#[test]
fn settings_to_paste_are_printed_with_the_address_that_was_taken() {
    let mut server = Server::dev();
    server.process.expect_out("=== End ===");
    let port = server.public.port();
    let banner = server.stop().stdout;
    assert!(banner.starts_with(&format!("Fanfare for development: http://127.0.0.1:{port} (app 1001)")), "{banner}");
    let js = ["new Pusher(\"app-key\", {", "wsHost: \"127.0.0.1\",", &format!("wsPort: {port},"), "forceTLS: false,"];
    let laravel = [
        "BROADCAST_CONNECTION=pusher",
        "PUSHER_APP_ID=1001",
        "PUSHER_APP_KEY=app-key",
        "PUSHER_APP_SECRET=app-secret",
        "PUSHER_HOST=127.0.0.1",
        &format!("PUSHER_PORT={port}"),
        "PUSHER_SCHEME=http",
    ];
    let node = [
        "appId: \"1001\",",
        "key: \"app-key\",",
        "secret: \"app-secret\",",
        "host: \"127.0.0.1\",",
        &format!("port: {port},"),
        "useTLS: false,",
    ];
    let python = [
        "app_id=\"1001\",",
        "key=\"app-key\",",
        "secret=\"app-secret\",",
        "host=\"127.0.0.1\",",
        &format!("port={port},"),
        "ssl=False,",
    ];
    let blocks: [(&str, &[&str]); 4] =
        [("pusher-js", &js), ("Laravel .env", &laravel), ("Node", &node), ("Python", &python)];
    for (name, lines) in blocks {
        for line in lines {
            assert!(block(&banner, name).contains(line), "no {line:?} in the block {name} of {banner}");
        }
    }
    let in_env_file = |line: &str| {
        line.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    assert!(block(&banner, "Laravel .env").lines().all(in_env_file), "{banner}");
}

#[test]
fn the_printed_commands_work_as_they_are() {
    let mut server = Server::dev();
    server.process.expect_out("=== Try it");
    let [listen, trigger] = [(); 2].map(|()| server.process.expect_out("fanfare "));
    let mut listener = Fanfare::typed(&listen).start();
    listener.expect_err("subscribed to my-channel");
    let triggered = Fanfare::typed(&trigger).run();
    assert_eq!(triggered.succeeded(), "triggered my-event on my-channel\n");
    let line = listener.expect_out("my-event");
    assert!(line.ends_with("  my-channel  my-event  {\"hello\":\"world\"}"), "{line}");
}

#[test]
fn a_backend_that_is_named_hears_of_everything() {
    let backend = Backend::start("127.0.0.1:0", "200 OK", "");
    let args = ["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json", "--webhook"];
    let server = Server::start(fanfare(&[&args[..], &[&backend.url()]].concat()));
    let mut client = server.connect(KEY);
    client.subscribe("room");
    let mut names = [(); 3].map(|()| backend.request().body["events"][0]["name"].as_str().unwrap().to_owned());
    names.sort();
    assert_eq!(names, ["channel_occupied", "connection_opened", "subscription_count"]);
    // It stops without a client coming back, so everything that was said to be true has ended.
    drop(client);
    server.stop();
    let mut last = Vec::new();
    while !last.contains(&"channel_vacated".to_owned()) {
        last.push(backend.request().body["events"][0]["name"].as_str().unwrap().to_owned());
    }
    let output = fanfare(&["dev", "--webhook", "127.0.0.1:3000"]).run();
    assert!(
        output.failed(2).contains("expected an http:// or https:// URL such as http://127.0.0.1:3000/"),
        "{output}"
    );
}
