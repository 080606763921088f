//! The doorway.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    lambda_policy::cli::main().await
}
