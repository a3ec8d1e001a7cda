//! `fanfare listen`: a Pusher client for a terminal.

use serde_json::{Value, json};

use crate::support::{KEY, Process, Server, draining, fanfare, free_address};

#[track_caller]
fn listen(server: &Server, args: &[&str]) -> Process {
    server.tool(&[&["listen"], args].concat()).start()
}

#[track_caller]
fn trigger(server: &Server, channel: &str, event: &str) {
    server.tool(&["trigger", channel, event, "{\"n\":1}"]).run().succeeded();
}

#[test]
fn events_are_printed_one_a_line_as_they_arrive() {
    let server = Server::dev();
    let mut listener = listen(&server, &["room", "other"]);
    let connected = listener.expect_err("connected to");
    assert!(connected.starts_with(&format!("fanfare: connected to {} as ", server.url())), "{connected}");
    listener.expect_err("fanfare: subscribed to room");
    listener.expect_err("fanfare: subscribed to other");
    trigger(&server, "room", "my-event");
    let line = listener.expect_out("my-event");
    let (time, rest) = line.split_once("  ").unwrap();
    assert_eq!(rest, "room  my-event  {\"n\":1}");
    let is_time = time.len() == "01:02:03.456Z".len() && time.ends_with('Z') && time.chars().nth(8) == Some('.');
    assert!(is_time, "{line}");
    // A sender cannot break the line or move the cursor.
    server.tool(&["trigger", "other", "odd", "a\nb\u{1b}[2J"]).run().succeeded();
    assert!(listener.expect_out("odd").ends_with("  other  odd  a\\nb\\u{1b}[2J"));
    // Ctrl-C is how it ends.
    listener.signal("INT");
    let output = listener.wait();
    assert_eq!(output.succeeded().lines().count(), 2, "{output}");
}

#[test]
fn json_is_the_message_that_came() {
    let server = Server::dev();
    let mut listener = listen(&server, &["room", "--json", "--count=1"]);
    listener.expect_err("subscribed to room");
    trigger(&server, "room", "my-event");
    let output = listener.wait();
    let message: Value = serde_json::from_str(output.succeeded()).unwrap();
    assert_eq!(message, json!({ "event": "my-event", "channel": "room", "data": "{\"n\":1}" }));
}

#[test]
fn the_protocols_own_messages_are_printed_if_asked_for() {
    let server = Server::dev();
    let mut listener = listen(&server, &["room", "cache-x", "--all", "--count=1"]);
    for event in ["pusher:subscription_succeeded", "pusher:subscription_count", "pusher:cache_miss"] {
        listener.expect_out(event);
    }
    trigger(&server, "room", "my-event");
    // They do not count.
    assert!(listener.wait().succeeded().lines().last().unwrap().contains("my-event"));
}

#[test]
fn it_ends_after_as_many_events_as_asked_for() {
    let server = Server::dev();
    let mut listener = listen(&server, &["room", "--count", "3"]);
    listener.expect_err("subscribed to room");
    for event in ["one", "two", "three", "four"] {
        trigger(&server, "room", event);
    }
    let output = listener.wait();
    let events: Vec<&str> = output.succeeded().lines().map(|line| line.split("  ").nth(2).unwrap()).collect();
    assert_eq!(events, ["one", "two", "three"]);
    let none = fanfare(&["listen", "room", "--count", "0"]).run();
    assert!(none.failed(2).contains("--count"), "{none}");
}

#[test]
fn private_and_presence_channels_are_signed_for() {
    let server = Server::dev();
    let args = ["private-a", "presence-b", "private-encrypted-c", "private-cache-d", "--user-id=7"];
    let mut ann = listen(&server, &[&args[..], &["--user-info={\"name\":\"Ann\"}"]].concat());
    ann.expect_err("subscribed to private-a");
    ann.expect_err("subscribed to presence-b; its members: 7");
    ann.expect_err("subscribed to private-encrypted-c");
    ann.expect_err("private-cache-d has no event cached");
    let mut bob = listen(&server, &["presence-b", "--user-id=8"]);
    bob.expect_err("subscribed to presence-b; its members: 7, 8");
    let line = ann.expect_out("pusher:member_added");
    assert!(line.contains("  presence-b  ") && line.contains("\"user_id\":\"8\""), "{line}");
    bob.signal("TERM");
    bob.wait().exited(0);
    ann.expect_out("pusher:member_removed");
    for channel in ["private-a", "presence-b", "private-cache-d"] {
        trigger(&server, channel, "my-event");
        ann.expect_out(&format!("  {channel}  my-event  "));
    }
}

#[test]
fn the_sender_of_a_client_event_is_named() {
    let server = Server::dev();
    let mut listener = listen(&server, &["presence-room", "--user-id=7"]);
    listener.expect_err("subscribed to presence-room");
    let mut client = server.connect(KEY);
    let data = ["--channel-data", "{\"user_id\":\"8\"}"];
    let signed = server.tool(&[&["sign", "presence-room", "--socket-id", &client.socket_id], &data[..]].concat()).run();
    let mut answer: Value = serde_json::from_str(signed.succeeded()).unwrap();
    answer["channel"] = json!("presence-room");
    client.send("pusher:subscribe", answer);
    client.event("pusher_internal:subscription_succeeded");
    client.send_text(r#"{"event":"client-typing","channel":"presence-room","data":{"on":true}}"#);
    let line = listener.expect_out("client-typing");
    assert!(line.ends_with("  presence-room  client-typing  {\"on\":true}  user_id=8"), "{line}");
}

#[test]
fn whoever_signs_in_gets_its_own_events_and_news_of_those_it_watches() {
    let server = Server::dev();
    let mut ann = listen(&server, &["--sign-in=7", "--watch=8,9"]);
    ann.expect_err("fanfare: signed in as 7");
    let line = ann.expect_out("pusher:watchlist_events");
    assert!(line.contains("offline") && line.contains("[\"8\",\"9\"]"), "{line}");
    let mut bob = listen(&server, &["--sign-in=8", "presence-room"]);
    bob.expect_err("fanfare: signed in as 8");
    // Who has signed in needs not say again who it is.
    bob.expect_err("subscribed to presence-room; its members: 8");
    let line = ann.expect_out("online");
    assert!(line.contains("[\"8\"]"), "{line}");
    trigger(&server, "#server-to-user-7", "note");
    ann.expect_out("  note  {\"n\":1}");
    bob.signal("INT");
    bob.wait().exited(0);
    // After the delay that spares watchers the news of a reloaded page.
    let line = ann.expect_out("offline");
    assert!(line.contains("[\"8\"]"), "{line}");
}

#[test]
fn it_comes_back_when_the_server_does() {
    let address = free_address().to_string();
    let server = Server::start(draining(&address, "0s"));
    let mut listener = listen(&server, &["room", "presence-room", "--user-id=7", "--count=2"]);
    listener.expect_err("subscribed to presence-room");
    trigger(&server, "room", "before");
    listener.expect_out("before");
    server.stop();
    listener.expect_err("the server closed the connection: 4200 Server is shutting down; connecting again");
    listener.expect_err(&format!("nothing listens at http://{address}"));
    let server = Server::start(draining(&address, "0s"));
    listener.expect_err("connected to");
    listener.expect_err("subscribed to room");
    listener.expect_err("subscribed to presence-room; its members: 7");
    trigger(&server, "room", "after");
    let output = listener.wait();
    assert_eq!(output.succeeded().lines().count(), 2, "{output}");
    // Said once, however often it was tried.
    assert_eq!(output.stderr.matches("nothing listens").count(), 1, "{output}");
}

#[test]
fn a_server_that_vanishes_without_a_goodbye_is_waited_for_as_well() {
    let server = Server::dev();
    let mut listener = listen(&server, &["room"]);
    listener.expect_err("subscribed to room");
    server.process.signal("KILL");
    let line = listener.expect_err("connecting again");
    assert!(line.contains("the connection broke: "), "{line}");
    listener.signal("INT");
    listener.wait().exited(0);
}

#[test]
fn a_disconnect_is_a_failure_if_it_is_to_connect_once() {
    let server = Server::draining("0s");
    let mut listener = listen(&server, &["room", "--once"]);
    listener.expect_err("subscribed to room");
    server.process.signal("TERM");
    let output = listener.wait();
    let last = output.failed(1).lines().last();
    assert_eq!(last, Some("fanfare: the server closed the connection: 4200 Server is shutting down"), "{output}");
}

#[test]
fn a_refusal_ends_it_with_advice() {
    let server = Server::dev();
    for (args, code, expected) in [
        (&["room", "--key=nobody"][..], 1, "fanfare: the server closed the connection: 4001 App key nobody"),
        (
            &["private-room", "--secret=wrong"],
            1,
            "fanfare: every subscription was refused; for a wrong signature, check",
        ),
        (&["--sign-in=7", "--secret=wrong"], 1, "fanfare: the server refused to sign us in: Invalid signature"),
        (&["presence-room"], 2, "fanfare: presence-room shows who is there: say who you are with --user-id ID"),
        (&["#server-to-user-7"], 2, "fanfare: #server-to-user-7 is for whoever signed in: use --sign-in 7"),
        (&["a room"], 2, "fanfare: Invalid channel name: a room; allowed are letters"),
        (&["room", "--user-info={"], 2, "error: invalid value '{' for '--user-info <JSON>': not JSON"),
        (
            &["room", "--watch=8"],
            2,
            "error: the following required arguments were not provided:\n  --sign-in <USER_ID>",
        ),
        (&[], 2, "error: the following required arguments were not provided:\n  <CHANNEL>..."),
    ] {
        let output = listen(&server, args).wait();
        assert!(output.failed(code).contains(expected), "{expected}\n{output}");
    }
    // One refused channel among others is only mentioned.
    let mut listener = listen(&server, &["room", &"x".repeat(165)]);
    listener.expect_err("subscribed to room");
    listener.expect_err("the server says: Invalid channel name");
    trigger(&server, "room", "my-event");
    listener.expect_out("my-event");
}
