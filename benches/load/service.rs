//! The product: its release binary with default settings and a file of policies.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    process::{Cores, Process, free_address},
    signed::{KEY_ID, REGION, SECRET},
};

/// The binary, built with the same profile as this program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lambda-policy");
/// How many policies its file has.
pub(crate) const POLICIES: usize = 100;

/// The service, ready for calls.
#[derive(Debug)]
pub(crate) struct Started {
    pub process: Process,
    pub address: SocketAddr,
    /// From its start as a process until `/readyz` says so.
    pub ready_after: Duration,
}

/// The name of a policy, and of its function.
pub(crate) fn policy(number: usize) -> String {
    format!("policy-{number}")
}

pub(crate) fn start(cores: &Cores, upstream: SocketAddr, policies: usize) -> Outcome<Started> {
    start_with(cores, upstream, policies, &[], "")
}

/// Starts it with metrics, access lines, and metrics and spans pushed to a collector, as often and for as many calls as by default; or with none of it.
pub(crate) fn start_telling(cores: &Cores, upstream: SocketAddr, collector: Option<SocketAddr>) -> Outcome<Started> {
    match collector {
        Some(address) => {
            let telemetry = format!("telemetry: {{otlp: {{endpoint: 'http://{address}'}}}}\n");
            start_with(cores, upstream, POLICIES, &[], &telemetry)
        }
        None => start_with(cores, upstream, POLICIES, &[("LAMBDA_POLICY_LOG", "warn")], "telemetry: {metrics: off}\n"),
    }
}

/// Starts it with these environment variables and this section of its configuration too.
pub(crate) fn start_with(
    cores: &Cores,
    upstream: SocketAddr,
    policies: usize,
    variables: &[(&str, &str)],
    section: &str,
) -> Outcome<Started> {
    let (address, admin) = (free_address()?, free_address()?);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load-{}.yaml", address.port()));
    fs::write(&file, section.to_owned() + &configuration(address, admin, upstream, policies)?)?;
    let started = Instant::now();
    let mut process =
        Process::start(cores, PROGRAM.as_ref(), &["serve".as_ref(), "--config".as_ref(), file.as_os_str()], variables)?;
    process.wait_for(admin)?;
    while !is_ready(admin)? {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ready_after = started.elapsed();
    fs::remove_file(file)?;
    Ok(Started { process, address, ready_after })
}

/// Every policy has keys of its own, so that each costs what a tenant costs.
fn configuration(address: SocketAddr, admin: SocketAddr, upstream: SocketAddr, policies: usize) -> Outcome<String> {
    let mut text = format!(
        "server: {{listen: '{address}'}}\nadmin: {{listen: '{admin}'}}\n\
         defaults: {{region: {REGION}, endpoint: {{url: 'http://{upstream}'}}}}\npolicies:\n"
    );
    for number in 0..policies {
        writeln!(
            text,
            "  {0}:\n    function: {0}\n    credentials: {{access_key_id: {KEY_ID}{number}, secret_access_key: {SECRET}{number}}}",
            policy(number)
        )?;
    }
    Ok(text)
}

fn is_ready(admin: SocketAddr) -> Outcome<bool> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
