//! The doorway.

use std::process::ExitCode;

/// Where calls are allocated: glibc's allocator costs a call a fifth more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda_policy::cli::main().await
}
