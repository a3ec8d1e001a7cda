//! Ports for programs that cannot choose one by themselves and tell.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A loopback port that stays ours, listened on or not: a socket is bound to it that does not listen. A program that
/// sets `SO_REUSEADDR`, as servers do, can listen beside it; nobody else is given this port, and while nobody listens,
/// connections are refused.
pub struct Port {
    /// The address.
    pub addr: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// A free one.
    pub fn free() -> Self {
        let held = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self { addr: held.local_addr().unwrap(), _held: held }
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.addr.port()
    }

    /// Listens on it in this process.
    pub fn listen(&self) -> TcpListener {
        socket(self.addr).listen(1024).unwrap()
    }
}

fn socket(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap_or_else(|error| panic!("cannot bind {addr}: {error}"));
    socket
}
