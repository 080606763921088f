//! The doorway.

use std::process::ExitCode;

/// Where calls are allocated: glibc's allocator costs a call a fifth more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lambda_policy::cli::main()
}
