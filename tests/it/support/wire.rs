//! A socket that speaks HTTP/1.1 heads and WebSocket frames, byte by byte, so that tests can also speak them wrongly.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Anything that carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The opcodes of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A WebSocket frame from the server.
#[derive(Debug, Clone)]
pub struct Frame {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

/// What a WebSocket connection can bring next.
#[derive(Debug, Clone)]
pub enum Item {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason; no code if the frame was empty.
    Close(Option<u16>, String),
    /// The TCP connection is over.
    End,
}

/// The socket and what was read from it but not yet used.
pub struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
}

impl Wire {
    /// Connects without sending anything.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Speaks over this stream.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: BytesMut::with_capacity(8 * 1024) }
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes to a peer that may have gone.
    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads more into the buffer; false when the connection is over. Nothing is lost if this is cancelled.
    async fn fill(&mut self) -> bool {
        // A reset is an end, too: a server that has closed may still have been sent something.
        !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_))
    }

    /// The head of an HTTP message up to its empty line, or `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                return Some(String::from_utf8(head[..end].to_vec()).unwrap());
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "the connection ended inside a head: {:?}", self.buffer);
                return None;
            }
        }
    }

    /// Exactly this many bytes.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "the connection ended {} bytes into {length}", self.buffer.len());
        }
        self.buffer.split_to(length).to_vec()
    }

    /// The next chunk of a body; the last one is empty. Nothing is lost if this is cancelled.
    pub async fn chunk(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..end]).unwrap();
                let length = usize::from_str_radix(size, 16).unwrap_or_else(|error| panic!("{error} in {size:?}"));
                if self.buffer.len() >= end + 2 + length + 2 {
                    self.buffer.advance(end + 2);
                    let chunk = self.buffer.split_to(length).to_vec();
                    assert_eq!(&self.buffer.split_to(2)[..], b"\r\n", "after a chunk");
                    return chunk;
                }
            }
            assert!(self.fill().await, "the connection ended inside a body: {:?}", self.buffer);
        }
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        self.buffer.split().to_vec()
    }

    /// The next frame, or `None` at the end of the connection. Nothing is lost if this is cancelled.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.buffered_frame() {
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    fn buffered_frame(&mut self) -> Option<Frame> {
        let bytes = &self.buffer[..];
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        assert_eq!(first & 0x70, 0, "reserved bits in a frame of the server");
        assert_eq!(second & 0x80, 0, "a server must not mask its frames");
        let (head, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
            short => (2, u64::from(short)),
        };
        let length = usize::try_from(length).unwrap();
        if bytes.len() < head + length {
            return None;
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => panic!("opcode {other} from the server"),
        };
        self.buffer.advance(head);
        let payload = self.buffer.split_to(length).to_vec();
        Some(Frame { fin: first & 0x80 != 0, opcode, payload })
    }

    /// The next complete message or control frame.
    pub async fn item(&mut self) -> Item {
        let Some(frame) = self.frame().await else { return Item::End };
        assert!(frame.fin, "the server fragmented a message");
        match frame.opcode {
            Opcode::Text => Item::Text(String::from_utf8(frame.payload).expect("text frames are UTF-8")),
            Opcode::Ping => Item::Ping(frame.payload),
            Opcode::Pong => Item::Pong(frame.payload),
            Opcode::Close if frame.payload.is_empty() => Item::Close(None, String::new()),
            Opcode::Close => {
                assert!(frame.payload.len() <= 125, "a close frame of {} bytes", frame.payload.len());
                let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                Item::Close(Some(code), String::from_utf8(frame.payload[2..].to_vec()).expect("reasons are UTF-8"))
            }
            Opcode::Binary | Opcode::Continuation => panic!("the server sent {:?}", frame.opcode),
        }
    }
}

/// A frame as a client must send it: masked.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0xab, 0x34, 0xcd];
    let mut bytes = head(fin, opcode, payload.len(), true);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame as a client must not send it.
pub fn unmasked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(fin, opcode, payload.len(), false);
    bytes.extend(payload);
    bytes
}

/// The first bytes of a frame that claims this length.
pub fn head(fin: bool, opcode: u8, length: usize, mask: bool) -> Vec<u8> {
    let mask = if mask { 0x80 } else { 0 };
    let mut bytes = vec![if fin { 0x80 | opcode } else { opcode }];
    match length {
        0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes
}
