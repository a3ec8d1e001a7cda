//! `fanfare webhooks`: what an operator sees of webhooks that fail, and can do about them.

use std::time::Instant;

use serde_json::Value;

use crate::support::{Backend, DEADLINE, Fanfare, Folder, KEY, LISTENERS, Server, fanfare, free_address, pem};

/// A server with the app of `fanfare dev` and these endpoints, which gives up after one attempt.
fn serve(folder: &Folder, urls: &[&str]) -> Server {
    Server::start(command(folder, urls))
}

fn command(folder: &Folder, urls: &[&str]) -> Fanfare {
    let data = folder.path("data");
    let endpoints: String = urls.iter().map(|url| format!("[[apps.webhooks]]\nurl = \"{url}\"\n")).collect();
    let file = folder.write(
        "fanfare.toml",
        format!(
            "{LISTENERS}[webhooks]\ndata_dir = {data:?}\nretry_period = \"0s\"\n\
             [[apps]]\nid = \"1001\"\nkey = \"{KEY}\"\nsecret = \"app-secret\"\n{endpoints}"
        ),
    );
    fanfare(&["serve", "--config", &file])
}

fn webhooks(server: &Server, args: &[&str]) -> Fanfare {
    let url = format!("http://{}", server.admin);
    fanfare(&[&["webhooks"], args, &["--url", &url]].concat())
}

/// The dead letters, once there are so many.
#[track_caller]
fn dead_letters(server: &Server, expected: usize) -> Vec<Value> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let listing: Value = serde_json::from_str(webhooks(server, &["list", "--json"]).run().succeeded()).unwrap();
        let deliveries = listing["deliveries"].as_array().unwrap();
        let dead: Vec<_> = deliveries.iter().filter(|delivery| delivery["state"]["name"] == "dead").cloned().collect();
        if dead.len() == expected && dead.len() == deliveries.len() {
            return dead;
        }
        assert!(Instant::now() < deadline, "not {expected} dead letters but {listing:#}; {}", server.process);
    }
}

#[test]
fn without_endpoints_there_is_nothing_to_show() {
    let folder = Folder::new();
    let server = serve(&folder, &[]);
    assert_eq!(webhooks(&server, &["list"]).run().succeeded(), "no webhook endpoint is configured\n");
    assert!(!std::path::Path::new(&folder.path("data")).exists());
    let output = webhooks(&server, &["test"]).run();
    assert_eq!(output.failed(1), "fanfare: no endpoint of that app and URL is configured\n");
}

#[test]
fn a_dead_letter_is_shown_with_its_attempts_and_sent_again_under_its_id() {
    let (folder, address) = (Folder::new(), free_address().to_string());
    let url = format!("http://{address}/hook");
    let server = serve(&folder, &[&url]);
    let mut client = server.connect(KEY);
    client.subscribe("room");
    let dead = dead_letters(&server, 1);
    let id = dead[0]["id"].as_str().unwrap();

    let list = webhooks(&server, &["list"]).run();
    let lines: Vec<_> = list.succeeded().lines().collect();
    assert_eq!(lines.len(), 5, "{list}");
    assert!(lines[1].contains(&url) && lines[1].contains("FAILS: Connection refused"), "{list}");
    assert!(lines[4].starts_with(&format!("{id}  dead ")) && lines[4].contains("channel_occupied room"), "{list}");
    let show = webhooks(&server, &["show", id]).run();
    assert!(show.succeeded().contains("reason    Connection refused"), "{show}");
    assert!(
        show.stdout.lines().any(|line| line.contains(" ago  Connection refused") && line.ends_with(" ms")),
        "{show}"
    );
    assert!(show.stdout.ends_with("events\n  {\"channel\":\"room\",\"name\":\"channel_occupied\"}\n"), "{show}");
    let json: Value = serde_json::from_str(webhooks(&server, &["show", id, "--json"]).run().succeeded()).unwrap();
    assert_eq!((&json["id"], &json["url"]), (&Value::from(id), &Value::from(url)));

    let backend = Backend::start(&address, "204 No Content", "");
    assert_eq!(webhooks(&server, &["replay", id]).run().succeeded(), format!("{id} will be sent again\n"));
    let request = backend.request();
    assert_eq!(request.header("x-fanfare-delivery"), id);
    assert_eq!(request.body["events"], serde_json::json!([{ "name": "channel_occupied", "channel": "room" }]));
    assert!(request.body["time_ms"].as_u64() > dead[0]["time_ms"].as_u64());
    dead_letters(&server, 0);
    let again = webhooks(&server, &["replay", id]).run();
    assert_eq!(again.failed(1), format!("fanfare: no dead letter has the id {id}\n"));
    let list = webhooks(&server, &["list"]).run();
    assert!(list.succeeded().ends_with("\n\nnothing has failed\n") && list.stdout.contains("  fine, last "), "{list}");
}

#[test]
fn all_dead_letters_of_an_app_are_sent_again_at_once() {
    let (folder, address) = (Folder::new(), free_address().to_string());
    let server = serve(&folder, &[&format!("http://{address}/hook")]);
    let mut client = server.connect(KEY);
    for channel in ["a", "b", "c"] {
        client.subscribe(channel);
    }
    dead_letters(&server, 3);
    let backend = Backend::start(&address, "200 OK", "");
    let sent = |args: &[&str]| webhooks(&server, &[&["replay", "--all"], args].concat()).run().succeeded().to_owned();
    assert_eq!(sent(&["--app-id", "7"]), "dead letters that will be sent again: 0\n");
    assert_eq!(sent(&["--app-id", "1001"]), "dead letters that will be sent again: 3\n");
    let mut channels = [(); 3].map(|()| backend.request().body["events"][0]["channel"].as_str().unwrap().to_owned());
    channels.sort();
    assert_eq!(channels, ["a", "b", "c"]);
}

#[test]
fn a_test_is_signed_and_shows_what_the_endpoint_answers() {
    let good = Backend::start("127.0.0.1:0", "200 OK", "welcome\n");
    let bad = Backend::start("127.0.0.1:0", "500 Internal Server Error", "oh no");
    let folder = Folder::new();
    let server = serve(&folder, &[&good.url(), &bad.url()]);
    let args = ["test", "--endpoint", &good.url(), "--event", "member_added", "--channel", "presence-a"];
    let output = webhooks(&server, &args).run();
    assert!(output.succeeded().starts_with(&format!("{}  0 s ago  status 200 in ", good.url())), "{output}");
    assert!(output.stdout.ends_with("  \"welcome\\\\n\"\n"), "{output}");
    let request = good.request();
    assert_eq!(request.header("x-pusher-key"), KEY);
    assert_eq!(request.header("x-pusher-signature").len(), 64);
    let event = serde_json::json!({ "name": "member_added", "channel": "presence-a", "user_id": "fanfare-test" });
    assert_eq!(request.body["events"], serde_json::json!([event]));

    let output = webhooks(&server, &["test"]).run();
    output.exited(1);
    assert_eq!(output.stdout.lines().count(), 2, "{output}");
    assert!(output.stdout.contains("status 500 in ") && output.stdout.contains("\"oh no\""), "{output}");
    assert_eq!(output.stderr, "fanfare: not every endpoint answered with a 2xx status\n");
    assert_eq!(bad.request().body["events"][0]["name"], "channel_occupied");
    // A test is kept nowhere.
    dead_letters(&server, 0);
}

#[test]
fn what_does_not_exist_is_named() {
    let folder = Folder::new();
    let server = serve(&folder, &[]);
    let output = webhooks(&server, &["show", "1-2"]).run();
    assert_eq!(output.failed(1), "fanfare: no webhook with the id 1-2 is being delivered or was given up\n");
    let output = webhooks(&server, &["replay", "1-2"]).run();
    assert_eq!(output.failed(1), "fanfare: no dead letter has the id 1-2\n");
    let output = fanfare(&["webhooks", "list", "--url", &server.url()]).run();
    assert!(output.failed(1).contains("404 Not Found: Not found\n(is --url right"), "{output}");
}

#[test]
fn an_endpoint_over_tls_is_recognised_by_the_systems_certificates() {
    let folder = Folder::new();
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let roots = folder.write("roots.pem", pem("CERTIFICATE", certificate.cert.der()));
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let others = folder.write("others.pem", pem("CERTIFICATE", other.cert.der()));
    let backend = Backend::start_tls(&certificate);

    let server = Server::start(command(&folder, &[&backend.url()]).env("SSL_CERT_FILE", &roots));
    let mut client = server.connect(KEY);
    client.subscribe("room");
    assert_eq!(backend.request().body["events"][0]["channel"], "room");
    drop(client);
    server.stop();

    let folder = Folder::new();
    let server = Server::start(command(&folder, &[&backend.url()]).env("SSL_CERT_FILE", &others));
    let output = webhooks(&server, &["test"]).run();
    output.exited(1);
    assert!(output.stdout.contains("invalid peer certificate"), "{output}");
}

#[test]
fn without_root_certificates_an_endpoint_over_tls_keeps_the_server_from_starting() {
    let folder = Folder::new();
    let empty = folder.write("empty.pem", "");
    let output = command(&folder, &["https://127.0.0.1:1/hook"]).env("SSL_CERT_FILE", &empty).run();
    output.exited(1);
    assert!(output.stderr.contains("apps.webhooks.url: https:// needs the system's root certificates: "), "{output}");
    // A plain one needs none.
    Server::start(command(&folder, &["http://127.0.0.1:1/hook"]).env("SSL_CERT_FILE", &empty));
}

#[test]
fn a_data_directory_belongs_to_one_server() {
    let folder = Folder::new();
    let server = serve(&folder, &["http://127.0.0.1:1/hook"]);
    let output = command(&folder, &["http://127.0.0.1:1/hook"]).run();
    output.exited(1);
    let expected = format!("webhooks.data_dir: {}: is in use by another process", folder.path("data"));
    assert!(output.stderr.contains(&expected), "{output}");
    server.stop();
    serve(&folder, &["http://127.0.0.1:1/hook"]);
}
