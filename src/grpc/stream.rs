//! A gateway's connection, which writes small answers together.
//!
//! HTTP/2 (the crate h2) writes a payload by itself from a certain size on, instead of copying it behind what is queued:
//! from 256 bytes if the connection takes several buffers at once, else from 1 KiB. With the first, the answer of nearly
//! every call is a write and a packet of its own. The size is chosen once, when the connection begins; so this one says
//! that it takes one buffer until its first write, and the truth from then on, for large payloads.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{execute::Peer, policy::callers};

/// What every HTTP/2 connection begins with (RFC 9113, 3.4), as far as it tells it from HTTP/1 and from TLS.
const PREFACE: &[u8] = b"PRI";

/// A connection as it was accepted.
pub type Socket = Either<TcpStream, UnixStream>;

/// What calls are read from.
type Transport = Either<Socket, Box<TlsStream<Socket>>>;

/// A connection from a gateway.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    state: State,
    connection: Connection,
}

/// Who is at the other end; a part of each of its requests.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// None behind a Unix socket.
    pub peer: Option<Peer>,
    /// What the connection proves, if anything.
    pub proven: Option<Arc<callers::Peer>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was read yet.
    New,
    /// HTTP/2, and nothing was written yet.
    Begun,
    Open,
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        let connection = Connection { peer: peer(&socket, false), proven: proven(&socket, Vec::new()) };
        Self { transport: Either::Left(socket), state: State::New, connection }
    }

    pub(super) fn encrypted(tls: TlsStream<Socket>) -> Self {
        let (socket, session) = tls.get_ref();
        let names = session.peer_certificates().and_then(<[_]>::first).map(super::tls::names).unwrap_or_default();
        let connection = Connection { peer: peer(socket, true), proven: proven(socket, names) };
        Self { transport: Either::Right(Box::new(tls)), state: State::New, connection }
    }
}

fn peer(socket: &Socket, tls: bool) -> Option<Peer> {
    match socket {
        Either::Left(tcp) => tcp.peer_addr().ok().map(|address| Peer { ip: address.ip(), tls }),
        Either::Right(_) => None,
    }
}

fn proven(socket: &Socket, names: Vec<String>) -> Option<Arc<callers::Peer>> {
    let user = match socket {
        Either::Left(_) => None,
        Either::Right(unix) => unix.peer_cred().ok().map(|process| process.uid()),
    };
    (user.is_some() || !names.is_empty()).then(|| Arc::new(callers::Peer { names, user }))
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(cx, buffer);
        if self.state == State::New && polled.is_ready() {
            let read = buffer.filled().get(before..).unwrap_or_default();
            self.state = if read.starts_with(PREFACE) { State::Begun } else { State::Open };
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.state = State::Open;
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state = State::Open;
        Pin::new(&mut self.transport).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.state != State::Begun
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

impl Connected for Stream {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn begun_with(bytes: &[u8]) -> Stream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let mut stream = Stream::plain(Either::Left(listener.accept().await.unwrap().0));
        let mut buffer = vec![0; bytes.len()];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(buffer, bytes);
        stream
    }

    #[tokio::test]
    async fn http_2_begins_with_one_buffer_at_a_time_and_goes_on_with_many() {
        let mut stream = begun_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(!stream.is_write_vectored());
        stream.write_all(b"settings").await.unwrap();
        assert!(stream.is_write_vectored());
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01"] {
            assert!(begun_with(other).await.is_write_vectored(), "nothing else is changed");
        }
    }
}
