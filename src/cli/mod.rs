//! The command line.

mod call;
mod certificates;
mod check;
mod demo;
mod dev;
mod health;
#[doc(hidden)]
pub mod import;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tokio::runtime;
use tracing_subscriber::filter::LevelFilter;

use crate::{
    app::{self, Listeners},
    config::{self, Config},
    grpc, local,
    telemetry::{
        log::{self, Form},
        writer,
    },
};

/// Something in the call of the command or in a file is wrong.
const WRONG: u8 = 2;
/// How long the last lines have to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "lambda-policy", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the policies of a file
    Serve {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and tell everything that is wrong with it
    Check(check::Args),
    /// Serve with a Lambda of its own: nothing leaves this machine
    Dev(dev::Args),
    /// Call a policy and print the answer
    Call(call::Args),
    /// Ask a service whether it wants calls
    Health(health::Args),
    /// See it work: starts everything on free ports and makes real calls
    Demo,
    /// Print another gateway's configuration as a policies file, and tell what cannot be taken over
    #[command(subcommand)]
    Import(import::Source),
    /// Write the contract's descriptor set, for gateways that transcode
    Descriptor {
        /// With the types of an error's details, which Envoy's convert_grpc_status needs
        #[arg(long)]
        errors: bool,
        /// Where to; standard output without it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// A function of the demo: a process that speaks Lambda's Runtime API
    #[command(hide = true)]
    Function,
}

/// Runs a command; what it prints is for people, but for `schema`, `import` and `descriptor`.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    to_its_end(run(command))
}

/// Runs a command on this thread. What it leaves behind, such as the read of a file that does not come back, is not waited for.
fn to_its_end(command: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            runtime.shutdown_background();
            writer::finish(LAST_LINES);
            code
        }
        Err(error) => wrong(&format!("the program cannot start: {error}")),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve { config } => {
            log::start(Form::Auto, LevelFilter::INFO);
            serve(config).await
        }
        Command::Check(args) => check::run(args).await,
        Command::Dev(args) => {
            log::start(Form::Auto, LevelFilter::INFO);
            dev::run(args).await
        }
        Command::Call(args) => call::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Demo => {
            log::start(Form::Auto, LevelFilter::ERROR);
            demo::run().await
        }
        Command::Import(source) => import::run(&source),
        Command::Descriptor { errors, output } => descriptor(errors, output),
        Command::Schema => {
            print(&format!("{:#}", config::schema()));
            ExitCode::SUCCESS
        }
        Command::Function => function().await,
    }
}

async fn serve(file: PathBuf) -> ExitCode {
    app::seal();
    let config = match Config::load(&file) {
        Ok(config) => config,
        Err(faults) => return wrong(&faults.to_string()),
    };
    let listeners = match Listeners::bind(&config).await {
        Ok(listeners) => listeners,
        Err(error) => return wrong(&error.to_string()),
    };
    match app::run(config, Some(file.into()), listeners, app::stopped()).await {
        Ok(()) => ExitCode::SUCCESS,
        // Where the log goes, which may take nothing.
        Err(error) => {
            writer::say(&error.to_string());
            ExitCode::from(WRONG)
        }
    }
}

fn descriptor(errors: bool, output: Option<PathBuf>) -> ExitCode {
    let set = grpc::descriptor::set(errors);
    let written = match &output {
        Some(file) => fs::write(file, set),
        None => io::stdout().write_all(&set),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = output.map_or_else(|| "standard output".to_owned(), |file| file.display().to_string());
            wrong(&format!("--output: {place} cannot be written: {error}"))
        }
    }
}

async fn function() -> ExitCode {
    match local::serve_sample().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => wrong(&format!("the function's process ended: {error}")),
    }
}

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the command line's complaint")]
fn complain(text: &str) {
    eprintln!("{text}");
}

fn wrong(text: &str) -> ExitCode {
    complain(text);
    ExitCode::from(WRONG)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    #[test]
    fn a_command_ends_though_something_of_it_does_not() {
        let (release, held) = mpsc::channel::<()>();
        let began = Instant::now();
        let code = to_its_end(async move {
            // It would end by itself one day, so that the test fails and does not hang.
            tokio::task::spawn_blocking(move || held.recv_timeout(Duration::from_secs(20)));
            ExitCode::from(7)
        });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(7)));
        assert!(began.elapsed() < Duration::from_secs(15));
        drop(release);
    }
}
