//! `health`: whether a service wants calls, for probes in containers that hold nothing else.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{certificates::Certificates, complain, print};
use crate::{config::Config, grpc::client};

/// How long a service may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most that is read of why it is not.
const MOST_READ: usize = 4096;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service's configuration, of which `admin.listen` is asked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "grpc"])]
    config: Option<PathBuf>,
    /// The admin port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9464", conflicts_with = "grpc")]
    address: String,
    /// Ask gRPC's health service instead: HOST:PORT, http://…, https://… or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<String>,
    #[command(flatten)]
    certificates: Certificates,
}

/// Fails with 1 whatever the reason is: container engines know no other code.
pub(super) async fn run(args: Args) -> ExitCode {
    let asked = timeout(PATIENCE, ask(&args)).await;
    match asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
        Ok(()) => {
            print("ready");
            ExitCode::SUCCESS
        }
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn ask(args: &Args) -> Result<(), String> {
    if let Some(address) = &args.grpc {
        return client::ready(address, args.certificates.read()?).await.map_err(|why| format!("--grpc: {why}"));
    }
    let address = match &args.config {
        None => args.address.clone(),
        Some(file) => reachable(Config::load(file).map_err(|faults| faults.to_string())?.admin).to_string(),
    };
    readyz(&address).await.map_err(|why| format!("{address}: {why}"))
}

/// Where the service is asked that listens at an address: one for all of the machine's stands for loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn readyz(address: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
    let broken = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::get("/readyz").header(HOST, address).body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(broken)?;
    match response.status() {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => {
            let why = Limited::new(response.into_body(), MOST_READ).collect().await;
            let why = why.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
            Err(why.ok().filter(|why| !why.is_empty()).unwrap_or_else(|| "not ready".to_owned()))
        }
        other => Err(format!("answered {other} to /readyz: is this the admin port?")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_machine_is_asked_on_loopback() {
        for (listen, asked) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked, "{listen}");
        }
    }
}
