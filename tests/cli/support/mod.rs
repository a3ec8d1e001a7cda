//! What all tests need: the binary, a server made of it, a client, and files that go away.

mod backend;
mod client;
mod fanfare;
mod faulty;
mod files;
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub use backend::Backend;
pub use client::{Client, Heard};
pub use fanfare::{Fanfare, Output, Process, fanfare};
pub use faulty::{Fault, faulty};
pub use files::{Folder, pem};
pub use server::{Server, draining};

/// Longer than anything takes on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The credentials of `fanfare dev`.
pub const KEY: &str = "app-key";

/// An app for a configuration file, after everything that is not its own.
pub const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"file-key\"\nsecret = \"the-secret-of-the-file\"\n";

/// Free ports, and a log that tells which.
pub const LISTENERS: &str = "[server]\nlisten = \"127.0.0.1:0\"\ndrain_period = \"0s\"\n\
                             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";

/// An address where nobody listens, and where nobody but the caller will: servers of other tests have other addresses,
/// and no connection begins there.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.77.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Status and body of a page.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no HTTP status: {head:?}")), body.to_owned())
}
