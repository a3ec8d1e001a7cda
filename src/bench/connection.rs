//! One client: a TCP connection on its way from the upgrade to the close.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

use super::engine::Http;
use super::frame;

/// Connections from one source address. The system has about 28,000 ports for each, but prefers every second one: once
/// these are taken, each further connection searches for a long time.
const PER_SOURCE: usize = 10_000;
/// Source addresses, the last number of 127.0.0.x.
const SOURCES: usize = 250;
/// What a client that stops reading leaves the kernel to buffer, in bytes.
const SMALL_RECEIVE_BUFFER: usize = 4096;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP is not there yet.
    Connecting,
    /// The upgrade is on its way.
    Upgrading,
    /// Upgraded; the greeting is on its way.
    Greeting,
    /// Greeted.
    Open,
    /// Said goodbye; waiting for the server to do the same.
    Leaving,
}

/// One client of the measured server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    /// The beginning of a frame whose end has not come.
    pub(super) remainder: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    /// Its session, if it has an HTTP transport.
    pub(super) http: Option<Box<Http>>,
    /// The connection's name, once greeted; what signatures are made for.
    pub(super) socket_id: Box<str>,
    /// Subscriptions that were asked for and not confirmed.
    pub(super) awaited: u32,
    /// Whether it has stopped reading.
    pub(super) stalled: bool,
}

impl Connection {
    /// Begins to connect. `serial` picks the source address if the target is this machine.
    pub(super) fn open(address: SocketAddr, serial: usize, small_buffer: bool) -> io::Result<Self> {
        let buffer = small_buffer.then_some(SMALL_RECEIVE_BUFFER);
        let stream = connect(address, serial, buffer)?;
        Ok(Self {
            stream,
            stage: Stage::Connecting,
            remainder: Vec::new(),
            unsent: Vec::new(),
            http: None,
            socket_id: Box::default(),
            awaited: 0,
            stalled: false,
        })
    }

    /// Sends one frame, or as much of it as the socket takes now.
    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::write(opcode, payload, &mut bytes);
        self.send_bytes(&bytes)
    }

    /// The same for bytes that are no frame.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend(bytes);
            return Ok(());
        }
        let sent = write_some(&mut self.stream, bytes)?;
        self.unsent.extend(&bytes[sent..]);
        Ok(())
    }

    /// Sends what the socket did not take before.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let sent = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }
}

/// Begins to connect; on loopback from one of several addresses.
pub(super) fn connect(address: SocketAddr, serial: usize, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    let source = serial / PER_SOURCE % SOURCES;
    // The first ones need no source address of their own, nor do ports of other machines run out.
    if let (IpAddr::V4(ip), true) = (address.ip(), source > 0)
        && ip.is_loopback()
    {
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(source + 1).unwrap_or(1));
        socket.bind(&SocketAddr::new(source.into(), 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        // EINPROGRESS: what every connect of a non-blocking socket says.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(IN_PROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// `EINPROGRESS`, for which `std` has no stable name.
const IN_PROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// Writes as much as the socket takes without waiting.
pub(super) fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
