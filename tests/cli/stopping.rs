//! Signals: a server that is asked to stop sends its clients away in order, and one that is asked twice does not wait.

use std::net::TcpStream;
use std::time::Instant;

use crate::support::{DEADLINE, KEY, Server, fanfare, get};

/// Longer than any test: whoever is not sent away by a second signal stays.
const LONG: &str = "1h";

#[test]
fn clients_are_told_to_come_back_and_the_process_ends_well() {
    for (signal, name) in [("TERM", "SIGTERM"), ("INT", "SIGINT")] {
        let server = Server::draining("0s");
        let mut clients = [(); 3].map(|()| server.connect(KEY));
        server.process.signal(signal);
        for client in &mut clients {
            assert_eq!(client.closed(), 4200);
        }
        drop(clients);
        let output = server.process.wait();
        output.exited(0);
        let said = |text: &str| output.stderr.lines().filter(|line| line.contains(text)).count();
        assert_eq!(said(&format!("\"signal\":\"{name}\"")), 1, "{output}");
        assert_eq!((said("\"message\":\"stopping\""), said("\"message\":\"stopped\"")), (1, 1), "{output}");
    }
}

#[test]
fn a_server_without_clients_ends_without_delay() {
    let started = Instant::now();
    Server::draining(LONG).stop();
    assert!(started.elapsed() < DEADLINE);
}

#[test]
fn a_server_that_stops_is_alive_but_not_ready_and_takes_no_clients() {
    let server = Server::draining(LONG);
    // It does not answer the close frame, so that stopping takes a while.
    let mut client = server.connect(KEY);
    assert_eq!(server.readiness(), (200, "ready\n".to_owned()));
    server.process.signal("TERM");
    let deadline = Instant::now() + DEADLINE;
    let answer = loop {
        match server.readiness() {
            (200, _) => assert!(Instant::now() < deadline, "still ready: {}", server.process),
            answer => break answer,
        }
    };
    assert_eq!(answer, (503, "stopping\n".to_owned()));
    assert_eq!(get(server.admin, "/live"), (200, "live\n".to_owned()));
    assert_eq!(get(server.admin, "/metrics").0, 200);
    let health = fanfare(&["health", "--url", &format!("http://{}", server.admin)]).run();
    assert_eq!(health.failed(1), "fanfare: the server answered 503 Service Unavailable: stopping\n");
    // The public listener closes a moment after the answer changes.
    while TcpStream::connect(server.public).is_ok() {
        assert!(Instant::now() < deadline, "still listening: {}", server.process);
    }
    // Nobody has read its good-bye so far, which is what the server is waiting for.
    assert_eq!(client.closed(), 4200);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut server = Server::draining(LONG);
        let _client = server.connect(KEY);
        server.process.signal(first);
        server.process.expect_err("a second signal ends the process at once");
        server.process.signal(second);
        let output = server.process.wait();
        output.exited(1);
        assert!(output.stderr.lines().last().unwrap().contains(&format!("\"signal\":\"SIG{second}\"")), "{output}");
    }
}

#[test]
fn the_development_server_stops_in_the_same_way() {
    let server = Server::dev();
    server.process.signal("INT");
    server.process.wait().exited(0);
}
