//! A Lambda that costs next to nothing: it answers every signed invocation at once, or after a delay.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    sync::mpsc,
};

use crate::{Outcome, process};

/// How an upstream behaves.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The size of an answer in bytes; as large as the event, if there is none
    #[arg(long)]
    pub reply: Option<usize>,
    /// How long a function runs
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// How many threads serve
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// Where an upstream is.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub address: SocketAddr,
    _process: process::Process,
}

impl Upstream {
    pub(crate) fn start(cores: &process::Cores, args: &Args) -> Outcome<Self> {
        let mut words = vec!["upstream".to_owned()];
        if let Some(reply) = args.reply {
            words.extend(["--reply".to_owned(), reply.to_string()]);
        }
        words.extend(["--delay-ms".to_owned(), args.delay_ms.to_string()]);
        words.extend(["--threads".to_owned(), args.threads.to_string()]);
        let (process, address) = process::Process::part(cores, &words)?;
        Ok(Self { address, _process: process })
    }
}

#[expect(clippy::print_stdout, reason = "the starter reads the address")]
pub(crate) fn main(args: &Args) -> Outcome<()> {
    process::end_with_parent();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let threads: Vec<_> = (0..args.threads).map(|_| serve(args.clone())).collect();
    println!("{}", listener.local_addr()?);
    for thread in threads.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        thread.send(stream)?;
    }
    Ok(())
}

/// A thread that answers on the connections that it is sent.
fn serve(args: Args) -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (sender, mut connections) = mpsc::unbounded_channel::<std::net::TcpStream>();
    std::thread::spawn(move || -> Outcome<()> {
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
            while let Some(stream) = connections.recv().await {
                tokio::spawn(connection(TcpStream::from_std(stream)?, args.clone()));
            }
            Ok(())
        })
    });
    sender
}

async fn connection(mut stream: TcpStream, args: Args) -> Outcome<()> {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    let mut prepared = answer(args.reply.unwrap_or_default());
    loop {
        let Some(head) = head(&buffer) else {
            buffer.reserve(16 * 1024);
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let Ok(head) = head else {
            return Ok(stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await?);
        };
        buffer.advance(head.length);
        skip(&mut stream, &mut buffer, head.body).await?;
        if args.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(args.delay_ms)).await;
        }
        let size = args.reply.unwrap_or(head.body);
        if prepared.size != size {
            prepared = answer(size);
        }
        stream.write_all(&prepared.bytes).await?;
    }
}

/// What matters of a request's head.
struct Head {
    length: usize,
    body: usize,
}

/// Nothing answers an unsigned call, one of unknown length or another operation: a target that does not do its work must not look cheap.
struct Refused;

/// The head at the beginning of the buffer, once it is complete.
fn head(buffer: &[u8]) -> Option<Result<Head, Refused>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(Err(Refused)),
    };
    let path = request.path.unwrap_or_default();
    let is_invoke = request.method == Some("POST")
        && path.starts_with("/2015-03-31/functions/")
        && path.split('?').next().is_some_and(|path| path.ends_with("/invocations"));
    let (mut body, mut is_signed, mut is_chunked) = (0, false, false);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(header.value).ok()?.parse().ok()?;
        } else if header.name.eq_ignore_ascii_case("authorization") {
            is_signed = header.value.starts_with(b"AWS4-HMAC-SHA256 Credential=");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = true;
        }
    }
    Some(if is_invoke && is_signed && !is_chunked { Ok(Head { length, body }) } else { Err(Refused) })
}

async fn skip(stream: &mut TcpStream, buffer: &mut BytesMut, body: usize) -> Outcome<()> {
    let mut missing = body.saturating_sub(buffer.len());
    buffer.advance(body.min(buffer.len()));
    while missing > 0 {
        buffer.clear();
        buffer.reserve(64 * 1024);
        let read = stream.read_buf(buffer).await?;
        if read == 0 {
            return Err("the request ended early".into());
        }
        buffer.advance(missing.min(read));
        missing = missing.saturating_sub(read);
    }
    Ok(())
}

/// An answer, made once for all calls of a connection.
struct Answer {
    size: usize,
    bytes: Bytes,
}

fn answer(size: usize) -> Answer {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-amzn-requestid: 2b7c1d0e-6c1e-4d0a-9f57-0c7d7f6f5a11\r\n\
         x-amz-executed-version: $LATEST\r\ncontent-length: {size}\r\n\r\n"
    );
    Answer { size, bytes: [head.into_bytes(), crate::drive::json(size)].concat().into() }
}
