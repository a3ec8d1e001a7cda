//! The commands that speak to a server: what they print, for people and as JSON, and how they fail.

use serde_json::{Value, json};

use crate::support::{APP, Client, Fanfare, Folder, Heard, KEY, LISTENERS, Process, Server, fanfare, free_address};

/// A listener in the background that has subscribed to these channels.
#[track_caller]
fn listener(server: &Server, args: &[&str], last: &str) -> Process {
    let mut process = server.tool(&[&["listen"], args].concat()).start();
    process.expect_err(&format!("subscribed to {last}"));
    process
}

// --- trigger ---

#[test]
fn an_event_arrives_as_it_was_typed() {
    let server = Server::dev();
    let mut client = server.connect(KEY);
    client.subscribe("room");
    client.event("pusher_internal:subscription_count");
    let longer_than_a_line = format!("{{\"text\":\"{}\"}}", "é\\n".repeat(300));
    for data in ["{\"hello\":\"world\"}", "{}", "\"a text\"", "no JSON at all", "", "-5", "--flag", &longer_than_a_line]
    {
        let output = server.tool(&["trigger", "room", "my-event", data]).run();
        assert_eq!((output.succeeded(), output.stderr.as_str()), ("triggered my-event on room\n", ""));
        assert_eq!(client.event("my-event"), json!({ "event": "my-event", "channel": "room", "data": data }));
    }
    server.tool(&["trigger", "room", "empty"]).run().succeeded();
    assert_eq!(client.event("empty")["data"], "{}");
    server.tool(&["trigger", "room", "piped", "-"]).input("{\"from\":\"a pipe\"}\n").run().succeeded();
    assert_eq!(client.event("piped")["data"], "{\"from\":\"a pipe\"}\n");
}

#[test]
fn an_event_goes_to_several_channels_or_to_one_with_a_comma_in_its_name() {
    let server = Server::dev();
    let mut client = server.connect(KEY);
    for channel in ["one", "two", "one,two"] {
        client.subscribe(channel);
        client.event("pusher_internal:subscription_count");
    }
    let output = server.tool(&["trigger", "one, two,", "e"]).run();
    assert_eq!(output.succeeded(), "triggered e on one, two\n");
    let mut channels =
        [client.event("e"), client.event("e")].map(|event| event["channel"].as_str().unwrap().to_owned());
    channels.sort();
    assert_eq!(channels, ["one", "two"]);
    let output = server.tool(&["trigger", "one,two", "e", "--one-channel"]).run();
    assert_eq!(output.succeeded(), "triggered e on one,two\n");
    assert_eq!(client.event("e")["channel"], "one,two");
    client.is_answered();
}

#[test]
fn the_connection_that_caused_an_event_can_be_left_out() {
    let server = Server::dev();
    let mut clients = [(); 2].map(|()| server.connect(KEY));
    clients.iter_mut().for_each(|client| client.subscribe("room"));
    let [cause, other] = &mut clients;
    let id = cause.socket_id.clone();
    server.tool(&["trigger", "room", "e", "{}", "--socket-id", &id]).run().succeeded();
    server.tool(&["trigger", "room", "last"]).run().succeeded();
    let heard = |client: &mut Client| {
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "last") {
            let Heard::Event(event) = client.hear() else { panic!("closed after {names:?}") };
            names.push(event["event"].as_str().unwrap().to_owned());
        }
        names.retain(|name| !name.starts_with("pusher"));
        names
    };
    assert_eq!(heard(other), ["e", "last"]);
    assert_eq!(heard(cause), ["last"]);
}

#[test]
fn what_was_asked_about_the_channels_is_answered_as_json() {
    let server = Server::dev();
    let _listener = listener(&server, &["room", "presence-room", "--user-id", "7"], "presence-room");
    let counts = |args: &[&str]| -> Value {
        let output = server.tool(&[&["trigger"], args].concat()).run();
        serde_json::from_str(output.succeeded()).unwrap_or_else(|error| panic!("{error}: {output}"))
    };
    let expected = json!({ "channels": { "room": { "subscription_count": 1 }, "empty": { "subscription_count": 0 } } });
    assert_eq!(counts(&["room,empty", "e", "{}", "--info", "subscription_count"]), expected);
    let expected = json!({ "channels": { "presence-room": { "subscription_count": 1, "user_count": 1 } } });
    assert_eq!(counts(&["presence-room", "e", "{}", "--info", "user_count,subscription_count"]), expected);
    // What a channel does not have is left out.
    assert_eq!(counts(&["room", "e", "{}", "--info", "user_count"]), json!({ "channels": { "room": {} } }));
}

#[test]
fn an_event_that_the_server_refuses_is_a_failure_with_its_reason() {
    let server = Server::dev();
    let too_long = "x".repeat(10 * 1024 + 1);
    for (args, expected) in [
        (&["a room", "e"][..], "400 Bad Request: Invalid channel name: a room"),
        (&["room", "pusher:e"], "400 Bad Request: Invalid event name: pusher:e"),
        (
            &["room", "e", &too_long],
            "413 Payload Too Large: The data content of this event exceeds the allowed maximum",
        ),
        (&["room", "e", "{}", "--socket-id", "5"], "400 Bad Request: Invalid socket_id: 5"),
        (&["room", "e", "{}", "--info", "nonsense"], "400 Bad Request: Invalid info attribute: nonsense"),
        (&[",", "e"], "400 Bad Request: Expected channels parameter to have at least one entry"),
    ] {
        let output = server.tool(&[&["trigger"], args].concat()).run();
        assert!(output.failed(1).starts_with(&format!("fanfare: the server answered {expected}")), "{output}");
    }
}

// --- channels, users, terminate ---

#[test]
fn occupied_channels_are_a_table_or_json() {
    let server = Server::dev();
    let channels = |args: &[&str]| server.tool(&[&["channels"], args].concat()).run().succeeded().to_owned();
    assert_eq!(channels(&[]), "no channel is occupied\n");
    assert_eq!(channels(&["--json"]), "{\"channels\":{}}\n");
    let args = ["room", "cache-news", "presence-lobby", "--user-id", "7"];
    let _listeners = [listener(&server, &args, "presence-lobby"), listener(&server, &["room"], "room")];
    assert_eq!(
        channels(&[]),
        "CHANNEL         SUBSCRIPTION_COUNT\n\
         cache-news      1\n\
         presence-lobby  1\n\
         room            2\n"
    );
    assert_eq!(
        channels(&["--prefix", "presence-"]),
        "CHANNEL         SUBSCRIPTION_COUNT  USER_COUNT\npresence-lobby  1                   1\n"
    );
    assert_eq!(
        channels(&["--prefix", "presence-", "--info", "user_count"]),
        "CHANNEL         USER_COUNT\npresence-lobby  1\n"
    );
    assert_eq!(channels(&["--prefix", "cache-", "--info", ""]), "CHANNEL\ncache-news\n");
    assert_eq!(channels(&["--prefix", "nothing-"]), "no channel is occupied\n");
    let answer: Value = serde_json::from_str(&channels(&["--prefix", "room", "--json"])).unwrap();
    assert_eq!(answer, json!({ "channels": { "room": { "subscription_count": 2 } } }));
}

#[test]
fn one_channel_is_told_line_by_line_or_as_json() {
    let server = Server::dev();
    let channel = |args: &[&str]| server.tool(&[&["channels"], args].concat()).run().succeeded().to_owned();
    assert_eq!(channel(&["room"]), "occupied            no\nsubscription_count  0\n");
    let args = ["room", "cache-news", "presence-a=b@c,d.e;f", "--user-id", "7"];
    let _listener = listener(&server, &args, "presence-a=b@c,d.e;f");
    assert_eq!(channel(&["room"]), "occupied            yes\nsubscription_count  1\n");
    assert_eq!(
        channel(&["presence-a=b@c,d.e;f"]),
        "occupied            yes\nsubscription_count  1\nuser_count          1\n"
    );
    assert_eq!(channel(&["cache-news"]), "cache               -\noccupied            yes\nsubscription_count  1\n");
    server.tool(&["trigger", "cache-news", "headline", "\"x\""]).run().succeeded();
    let answer: Value = serde_json::from_str(&channel(&["cache-news", "--info", "cache", "--json"])).unwrap();
    assert_eq!((&answer["occupied"], &answer["cache"]["data"]), (&json!(true), &json!("\"x\"")), "{answer}");
    let refused = server.tool(&["channels", "room", "--info", "nonsense"]).run();
    assert!(refused.failed(1).contains("400 Bad Request: Invalid info attribute: nonsense"), "{refused}");
    let both = server.tool(&["channels", "room", "--prefix", "r"]).run();
    assert!(both.failed(2).contains("cannot be used with"), "{both}");
}

#[test]
fn the_users_of_a_presence_channel_are_listed_once_each() {
    let server = Server::dev();
    let users = |args: &[&str]| server.tool(&[&["users"], args].concat()).run();
    assert_eq!(users(&["presence-room"]).succeeded(), "");
    let _listeners = ["7", "8", "7"].map(|id| listener(&server, &["presence-room", "--user-id", id], "presence-room"));
    let output = users(&["presence-room"]);
    let mut ids: Vec<&str> = output.succeeded().lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, ["7", "8"]);
    let output = users(&["presence-room", "--json"]);
    let answer: Value = serde_json::from_str(output.succeeded()).unwrap();
    let users_with_ids = answer["users"].as_array().unwrap();
    assert!(users_with_ids.len() == 2 && users_with_ids.contains(&json!({ "id": "7" })), "{answer}");
    let refused = users(&["room"]);
    assert!(
        refused.failed(1).contains("400 Bad Request: Users can only be retrieved for presence channels"),
        "{refused}"
    );
}

#[test]
fn a_terminated_user_is_gone_and_told_to_stay_away() {
    let server = Server::dev();
    let sign_in = |id: &str| {
        let mut process = server.tool(&["listen", "--sign-in", id]).start();
        process.expect_err(&format!("signed in as {id}"));
        process
    };
    let ([one, two], mut other) = ([sign_in("a b/7"), sign_in("a b/7")], sign_in("8"));
    let output = server.tool(&["terminate", "a b/7"]).run();
    assert_eq!(output.succeeded(), "terminated the connections of user a b/7\n");
    for listener in [one, two] {
        let output = listener.wait();
        let last = output.failed(1).lines().last();
        assert_eq!(last, Some("fanfare: the server closed the connection: 4009 You got disconnected by the app."));
    }
    server.tool(&["trigger", "#server-to-user-8", "still-here"]).run().succeeded();
    other.expect_out("still-here");
    // Nobody by that name is no failure: there is nobody left to close.
    assert_eq!(server.tool(&["terminate", "9"]).run().succeeded(), "terminated the connections of user 9\n");
}

// --- sign ---

#[test]
fn pushers_published_signatures_are_reproduced_without_any_server() {
    let sign = |args: &[&str]| {
        let credentials =
            ["sign", "--key=278d425bdf160c739803", "--secret=7ad3773142a6692b25b8", "--socket-id=1234.1234"];
        let output = fanfare(&[&credentials, args].concat()).run();
        assert_eq!(output.stderr, "", "{output}");
        serde_json::from_str::<Value>(output.succeeded()).unwrap()
    };
    let token = |hex: &str| format!("278d425bdf160c739803:{hex}");
    let private = token("58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
    assert_eq!(sign(&["private-foobar"]), json!({ "auth": private }));
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    let presence = token("31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80");
    let expected = json!({ "auth": presence, "channel_data": data });
    assert_eq!(sign(&["presence-foobar", "--channel-data", data]), expected);
    let data = r#"{"id":"12345"}"#;
    let user = token("4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
    assert_eq!(sign(&["--user-data", data]), json!({ "auth": user, "user_data": data }));
}

#[test]
fn a_server_accepts_what_was_signed_for_this_connection() {
    let server = Server::dev();
    let mut client = server.connect(KEY);
    let socket_id = client.socket_id.clone();
    let sign = |args: &[&str]| {
        let output = server.tool(&[&["sign", "--socket-id", &socket_id], args].concat()).run();
        serde_json::from_str::<Value>(output.succeeded()).unwrap()
    };
    let mut answer = sign(&["presence-room", "--channel-data", "{\"user_id\": \"7\"}"]);
    answer["channel"] = json!("presence-room");
    client.send("pusher:subscribe", answer);
    client.event("pusher_internal:subscription_succeeded");
    client.send("pusher:signin", sign(&["--user-data", "{\"id\": \"7\"}"]));
    while !matches!(client.hear(), Heard::Event(event) if event["event"] == "pusher:signin_success") {}
}

#[test]
fn what_cannot_be_signed_is_a_mistake_of_usage() {
    for (args, expected) in [
        (&["private-room"][..], "--socket-id <SOCKET_ID>"),
        (&["--socket-id=1.2"], "<CHANNEL>"),
        (&["private-room", "--socket-id=12"], "expected two numbers and a dot, such as 1234.5678"),
        (&["presence-room", "--socket-id=1.2", "--channel-data=7"], "expected a JSON object"),
        (&["--socket-id=1.2", "--user-data={id:7}"], "not JSON"),
        (&["room", "--socket-id=1.2", "--user-data={}"], "cannot be used with"),
    ] {
        let output = fanfare(&[&["sign"], args].concat()).run();
        assert!(output.failed(2).contains(expected), "{output}");
    }
}

#[test]
fn what_subscribers_decrypt_with_is_printed_if_the_master_key_is_known() {
    let args = ["sign", "private-encrypted-room", "--socket-id=1.2"];
    let secret = |output: &str| serde_json::from_str::<Value>(output).unwrap()["shared_secret"].clone();
    let dev = fanfare(&args).run();
    // SHA-256 of the name and "fanfare dev: everybody has this."
    assert_eq!(secret(dev.succeeded()), "vFBo5g3tDO8vLgw5DONRMenHNVj3XHhazzXwxGW848M=");
    assert_eq!(dev.stderr, "", "{dev}");
    let other = fanfare(&args).envs(&[("FANFARE_APP_KEY", "other"), ("FANFARE_APP_SECRET", "secret")]).run();
    assert_eq!(secret(other.succeeded()), Value::Null);
    assert!(other.stderr.starts_with("note: an encrypted channel's answer also needs shared_secret"), "{other}");
}

// --- health ---

#[test]
fn health_is_an_exit_code_for_containers() {
    let server = Server::dev();
    let admin = format!("http://{}", server.admin);
    let output = fanfare(&["health", "--url", &admin]).run();
    assert_eq!((output.succeeded(), output.stderr.as_str()), ("ready\n", ""));
    // In the container of a server there are its file and its variables, and no flags.
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("[admin]\nlisten = \"{}\"\n{APP}", server.admin));
    assert_eq!(fanfare(&["health"]).env("FANFARE_CONFIG", &file).run().succeeded(), "ready\n");
    assert_eq!(
        fanfare(&["health"]).env("FANFARE_ADMIN_LISTEN", &server.admin.to_string()).run().succeeded(),
        "ready\n"
    );
    let everywhere = format!("0.0.0.0:{}", server.admin.port());
    assert_eq!(fanfare(&["health"]).env("FANFARE_ADMIN_LISTEN", &everywhere).run().succeeded(), "ready\n");
    // Something else than an admin listener is no healthy server.
    let wrong = fanfare(&["health", "--url", &server.url()]).run();
    assert!(wrong.failed(1).contains("404 Not Found"), "{wrong}");
    let broken = folder.write("broken.toml", "[admin]\nlisten = 5\n");
    let output = fanfare(&["health", "--config", &broken]).run();
    assert!(output.failed(2).starts_with(&format!("{broken}:2: admin.listen: 5 is not an address")), "{output}");
    server.stop();
    let output = fanfare(&["health", "--url", &admin]).run();
    assert!(output.failed(1).starts_with(&format!("fanfare: nothing listens at {admin}")), "{output}");
}

// --- what all of them have in common ---

/// Each tool that asks a server, with just enough arguments.
const TOOLS: [&[&str]; 6] = [
    &["trigger", "room", "e"],
    &["channels"],
    &["channels", "room"],
    &["users", "presence-room"],
    &["terminate", "7"],
    &["listen", "private-room"],
];

#[test]
fn a_wrong_secret_is_a_failure_that_says_what_to_check() {
    let server = Server::dev();
    for args in TOOLS {
        let output = server.tool(&[args, &["--secret", "hunter2"]].concat()).run();
        let text = output.failed(1);
        assert!(text.contains("Invalid signature") && text.contains("--secret"), "{output}");
        assert!(!text.contains("hunter2"), "{output}");
        let by_variable = server.tool(args).env("FANFARE_APP_SECRET", "hunter2").run();
        assert!(by_variable.failed(1).contains("Invalid signature"), "{by_variable}");
    }
}

#[test]
fn a_wrong_app_is_a_failure_that_says_what_to_check() {
    let server = Server::dev();
    for args in TOOLS {
        let listens = args[0] == "listen";
        let wrong_key = server.tool(&[args, &["--key", "nobody"]].concat()).run();
        let expected =
            if listens { "4001 App key nobody not in this cluster" } else { "401 Unauthorized: Unknown auth_key" };
        assert!(wrong_key.failed(1).contains(expected), "{wrong_key}");
        assert!(wrong_key.stderr.contains("check ") && wrong_key.stderr.contains("--key"), "{wrong_key}");
        if !listens {
            let wrong_id = server.tool(&[args, &["--app-id", "1002"]].concat()).run();
            assert!(wrong_id.failed(1).contains(expected) && wrong_id.stderr.contains("--app-id"), "{wrong_id}");
        }
    }
}

#[test]
fn no_server_is_a_failure_that_asks_whether_it_runs() {
    let address = free_address();
    for args in TOOLS {
        let output = fanfare(args).env("FANFARE_URL", &format!("http://{address}")).run();
        let expected = format!("fanfare: nothing listens at http://{address}; is the server running there?");
        assert!(output.failed(1).starts_with(&expected), "{output}");
    }
}

#[test]
fn a_wrong_url_is_a_failure_that_says_what_is_wrong_with_it() {
    let server = Server::dev();
    let (admin, secure) = (format!("http://{}", server.admin), format!("https://{}", server.public));
    for args in TOOLS {
        let output = fanfare(&[args, &["--url", &admin]].concat()).run();
        assert!(output.failed(1).contains("404 Not Found"), "{output}");
        assert!(output.stderr.contains("is --url right, path prefix included?"), "{output}");
        let output = fanfare(&[args, &["--url", &secure]].concat()).run();
        assert!(output.failed(1).contains("is it an http:// server?"), "{output}");
        for url in ["ftp://127.0.0.1", "127.0.0.1:6001", "http://", ""] {
            let output = fanfare(&[args, &["--url", url]].concat()).run();
            output.failed(2);
        }
    }
}

#[test]
fn a_server_behind_a_path_prefix_is_reached_through_it() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", format!("{LISTENERS}{APP}"));
    let server = Server::start(fanfare(&["serve", "--config", &file, "--set", "server.path_prefix=/realtime"]));
    let tool = |args: &[&str]| -> Fanfare {
        let credentials = [
            ("FANFARE_APP_ID", "1"),
            ("FANFARE_APP_KEY", "file-key"),
            ("FANFARE_APP_SECRET", "the-secret-of-the-file"),
        ];
        fanfare(args).env("FANFARE_URL", &format!("{}/realtime/", server.url())).envs(&credentials)
    };
    let mut listener = tool(&["listen", "private-room", "--count=1"]).start();
    listener.expect_err("subscribed to private-room");
    tool(&["trigger", "private-room", "e"]).run().succeeded();
    listener.wait().exited(0);
    assert_eq!(tool(&["channels"]).run().succeeded(), "no channel is occupied\n");
}

#[test]
fn credentials_and_address_can_come_from_the_servers_own_configuration() {
    let folder = Folder::new();
    // The port is only known once the server has it, so the file for the tools is another one.
    let apps = format!("{APP}[[apps]]\nid = \"2\"\nkey = \"second-key\"\nsecret = \"second-secret\"\n");
    let server =
        Server::start(fanfare(&["serve", "--config", &folder.write("server.toml", format!("{LISTENERS}{apps}"))]));
    let listen = format!("[server]\nlisten = \"0.0.0.0:{}\"\n", server.public.port());
    let (one, two) = (folder.write("one.toml", format!("{listen}{APP}")), folder.write("two.toml", listen + &apps));
    for (args, app) in [
        (&["--config", &one][..], "file-key"),
        (&["--config", &two, "--app-id", "2"], "second-key"),
        (&["--config", &two, "--key", "file-key"], "file-key"),
    ] {
        let mut client = server.connect(app);
        client.subscribe("room");
        fanfare(&[&["trigger", "room", "e"], args].concat()).run().succeeded();
        client.event("e");
    }
    let undecided = fanfare(&["channels", "--config", &two]).run();
    assert_eq!(undecided.failed(2), "fanfare: choose one of the configured apps with --app-id: 1, 2\n");
    let unknown = fanfare(&["channels", "--config", &one, "--app-id", "7"]).run();
    assert_eq!(unknown.failed(2), "fanfare: no configured app has the id 7; the apps are: 1\n");
    let empty = fanfare(&["channels", "--config", &folder.write("empty.toml", "")]).run();
    assert_eq!(empty.failed(2), "fanfare: the configuration has no apps\n");
    let broken = fanfare(&["channels", "--config", &folder.path("missing.toml")]).run();
    assert!(broken.failed(2).contains("missing.toml: cannot be read: No such file"), "{broken}");

    // In a container, server and tools share an environment.
    let environment = [
        ("FANFARE_SERVER_LISTEN", &*server.public.to_string()),
        ("FANFARE_APPS_0_ID", "1"),
        ("FANFARE_APPS_0_KEY", "file-key"),
        ("FANFARE_APPS_0_SECRET_ENV", "ANY_NAME"),
        ("ANY_NAME", "the-secret-of-the-file"),
    ];
    let output = fanfare(&["channels"]).envs(&environment).run();
    assert_eq!(output.succeeded(), "no channel is occupied\n");
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let server = Server::dev();
    let mut process = server.tool(&["listen", "room"]).start();
    process.expect_err("subscribed to room");
    // Both streams end in a pipe that nobody reads.
    let script = "exec 3>&1; { fanfare \"$@\" 2>&1; echo \"code $?\" >&3; } | true";
    for args in [&["channels", "--help"][..], &["channels"], &["config", "--defaults"]] {
        let line = format!("sh -c '{script}' sh {}", args.join(" "));
        let output = Fanfare::typed(&line).env("FANFARE_URL", &server.url()).run();
        assert_eq!(output.stdout, "code 0\n", "{output}");
        assert!(!output.stderr.contains("panicked"), "{output}");
    }
    let line = format!("sh -c '{script}' sh listen room --key nobody");
    let output = Fanfare::typed(&line).env("FANFARE_URL", &server.url()).run();
    assert_eq!((output.stdout.as_str(), output.stderr.contains("panicked")), ("code 1\n", false), "{output}");
}
