//! A gateway's connection, which begins in time and writes small answers together.
//!
//! HTTP/2 (the crate h2) writes a payload by itself from a certain size on, instead of copying it behind what is queued:
//! from 256 bytes if the connection takes several buffers at once, else from 1 KiB. With the first, the answer of nearly
//! every call is a write and a packet of its own. The size is chosen once, when the connection begins; so this one says
//! that it takes one buffer until its first write, and the truth from then on, for large payloads.
//!
//! hyper waits for headers no longer than 30 seconds and asks an idle HTTP/2 connection whether anybody is there, but it
//! does neither before it has read enough to know which protocol is spoken. So this one waits for that.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{
    admission::Place,
    policy::callers::{self, Origin},
};

/// What every HTTP/2 connection begins with (RFC 9113, 3.4), as far as it tells it from HTTP/1 and from TLS.
const PREFACE: &[u8] = b"PRI";
/// As many bytes as the whole of it has: with these it is clear which protocol is spoken.
const ENOUGH: usize = 24;
/// How long they may take.
const BEGINNING: Duration = Duration::from_secs(10);

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
    beginning: Option<Beginning>,
    _place: Place,
}

/// The first bytes, while they are waited for.
#[derive(Debug)]
struct Beginning {
    read: usize,
    late: Pin<Box<Sleep>>,
}

/// Who is at the other end; a part of each of its requests.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// When it began.
    pub since: Instant,
    pub tls: bool,
    pub origin: Option<Origin>,
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
    pub(super) fn plain(socket: Socket, place: Place) -> Self {
        let connection = Connection::new(origin(&socket), false, proven(&socket, Vec::new()));
        Self::new(Either::Left(socket), connection, place)
    }

    pub(super) fn encrypted(tls: TlsStream<Socket>, origin: Option<Origin>, place: Place) -> Self {
        let (socket, session) = tls.get_ref();
        let names = session.peer_certificates().and_then(<[_]>::first).map(super::tls::names).unwrap_or_default();
        let connection = Connection::new(origin, true, proven(socket, names));
        Self::new(Either::Right(Box::new(tls)), connection, place)
    }

    fn new(transport: Transport, connection: Connection, place: Place) -> Self {
        let beginning = Beginning { read: 0, late: Box::pin(sleep(BEGINNING)) };
        Self { transport, state: State::New, connection, beginning: Some(beginning), _place: place }
    }

    /// Something is answered: the protocol is known.
    fn open(&mut self) {
        self.state = State::Open;
        self.beginning = None;
    }

    /// So many more bytes have come, or none yet.
    fn begin(&mut self, read: Option<usize>, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(beginning) = &mut self.beginning else { return Ok(()) };
        match read {
            Some(read) => beginning.read += read,
            None if beginning.late.as_mut().poll(cx).is_ready() => {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            None => {}
        }
        if beginning.read >= ENOUGH {
            self.beginning = None;
        }
        Ok(())
    }
}

impl Connection {
    fn new(origin: Option<Origin>, tls: bool, proven: Option<Arc<callers::Peer>>) -> Self {
        Self { since: Instant::now(), tls, origin, proven }
    }
}

/// Where a connection comes from. Of one that has broken off nobody knows.
pub(super) fn origin(socket: &Socket) -> Option<Origin> {
    match socket {
        Either::Left(tcp) => tcp.peer_addr().ok().map(|address| Origin::Address(address.ip())),
        Either::Right(_) => Some(Origin::Unix),
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
        if self.beginning.is_some() {
            let read = polled.is_ready().then(|| buffer.filled().len() - before);
            if let Err(late) = self.begin(read, cx) {
                return Poll::Ready(Err(late));
            }
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open();
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open();
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
    use crate::admission::Connections;

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Connections::default()).enter().unwrap();
        (peer, Stream::plain(Either::Left(listener.accept().await.unwrap().0), place))
    }

    async fn begun_with(bytes: &[u8]) -> Stream {
        let (mut peer, mut stream) = pair().await;
        peer.write_all(bytes).await.unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_too_little_is_not_waited_for() {
        for (what, first, ends) in [
            ("nothing", &b""[..], true),
            ("a byte", b"P", true),
            ("half of the preface", b"PRI * HTTP/", true),
            ("the preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
            ("a request line", b"GET /v1/policies HTTP/1.1\r\n", false),
        ] {
            let (mut peer, mut stream) = pair().await;
            peer.write_all(first).await.unwrap();
            stream.read_exact(&mut vec![0; first.len()]).await.unwrap();
            let mut buffer = [0; 1];
            let read = tokio::time::timeout(2 * BEGINNING, stream.read(&mut buffer)).await;
            assert_eq!(read.is_ok_and(|read| read.is_err()), ends, "{what}");
        }
        let (mut peer, mut stream) = pair().await;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 18]).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let waited = tokio::time::timeout(2 * BEGINNING, stream.read(&mut [0; 1])).await;
        assert!(waited.is_err(), "a short request that is answered has begun");
    }
}
