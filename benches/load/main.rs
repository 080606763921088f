//! The load driver: what a call costs the service, beside the least that it could cost and what others cost.
//!
//! `cargo bench --bench load` starts everything on the loopback device, each part as a process of its own on a core of
//! its own, drives all targets with the same calls in turns, and prints one table and which criteria hold.

mod collector;
mod cpu;
mod drive;
mod envoy;
mod floor;
mod footprint;
mod grpc;
mod process;
mod report;
mod run;
mod sdk;
mod service;
mod signed;
mod target;
mod upstream;

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

/// What can go wrong here ends the run, so that it only has to be told.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// As the product's: the floor is to differ from it by what it does alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "What a call costs the service, the floor, the SDK and Envoy's own filter")]
struct Cli {
    #[command(flatten)]
    options: run::Options,
    /// Given by `cargo bench`; without it nothing is measured, as the build is no release
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The parts that the driver starts of itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Upstream(upstream::Args),
    #[command(hide = true)]
    Floor(target::Args),
    #[command(hide = true)]
    Sdk(target::Args),
    #[command(hide = true)]
    Drive(drive::Args),
    #[command(hide = true)]
    Collector,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the results are for people")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.part {
        Some(Part::Upstream(args)) => upstream::main(args),
        Some(Part::Floor(args)) => floor::serve(args),
        Some(Part::Sdk(args)) => sdk::serve(args),
        Some(Part::Drive(args)) => drive::main(args),
        Some(Part::Collector) => collector::main(),
        None if !cli.bench => {
            println!("nothing measured: run `cargo bench --bench load`");
            Ok(())
        }
        None => run::main(&cli.options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
