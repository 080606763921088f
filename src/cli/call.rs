//! `call`: one call of a policy, its answer made readable.

use std::{
    env, fs,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use super::{certificates::Certificates, complain, print, wrong};
use crate::grpc::client::{Client, ConnectError, Failure, Outcome, Part, Trust};

/// The environment variable with the bearer token to be known by: an argument could be read by everybody on the machine.
const TOKEN: &str = "LAMBDA_POLICY_TOKEN";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The policy's name
    policy: String,
    /// The event: JSON, or @FILE to read it
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    data: String,
    /// Where the service listens: HOST:PORT, http://…, https://… or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    address: String,
    #[command(flatten)]
    certificates: Certificates,
    /// Instead of the policy's: request-response, event or dry-run
    #[arg(long, value_name = "TYPE", value_parser = ["request-response", "event", "dry-run"])]
    invocation: Option<String>,
    /// Instead of the policy's, if the policy allows it
    #[arg(long, value_name = "ALIAS|VERSION", default_value = "")]
    qualifier: String,
    /// Print the answer as the function writes it
    #[arg(long)]
    stream: bool,
    /// How long to wait at the most
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: Args) -> ExitCode {
    let data = match args.data.strip_prefix('@') {
        None => args.data.clone(),
        Some(file) => match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return wrong(&format!("--data: the file {file} cannot be read: {error}")),
        },
    };
    let trust = match trust(&args) {
        Ok(trust) => trust,
        Err(error) => return wrong(&error),
    };
    let mut client = match Client::connect(&args.address, trust).await {
        Ok(client) => client,
        Err(error @ ConnectError::Wrong(_)) => return wrong(&format!("--address: {error}")),
        Err(error @ ConnectError::Unreachable(_)) => {
            complain(&format!("--address: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if args.stream {
        return stream(&mut client, &args, data).await;
    }
    let called =
        client.call_json(&args.policy, data, args.invocation.as_deref(), &args.qualifier, Some(args.timeout)).await;
    match called {
        Ok(outcome) => {
            show(&outcome);
            ExitCode::from(u8::from(outcome.error.is_some()))
        }
        Err(failure) => {
            show_failure(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Prints what comes as it comes.
async fn stream(client: &mut Client, args: &Args, data: String) -> ExitCode {
    let (invocation, timeout) = (args.invocation.as_deref(), Some(args.timeout));
    let mut parts = match client.stream_json(&args.policy, data, invocation, &args.qualifier, timeout).await {
        Ok(parts) => parts,
        Err(failure) => {
            show_failure(&failure);
            return ExitCode::FAILURE;
        }
    };
    let mut about = String::new();
    loop {
        match parts.next().await {
            Ok(Some(Part::Start { status, version, request })) => {
                let version = if version.is_empty() { version } else { format!(", version {version}") };
                about = format!("status {status}{version}, request {request}");
            }
            Ok(Some(Part::Chunk(chunk))) => {
                // Who reads no more has seen enough.
                if io::stdout().write_all(&chunk).and_then(|()| io::stdout().flush()).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Ok(Some(Part::End { error, log, total_ms })) => {
                if let Some((kind, error_type, message)) = &error {
                    complain(&format!("the function failed ({kind}): {error_type}: {message}"));
                }
                complain(&format!("{about}, {total_ms} ms"));
                if !log.is_empty() {
                    complain(&format!("log:\n{}", log.trim_end()));
                }
                return ExitCode::from(u8::from(error.is_some()));
            }
            Ok(None) => {
                complain("the answer ended before its end");
                return ExitCode::FAILURE;
            }
            Err(failure) => {
                show_failure(&failure);
                return ExitCode::FAILURE;
            }
        }
    }
}

/// With the token of the environment.
fn trust(args: &Args) -> Result<Trust, String> {
    let token = match env::var(TOKEN) {
        Ok(token) => Some(token.trim().to_owned().into()),
        Err(env::VarError::NotPresent) => None,
        Err(env::VarError::NotUnicode(_)) => return Err(format!("{TOKEN}: is no text")),
    };
    Ok(Trust { token, ..args.certificates.read()? })
}

/// Prints the output on standard output and what stands around it on standard error.
fn show(outcome: &Outcome) {
    if let Some(output) = &outcome.output {
        print(output);
    }
    if let Some((kind, error_type, message)) = &outcome.error {
        complain(&format!("the function failed ({kind}): {error_type}: {message}"));
    }
    let version = if outcome.version.is_empty() { String::new() } else { format!(", version {}", outcome.version) };
    complain(&format!("status {}{version}, request {}, {} ms", outcome.status, outcome.request, outcome.total_ms));
    if !outcome.log.is_empty() {
        complain(&format!("log:\n{}", outcome.log.trim_end()));
    }
}

fn show_failure(failure: &Failure) {
    complain(&format!("{} ({}): {}", failure.reason, failure.code, failure.message));
    for (field, description) in &failure.violations {
        complain(&format!("  {field}: {description}"));
    }
    for (key, value) in &failure.metadata {
        complain(&format!("  {key}: {value}"));
    }
    if let Some(after) = failure.retry_after {
        complain(&format!("  try again after: {}", humantime::format_duration(after)));
    }
}
