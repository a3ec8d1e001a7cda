//! A low limit of open files: the server knows it, tells those who find no place, and outlives a flood.

use std::net::TcpStream;
use std::time::Instant;

use crate::support::{Client, DEADLINE, Fanfare, KEY, Server};

const OPEN_FILES: u32 = 80;
const PATH: &str = "/app/app-key?protocol=7";

fn server() -> Server {
    let args = ["dev", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"];
    Server::start(Fanfare::with_open_files(OPEN_FILES, &args))
}

#[test]
fn clients_above_the_ceiling_are_told_to_come_back_later() {
    let mut server = server();
    let ceiling = server.listening["max_connections"].as_u64().unwrap();
    assert!((20..u64::from(OPEN_FILES)).contains(&ceiling), "{}", server.listening);
    let mut clients: Vec<Client> = (0..ceiling).map(|_| server.connect(KEY)).collect();
    // After the upgrade, so that a browser can read it.
    for _ in 0..3 {
        assert_eq!(Client::open(server.public, PATH).closed(), 4100);
        let line = server.process.expect_err("client refused");
        assert!(line.contains("\"code\":4100") && line.contains("Over capacity"), "{line}");
    }
    clients.iter_mut().for_each(Client::is_answered);
    clients.pop().unwrap().leave();
    clients.push(server.connect(KEY));
    assert_eq!(server.readiness().0, 200);
    drop(clients);
    let log = server.stop().stderr;
    assert!(log.contains(&format!("\"limit\":{OPEN_FILES}")), "the limit is not in {log}");
}

#[test]
fn a_flood_of_connections_is_survived() {
    let mut server = server();
    let mut client = server.connect(KEY);
    // More than there are files, and they say nothing. The system takes those that the server cannot.
    let flood: Vec<TcpStream> =
        (0..3 * OPEN_FILES).map(|_| TcpStream::connect_timeout(&server.public, DEADLINE).unwrap()).collect();
    let line = server.process.expect_err("cannot accept connections");
    assert!(line.contains("\"level\":\"ERROR\"") && line.contains("Too many open files"), "{line}");
    client.is_answered();
    drop(flood);
    // It needs a moment to see that they are gone; until then it may have no place, but it always answers.
    let deadline = Instant::now() + DEADLINE;
    let mut clients = Vec::new();
    while clients.len() < 10 {
        assert!(Instant::now() < deadline, "it does not recover: {}", server.process);
        clients.extend(Client::try_open(server.public, PATH, &[]));
    }
    clients.iter_mut().for_each(|client| drop(client.greeted()));
    client.is_answered();
    assert_eq!(server.readiness().0, 200);
    drop((client, clients));
    server.stop();
}

#[test]
fn a_configured_ceiling_that_the_limit_does_not_allow_is_corrected_with_a_warning() {
    let start = |ceiling: &str| {
        let listen = ["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"];
        let app = ["--set=apps.0.id=1", "--set=apps.0.key=app-key", "--set=apps.0.secret=long-enough-secret", ceiling];
        Server::start(Fanfare::with_open_files(OPEN_FILES, &[listen, app].concat()))
    };
    let server = start("--set=server.max_connections=1000");
    let ceiling = server.listening["max_connections"].as_u64().unwrap();
    assert!(ceiling < u64::from(OPEN_FILES), "{}", server.listening);
    let log = server.stop().stderr;
    assert!(log.contains("server.max_connections is more than the open-file limit allows"), "{log}");

    let server = start("--set=server.max_connections=2");
    assert_eq!(server.listening["max_connections"], 2);
    let clients = [(); 2].map(|()| server.connect(KEY));
    assert_eq!(Client::open(server.public, PATH).closed(), 4100);
    drop(clients);
    let log = server.stop().stderr;
    assert!(!log.contains("WARN"), "{log}");
}
