//! A TCP proxy that does harm on demand: between the service and Lambda, or between a caller and the service.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

/// It runs until it is dropped, and so do its connections.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What goes wrong, from when it is armed, on every connection.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Nothing,
    /// Every piece is late.
    Late(Duration),
    /// A connection ends as soon as it is there.
    AtOnce(End),
    /// So many bytes go one way, and at the next one the connection ends.
    After(Way, usize, End),
    /// These bytes are the answer to the first ones that come from the client, of which nothing is passed on.
    Say(&'static [u8], End),
    /// These bytes stand in the place of the answer, once there is one.
    Instead(&'static [u8], End),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// How a connection ends, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Close,
    /// By RST.
    Reset,
    /// Not at all, but nothing is passed on any more.
    Stall,
    /// Not at all, and nothing more happens to it.
    Open,
}

struct Shared {
    /// Counted, so that a connection sees that it is another one.
    armed: Mutex<(u64, Fault)>,
    /// Where connections go, in turn.
    upstreams: Mutex<Vec<SocketAddr>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    kill: watch::Sender<Option<End>>,
}

impl Proxy {
    pub(crate) async fn start(upstream: &str) -> Self {
        Self::over(vec![upstream.trim_start_matches("http://").parse().unwrap()]).await
    }

    /// Connections go to these in turn, as a load balancer's do.
    pub(crate) async fn over(upstreams: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            armed: Mutex::new((0, Fault::Nothing)),
            upstreams: Mutex::new(upstreams),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            kill: watch::channel(None).0,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    pub(crate) fn arm(&self, fault: Fault) {
        let mut armed = self.shared.armed.lock().unwrap();
        *armed = (armed.0 + 1, fault);
    }

    /// Ends the connections that there are.
    pub(crate) fn end_all(&self, end: End) {
        self.shared.kill.send_replace(Some(end));
    }

    /// Sends new connections elsewhere; those that there are stay where they are.
    pub(crate) fn turn_to(&self, upstreams: Vec<SocketAddr>) {
        *self.shared.upstreams.lock().unwrap() = upstreams;
    }

    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                shared.open.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    connection(accepted.unwrap().0, &shared).await;
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(mut client: TcpStream, shared: &Shared) {
    let mut kill = shared.kill.subscribe();
    if let (_, Fault::AtOnce(end)) = shared.armed() {
        match end {
            // It never reads, so that its window fills.
            End::Stall => std::future::pending().await,
            end => end.apply(&mut client, None).await,
        }
        return;
    }
    let next = {
        let upstreams = shared.upstreams.lock().unwrap();
        upstreams[shared.accepted.load(Ordering::Relaxed) % upstreams.len()]
    };
    // Who cannot be reached refuses: a reset, as nothing else can be said any more.
    let Ok(mut upstream) = TcpStream::connect(next).await else { return End::Reset.apply(&mut client, None).await };
    client.set_nodelay(true).unwrap();
    upstream.set_nodelay(true).unwrap();
    let (mut from_client, mut from_upstream) = (vec![0; 16384], vec![0; 16384]);
    let (mut generation, mut passed, mut spared) = (0, 0, false);
    loop {
        let (way, read) = tokio::select! {
            read = client.read(&mut from_client) => (Way::Up, read),
            read = upstream.read(&mut from_upstream) => (Way::Down, read),
            _ = kill.changed() => {
                let end = kill.borrow_and_update().unwrap_or(End::Close);
                return end.apply(&mut client, Some(&mut upstream)).await;
            }
        };
        let read = match read {
            Ok(read @ 1..) => read,
            // One that breaks breaks the other.
            Ok(0) => return End::Close.apply(&mut client, Some(&mut upstream)).await,
            Err(_) => return End::Reset.apply(&mut client, Some(&mut upstream)).await,
        };
        let mut data = match way {
            Way::Up => &from_client[..read],
            Way::Down => &from_upstream[..read],
        };
        let (now, fault) = shared.armed();
        if now != generation {
            (generation, passed, spared) = (now, 0, false);
        }
        let mut end = End::Open;
        match fault {
            Fault::Late(by) => sleep(by).await,
            Fault::After(at, most, then) if at == way => {
                if passed + data.len() > most {
                    data = &data[..most - passed];
                    end = then;
                }
                passed += data.len();
            }
            Fault::Say(bytes, then) if way == Way::Up && !spared => {
                let _ = client.write_all(bytes).await;
                (spared, end) = (true, then);
                data = &[];
            }
            Fault::Instead(bytes, then) if way == Way::Down && !spared => {
                let _ = client.write_all(bytes).await;
                (spared, end) = (true, then);
                data = &[];
            }
            _ => {}
        }
        let to = match way {
            Way::Up => &mut upstream,
            Way::Down => &mut client,
        };
        if !data.is_empty() && to.write_all(data).await.is_err() {
            end = End::Reset;
        }
        if end != End::Open {
            return end.apply(&mut client, Some(&mut upstream)).await;
        }
    }
}

impl Shared {
    fn armed(&self) -> (u64, Fault) {
        self.armed.lock().unwrap().clone()
    }
}

impl End {
    async fn apply(self, client: &mut TcpStream, upstream: Option<&mut TcpStream>) {
        let sides = [Some(&mut *client), upstream];
        match self {
            Self::Open => {}
            Self::Reset => sides.into_iter().flatten().for_each(|side| drop(side.set_zero_linger())),
            Self::Close => {
                for side in sides.into_iter().flatten() {
                    let _ = side.shutdown().await;
                }
                // What still comes is read, as the system would say RST otherwise.
                let _ = timeout(Duration::from_secs(1), gone(client)).await;
            }
            Self::Stall => gone(client).await,
        }
    }
}

/// Reads until the client ends the connection.
async fn gone(client: &mut TcpStream) {
    let mut nobody = [0; 4096];
    while let Ok(1..) = client.read(&mut nobody).await {}
}
