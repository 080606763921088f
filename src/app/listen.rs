//! Where gRPC is served: a TCP address, or a Unix socket for gateways on the same machine.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::{config::Listen, grpc::Socket};

/// A listener for gRPC.
#[derive(Debug)]
pub enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(Unix),
}

/// A Unix socket, whose file goes when it is dropped.
#[derive(Debug)]
pub struct Unix {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// A connection on its way to a worker, of no runtime.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

impl Listener {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// If the address is in use or not this machine's, or the file is something else than a socket that nobody serves.
    pub async fn bind(listen: &Listen, mode: u32) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => Unix::bind(path, mode).map(Self::Unix),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address: SocketAddr| Address(address.to_string())),
            Self::Unix(unix) => Ok(Address(format!("unix:{}", unix.path.display()))),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Accepted::Tcp),
            Self::Unix(unix) => unix.listener.accept().await?.0.into_std().map(Accepted::Unix),
        }
    }
}

impl Accepted {
    /// The connection on this runtime.
    pub(super) fn arrive(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => {
                // A failure costs latency only.
                let _ = stream.set_nodelay(true);
                TcpStream::from_std(stream).map(Either::Left)
            }
            Self::Unix(stream) => UnixStream::from_std(stream).map(Either::Right),
        }
    }
}

impl Unix {
    /// The file gets its mode before it gets its name, so that nobody connects who may not. It takes the place of a
    /// socket that a process has left behind, and of nothing else.
    fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is no socket"));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
            }
            Ok(_) => {}
        }
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        let bind = || {
            let listener = UnixListener::bind(&new)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
            let inode = fs::symlink_metadata(&new)?.ino();
            fs::rename(&new, path)?;
            Ok(Self { listener, path: path.to_owned(), inode })
        };
        bind().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // A successor may have put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
