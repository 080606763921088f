//! A small server for the admin port: few connections, none of which may keep it busy.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};

/// Connections at once: probes have one each, and people some more. One more waits until another has ended.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last: so long that none is held for ever by one who does not read.
const LIFE: Duration = Duration::from_secs(60);
/// How much of a head is kept.
const BUFFER: usize = 16 * 1024;
/// How long to wait when no connection can be accepted, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1 until `shutdown`; then every connection is closed.
pub(super) async fn serve(listener: TcpListener, routes: Router, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async || {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            accepted = accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut shutdown => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let _place = place;
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
            // An error is a client that went away or was too slow.
            let _ = timeout(LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    async fn started() -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(async || "here\n"));
        tokio::spawn(serve(listener, routes, std::future::pending()));
        address
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end_and_then_others_have_their_turn() {
        let address = started().await;
        let mut idle = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let began = Instant::now();
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here\n"), "{answer}");
        assert!(began.elapsed() <= 3 * HEAD, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_told_so() {
        let address = started().await;
        for (head, expected) in [
            (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * BUFFER)), "431"),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)), "431"),
            ("GET / HTTP/1.1\r\n folded: x\r\n\r\n".to_owned(), "400"),
        ] {
            let mut probe = TcpStream::connect(address).await.unwrap();
            probe.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A reset after the answer is one that came before all was read.
            let _ = probe.read_to_end(&mut answer).await;
            assert!(answer.starts_with(format!("HTTP/1.1 {expected}").as_bytes()), "{expected}");
        }
    }
}
