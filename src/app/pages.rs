//! Memory in small pages, so that what is reserved and never written takes none.
//!
//! A gRPC message says how long it is before it comes, and tonic reserves as much at once. With huge pages, which the
//! allocator asks for, five bytes then take 2 MiB.

/// Turns huge pages off for this process (`prctl(2)`, `PR_SET_THP_DISABLE`). On Linux only.
pub(super) fn small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "messages that never come may take memory");
    }
}
