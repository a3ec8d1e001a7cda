//! `fanfare bench`: every scenario against a real server, small; and what it says about servers that are wrong.

use std::fs;

use serde_json::Value;

use crate::support::{Fanfare, Fault, Folder, Process, Server, fanfare, faulty};

/// A scenario, measured at this server, as JSON; nothing may be wrong with it.
#[track_caller]
fn measure(server: &Server, args: &[&str]) -> Value {
    let pid = server.process.id().to_string();
    let output = server.tool(&[&["bench"], args, &["--json", "--pid", &pid]].concat()).run();
    let result: Value = serde_json::from_str(output.succeeded()).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(result["scenario"], args[0]);
    assert_eq!(result["target"], server.url());
    for kind in ["lost", "repeated", "out_of_order", "malformed", "unexpected"] {
        assert_eq!(result["errors"][kind], 0, "{output}");
    }
    result
}

/// These results have these values, and those are above zero.
#[track_caller]
fn check(result: &Value, exact: &[(&str, u64)], positive: &[&str]) {
    for (name, value) in exact {
        assert_eq!(result["results"][name], *value, "{name} in {result}");
    }
    for name in positive {
        assert!(result["results"][name].as_f64().is_some_and(|value| value > 0.0), "{name} in {result}");
    }
}

/// The latencies of so many deliveries.
#[track_caller]
fn check_latency(result: &Value, count: u64) {
    let latency = &result["latency_us"];
    assert_eq!(latency["count"], count, "{result}");
    let values = ["p50", "p99", "p999", "max"].map(|name| latency[name].as_u64().unwrap());
    assert!(values.is_sorted() && values[0] > 0, "{latency}");
}

#[test]
fn fanout_counts_every_delivery() {
    let server = Server::dev();
    let args = ["fanout", "--clients=30", "--rate=100", "--duration=0.5", "--bytes=200"];
    let result = measure(&server, &args);
    check(&result, &[("deliveries", 1500), ("events", 50)], &["cpu_us_per_delivery", "rss_bytes", "threads"]);
    check_latency(&result, 1500);
    assert_eq!(result["parameters"]["bytes"], 200);
    let samples = result["samples"].as_array().unwrap();
    let count: u64 = samples.iter().map(|sample| sample["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 1500, "{samples:?}");
    // Paced: fifty events at a hundred a second take half a second.
    assert!(result["results"]["seconds"].as_f64().unwrap() > 0.48, "{result}");
}

#[test]
fn every_transport_delivers_every_event_in_order() {
    let server = Server::dev();
    for transport in ["websocket", "xhr_streaming", "xhr_polling", "sockjs", "eventsource", "htmlfile", "jsonp"] {
        let args = ["fanout", "--clients=20", "--rate=100", "--duration=0.5", "--transport", transport];
        let result = measure(&server, &args);
        check(&result, &[("deliveries", 1000), ("events", 50)], &["cpu_us_per_delivery"]);
        assert_eq!(result["parameters"]["transport"], transport);
    }
}

#[test]
fn a_thousand_polling_clients_lose_nothing() {
    let args = ["fanout", "--clients=1000", "--rate=10", "--duration=2", "--transport=xhr_polling"];
    let result = measure(&Server::dev(), &args);
    check(&result, &[("deliveries", 20_000), ("events", 20)], &["cpu_us_per_delivery"]);
}

#[test]
fn burst_sends_over_several_connections() {
    let result = measure(&Server::dev(), &["burst", "--clients=20", "--events=100", "--publishers=4"]);
    check(&result, &[("deliveries", 2000), ("events", 100)], &["deliveries_per_second", "cpu_us_per_event"]);
    check_latency(&result, 2000);
}

#[test]
fn many_channels_get_their_own_events() {
    let args = ["many", "--clients=40", "--channels=20", "--rate=200", "--duration=0.5"];
    let result = measure(&Server::dev(), &args);
    check(&result, &[("deliveries", 200), ("events", 100)], &["cpu_us_per_delivery"]);
}

#[test]
fn client_events_reach_the_rest_of_the_group() {
    let args = ["client-events", "--clients=20", "--group=5", "--rate=200", "--duration=0.5"];
    let result = measure(&Server::dev(), &args);
    check(&result, &[("deliveries", 400), ("events", 100)], &["cpu_us_per_delivery"]);
    check_latency(&result, 400);
}

#[test]
fn idle_tells_connections_from_subscriptions() {
    let result = measure(&Server::dev(), &["idle", "--clients=300", "--channels=3"]);
    let positive = [
        "connections_per_second",
        "cpu_us_per_connection",
        "rss_bytes_per_connection",
        "subscriptions_per_second",
        "cpu_us_per_subscription",
        "cpu_us_per_subscribed_connection",
    ];
    check(&result, &[], &positive);
    assert!(result["latency_us"].is_null(), "{result}");
}

#[test]
fn publish_counts_requests_and_events() {
    let server = Server::dev();
    let result = measure(&server, &["publish", "--requests=200", "--publishers=3"]);
    check(&result, &[("requests", 200)], &["requests_per_second", "cpu_us_per_request"]);
    check_latency(&result, 200);
    let result = measure(&server, &["publish", "--requests=50", "--batch=10"]);
    let [requests, events] = ["requests_per_second", "events_per_second"].map(|name| result["results"][name].as_f64());
    assert!((events.unwrap() / requests.unwrap() - 10.0).abs() < 0.1, "{result}");
}

#[test]
fn everybody_in_a_presence_channel_hears_of_everybody() {
    let result = measure(&Server::dev(), &["presence", "--channels=3", "--members=10"]);
    // Each of the 30 gets a list; each pair of a channel meets once, either in a list or in an event.
    let joins = 30 + 3 * (10 * 9 / 2);
    check(&result, &[("joins", 30), ("events", joins), ("members_removed", 3 * 5 * 5)], &["cpu_us_per_event"]);
}

#[test]
fn churn_looks_at_the_memory_as_it_goes() {
    let result = measure(&Server::dev(), &["churn", "--cycles=200", "--concurrency=8"]);
    check(&result, &[("cycles", 200)], &["cycles_per_second", "cpu_us_per_cycle"]);
    assert_eq!(result["results"]["rss_bytes_after_each_tenth"].as_array().unwrap().len(), 10, "{result}");
    assert!(result["results"]["rss_slope_bytes_per_cycle"].is_number(), "{result}");
}

#[test]
fn slow_clients_are_sent_away_and_the_others_lose_nothing() {
    let args = ["slow", "--clients=6", "--stalled=2", "--bytes=10000", "--rate=1000", "--duration=1"];
    let result = measure(&Server::dev(), &args);
    let positive = ["rss_peak_bytes", "stalled_missed"];
    check(&result, &[("deliveries", 4000), ("events", 1000), ("stalled_closed", 2)], &positive);
    assert_eq!(result["results"]["stalled_close_codes"]["4100"], 2, "{result}");
}

#[test]
fn after_a_storm_everybody_is_subscribed_again() {
    let result = measure(&Server::dev(), &["storm", "--clients=100", "--channels=5"]);
    check(&result, &[], &["seconds", "clients_per_second", "cpu_us_per_client"]);
    check_latency(&result, 100);
}

#[test]
fn nodes_share_clients_and_triggers() {
    // One server under two names is a cluster that needs no Redis.
    let server = Server::dev();
    let node = server.url();
    let output = server
        .tool(&["bench", "cluster", "--node", &node, "--clients=10", "--rate=100", "--duration=0.2", "--json"])
        .run();
    let result: Value = serde_json::from_str(output.succeeded()).unwrap();
    check(&result, &[("deliveries", 200), ("events", 20)], &[]);
    assert_eq!(result["target"], format!("{node} {node}"));
    assert!(result["results"]["cpu_us_per_delivery"].is_null(), "nobody named a process: {result}");
}

#[test]
fn the_table_names_what_was_measured_and_a_comparison_shows_the_change() {
    let (server, folder) = (Server::dev(), Folder::new());
    let args = ["bench", "fanout", "--clients=5", "--rate=100", "--duration=0.3"];
    let plot = folder.path("run.svg");
    let output = server.tool(&[&args[..], &["--plot", &plot]].concat()).run();
    let text = output.succeeded();
    for part in ["fanout at http://", "clients 5", "deliveries ", "150", "latency, 99.9th percentile", "µs"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(output.stderr, "", "{output}");
    assert!(!text.contains("processor time"), "{text}");

    let older = server.tool(&[&args[..], &["--json"]].concat()).run();
    let older = folder.write("older.json", older.succeeded());
    let output = server.tool(&[&args[..], &["--compare", &older]].concat()).run();
    let text = output.succeeded();
    assert!(text.contains("BEFORE") && text.contains("CHANGE") && text.contains(" %"), "{text}");
    let deliveries = text.lines().find(|line| line.starts_with("deliveries  ")).unwrap();
    assert_eq!(deliveries.split_whitespace().collect::<Vec<_>>(), ["deliveries", "150", "150", "same"]);

    let svg = fs::read_to_string(plot).unwrap();
    assert!(is_well_formed(&svg), "{svg}");
    for part in ["<svg", "latency, ms", "99th percentile", "50th percentile", "highest", "deliveries per second"] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    assert!(svg.matches("<polyline").count() >= 4, "{svg}");
}

/// Whether every element of an SVG document is closed by itself or by its own end.
fn is_well_formed(text: &str) -> bool {
    let mut open = Vec::new();
    for tag in text.split('<').skip(1) {
        let Some((tag, content)) = tag.split_once('>') else { return false };
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        let fits = match tag {
            _ if tag.starts_with(['?', '!']) || tag.ends_with('/') => true,
            _ if tag.starts_with('/') => open.pop() == Some(name),
            _ => {
                open.push(name);
                true
            }
        };
        if !fits || tag.matches('"').count() % 2 == 1 || content.replace("&amp;", "").contains("& ") {
            return false;
        }
    }
    open.is_empty() && text.contains('<')
}

/// A short run against a server with a fault, not waited for.
#[track_caller]
fn run_against(fault: Fault) -> Process {
    let url = format!("http://{}", faulty(fault));
    let args = ["bench", "fanout", "--clients=3", "--rate=100", "--duration=0.1", "--timeout=2", "--json"];
    fanfare(&args).env("FANFARE_URL", &url).start()
}

#[test]
fn a_server_that_spells_its_messages_differently_is_fine() {
    let output = run_against(Fault::None).wait();
    let result: Value = serde_json::from_str(output.succeeded()).unwrap();
    check(&result, &[("deliveries", 30), ("events", 10)], &[]);
}

#[test]
fn every_wrong_delivery_is_counted_and_the_first_is_named() {
    type Counts = &'static [(&'static str, u64)];
    let table: &[(Fault, Counts, &str)] = &[
        (Fault::Loses, &[("lost", 3)], "3 lost (first: client 0 missed event 2 of publisher 0 on bench-"),
        (Fault::Repeats, &[("repeated", 3)], "3 repeated (first: client 0 got event 2 of publisher 0 on bench-"),
        (Fault::Swaps, &[("out_of_order", 3)], "3 out of order (first: client 0 got event 2 of publisher 0 on bench-"),
        (Fault::Garbles, &[("malformed", 3), ("lost", 3)], "other data than was sent: \"00000000000002:xy"),
        (Fault::Misdelivers, &[("malformed", 3), ("lost", 3)], "an event of elsewhere"),
        (Fault::Invents, &[("malformed", 3)], "which was never sent, event 29 of publisher 0"),
        (Fault::Disconnects, &[("unexpected", 1), ("lost", 8)], "the server closed client 0 with 4100 \"enough\""),
    ];
    // All at once: some of them wait for what never comes.
    let runs: Vec<Process> = table.iter().map(|(fault, ..)| run_against(*fault)).collect();
    for ((fault, expected, example), run) in table.iter().zip(runs) {
        let output = run.wait();
        output.exited(1);
        let result: Value = serde_json::from_str(&output.stdout).unwrap();
        for kind in ["lost", "repeated", "out_of_order", "malformed", "unexpected"] {
            let count = expected.iter().find(|(name, _)| *name == kind).map_or(0, |(_, count)| *count);
            assert_eq!(result["errors"][kind], count, "{fault:?} {kind}: {output}");
        }
        assert!(output.stderr.contains("not every delivery was as it should be: "), "{fault:?}: {output}");
        // Which client is the first one is up to the system, except where the fault chooses it.
        let said =
            ["client 1", "client 2"].iter().fold(output.stderr.clone(), |text, name| text.replace(name, "client 0"));
        assert!(said.contains(example), "{fault:?}: {example:?} is not in {output}");
    }
}

#[test]
fn a_server_that_cannot_be_measured_ends_the_run_with_the_reason() {
    let table = [
        (Fault::Refuses, "the server answered a trigger with 413: {}"),
        (Fault::Ignores, "nothing happened for 2 s while waiting for the answer to trigger 1 of 1"),
        (Fault::IsNoWebSocket, "the server answered the WebSocket upgrade with \"HTTP/1.1 404 Not Found\""),
        (
            Fault::ConfirmsNothing,
            "nothing happened for 2 s while waiting for the confirmations of 3 subscriptions; 0 came",
        ),
        (Fault::SaysNothing, "nothing happened for 2 s while waiting for the greetings of 3 clients; 0 came"),
    ];
    let runs = table.map(|(fault, _)| run_against(fault));
    for ((fault, expected), run) in table.into_iter().zip(runs) {
        let output = run.wait();
        assert_eq!(output.failed(1).trim_end(), format!("fanfare: {expected}"), "{fault:?}");
    }
}

#[test]
fn a_mistake_in_the_arguments_is_explained_before_anything_is_measured() {
    let folder = Folder::new();
    let other = folder.write("other.json", r#"{"scenario":"idle"}"#);
    let text = folder.write("text.json", "no JSON");
    let table: &[(&[&str], &str)] = &[
        (&["fanout", "--clients", "0"], "expected a whole number from 1 on"),
        (&["fanout", "--rate=-1"], "expected a number above 0"),
        (&["fanout", "--duration", "0"], "expected a number above 0"),
        (&["fanout", "--timeout", "soon"], "expected a number of seconds above 0"),
        (&["fanout", "--bytes", "3"], "--bytes 3 is too small"),
        (&["fanout", "--url", "https://localhost"], "only http:// servers can be measured"),
        (&["fanout", "--compare", &other], "the result of another scenario, idle"),
        (&["fanout", "--compare", &text], "not JSON"),
        (&["fanout", "--compare", "/nowhere"], "No such file"),
        (&["fanout", "--compare", &other, "--json"], "cannot be used with"),
        (&["many", "--clients", "5", "--channels", "6"], "at least as many clients as channels"),
        (&["client-events", "--clients", "10", "--rate", "101"], "--rate 101 is more than 10 per second and client"),
        (&["slow", "--clients", "5", "--stalled", "5"], "--stalled must be less than --clients"),
        (&["cluster", "--node", "localhost"], "--node localhost: expected http://"),
        (&["nonsense"], "unrecognized subcommand"),
        (&[], "Usage: fanfare bench"),
    ];
    for (args, expected) in table {
        let output = fanfare(&[&["bench"], *args].concat()).run();
        let said = output.failed(2);
        assert!(said.contains(expected), "{args:?}: {expected:?} is not in {said:?}");
    }
}

#[test]
fn too_few_open_files_and_a_process_that_is_not_there_are_named() {
    let output = Fanfare::with_open_files(64, &["bench", "fanout", "--clients=100"]).run();
    let said = output.failed(1);
    assert!(said.contains("133 open files are needed and 64 allowed"), "{said}");
    let output = fanfare(&["bench", "fanout", "--pid=4294967295"]).run();
    assert!(output.failed(1).contains("cannot read /proc/4294967295"), "{output}");
}
